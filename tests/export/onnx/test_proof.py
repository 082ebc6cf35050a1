"""The proof lets the sound file through and finds every fault that is put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper  # noqa: E402

from gs_search.export.onnx.float_graph import INPUT  # noqa: E402
from gs_search.export.onnx.proof import check_floats, check_graph, check_layers  # noqa: E402
from gs_search.export.onnx.runtime import session  # noqa: E402
from gs_search.measure.psnr import psnr  # noqa: E402
from gs_search.slimming.layers import slim_layers  # noqa: E402
from tests.export.conftest import Exported  # noqa: E402
from tests.export.students import PX, pictures  # noqa: E402


def test_a_sound_file(exported: Exported) -> None:
    built = exported.built
    graph = check_graph(exported.path)
    names = list(slim_layers(exported.student))
    assert (graph.integer, graph.floats, built.floats) == (len(names), (), ())
    layers = check_layers(exported.path, built.reference, pictures())
    assert [layer.name for layer in layers] == names
    for layer in layers:
        assert layer.ok and layer.differing < 5e-4, layer
    assert check_floats(exported.path, built.lowered, set(built.integer_tensors)) == []


def test_whole_pictures_come_from_the_students_grids(exported: Exported) -> None:
    """The same graph in floats, which knows nothing of integer kernels, paints what the student on the grids paints."""
    x = pictures(4)
    (painted,) = session(exported.path, simulate=True).run(None, {INPUT: x.numpy()})
    (in_integers,) = session(exported.path).run(None, {INPUT: x.numpy()})
    with exported.built.reference.on_grids() as student:
        wanted = student(x)
    # One rounding the other way grows from layer to layer: a picture of 32 px is still the same to the eye.
    assert psnr(torch.from_numpy(painted), wanted) > 30
    assert psnr(torch.from_numpy(in_integers), wanted) > 30
    assert psnr(wanted, exported.student(x)) < 60


def test_any_number_of_pictures_of_any_size(exported: Exported) -> None:
    opened = session(exported.path)
    for shape in ((1, 3, PX, PX), (3, 3, PX, 2 * PX), (2, 3, 3 * PX + 4, PX + 12)):
        (painted,) = opened.run(None, {INPUT: np.zeros(shape, np.float32)})
        assert painted.shape == shape
    many = opened.run(None, {INPUT: pictures(2).numpy()})[0]
    one = opened.run(None, {INPUT: pictures(2)[1:].numpy()})[0]
    np.testing.assert_array_equal(many[1:], one)


def conv_of(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv" and node.name == name)


def tensor_of(model: ModelProto, value: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == value)


def behind(model: ModelProto, value: str) -> NodeProto:
    return next(node for node in model.graph.node if value in node.output)


def change(model: ModelProto, name: str, to: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = tensor_of(model, name)
    array = numpy_helper.to_array(tensor)
    whole = array.astype(np.int32) if array.ndim == 4 else np.array(array)
    middle = 128 if array.ndim == 4 and array.dtype == np.uint8 else 0  # of a weight that could saturate
    new = to(whole - middle) + middle
    if tensor.data_type == TensorProto.INT4:
        tensor.CopyFrom(helper.make_tensor(name, TensorProto.INT4, tensor.dims, new.ravel().tolist()))
    else:
        tensor.CopyFrom(numpy_helper.from_array(new.astype(array.dtype).reshape(tuple(tensor.dims)), name))


def weight_tensors(model: ModelProto, name: str) -> tuple[str, str]:
    """Names of the codes and of the steps of a layer's weight."""
    read = behind(model, conv_of(model, name).input[1])
    value = read.input[0]
    while value not in {tensor.name for tensor in model.graph.initializer}:
        value = behind(model, value).input[0]
    return value, read.input[1]


def input_scale(model: ModelProto, name: str) -> str:
    return behind(model, conv_of(model, name).input[0]).input[1]


def dead(codes: np.ndarray) -> np.ndarray:
    codes[np.abs(codes).sum(axis=(1, 2, 3)).argmax()] = 0
    return codes


def output_scale(model: ModelProto, name: str) -> str:
    quantize = next(node for node in model.graph.node if conv_of(model, name).output[0] in node.input)
    value = quantize.output[0]
    for _ in range(3):
        node = next(node for node in model.graph.node if value in node.input)
        if node.op_type == "DequantizeLinear":
            return node.input[1]
        value = node.output[0]
    raise AssertionError


FAULTS: dict[str, Callable[[ModelProto, str], None]] = {
    "input scale x 0.98": lambda m, n: change(m, input_scale(m, n), lambda s: s * 0.98),
    "weight scales x 0.98": lambda m, n: change(m, weight_tensors(m, n)[1], lambda s: s * 0.98),
    "scales rolled by a channel": lambda m, n: change(
        m, weight_tensors(m, n)[1], lambda s: np.roll(s, s.size // len(set(s.tolist())))
    ),
    "weights rolled by a channel": lambda m, n: change(m, weight_tensors(m, n)[0], lambda w: np.roll(w, 1, axis=0)),
    "a dead channel": lambda m, n: change(m, weight_tensors(m, n)[0], dead),
    "weights truncated": lambda m, n: change(m, weight_tensors(m, n)[0], lambda w: np.trunc(w / 2).astype(int) * 2),
    "transposed kernels": lambda m, n: change(m, weight_tensors(m, n)[0], lambda w: w.swapaxes(2, 3)),
    "a dropped bias": lambda m, n: change(m, behind(m, conv_of(m, n).input[2]).input[0], lambda b: b * 0),
}
LAYERS = ("stem.1", "down.0", "body.0.branch.1", "up.0", "up.1", "head.1")
"""One of each kind: pixels, feeding a convolution, mirrored pad, transposed, fed by a convolution, last."""


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str, exported: Exported, tmp_path: Path) -> None:
    """Each fault in one layer of each kind, all in one file: just these layers are found."""
    model = onnx.load(exported.path)
    for name in LAYERS:
        FAULTS[fault](model, name)
    path = tmp_path / "faulty.onnx"
    onnx.save(model, path)
    layers = {layer.name: layer for layer in check_layers(path, exported.built.reference, pictures())}
    found = {name for name, layer in layers.items() if not layer.ok}
    assert found == set(LAYERS)


def test_a_wrong_scale_behind_the_codes_is_found(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    for name in ("stem.1", "head.1"):
        change(model, output_scale(model, name), lambda s: s * 0.98)
    onnx.save(model, tmp_path / "faulty.onnx")
    layers = check_layers(tmp_path / "faulty.onnx", exported.built.reference, pictures())
    assert [layer.name for layer in layers if not layer.ok] == ["stem.1", "head.1"]


def test_a_layer_left_in_floats_is_found(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    total = conv_of(model, "body.0.branch.1").output[0]
    quantize = next(node for node in model.graph.node if total in node.input)
    read = next(node for node in model.graph.node if quantize.output[0] in node.input)
    norm = next(node for node in model.graph.node if read.output[0] in node.input)
    norm.input[0] = total
    onnx.save(model, tmp_path / "faulty.onnx")
    graph = check_graph(tmp_path / "faulty.onnx")
    assert (graph.integer, len(graph.floats)) == (len(slim_layers(exported.student)) - 1, 1)


def test_a_changed_norm_is_found(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    change(model, "body.0.branch.2.weight", lambda w: w * 1.001)
    onnx.save(model, tmp_path / "faulty.onnx")
    missing = check_floats(tmp_path / "faulty.onnx", exported.built.lowered, set(exported.built.integer_tensors))
    assert missing == ["body.0.branch.2.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclegan", "unet", "unet_instance", "anime", "cut", "resnet_batch"])
def test_other_architectures(name: str, tmp_path: Path) -> None:
    from gs_search.export.build import integer_model
    from tests.export.students import rounded_student

    student = rounded_student(name, weight_bits=6, activation_bits=8)
    built = integer_model(student, pictures(4), multiple=8 if "unet" in name else 4, image_px=PX)
    onnx.save(built.model, tmp_path / "student.onnx")
    graph = check_graph(tmp_path / "student.onnx")
    # A U-Net's first convolution pads the picture with zeros, which lie between two bytes.
    assert built.floats == (("down.0.0",) if "unet" in name else ())
    assert (graph.integer, len(graph.floats)) == (len(built.reference.outputs), len(built.floats))
    assert all(layer.ok for layer in check_layers(tmp_path / "student.onnx", built.reference, pictures()))


class Same(nn.Module):
    """A convolution of mirrored or zero margins that the network puts around, one row more at the far side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.pad = nn.Conv2d(inputs, outputs, kernel, stride, bias=False), kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.pad // 2, self.pad - self.pad // 2
        return self.conv(nn.functional.pad(x, (near, far, near, far)))


class Own(nn.Module):
    """As people write it: pictures of 0 to 255, TensorFlow's margins, a convolution that mirrors, a crop after."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))
        self.batch = nn.BatchNorm2d(8)
        self.stem, self.down = Same(3, 8, 9), Same(8, 8, 3, 2)
        self.body = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.up, self.head = nn.ConvTranspose2d(8, 8, 3, 2, bias=False), nn.Conv2d(8, 3, 9, padding=4)
        self.norms = nn.ModuleList(nn.InstanceNorm2d(8, affine=True) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.stem(127.5 * (x + 1))).relu()
        y = self.norms[2](self.body(self.norms[1](self.down(y)).relu())).relu()
        # Between roundings, on outputs with a step for each channel: sums, joins, functions, a batch norm by itself.
        y = nn.functional.leaky_relu(self.bare[0](y), 0.2)
        y = self.bare[1](y) + self.bare[2](y)
        y = self.batch(self.bare[3](y)).sigmoid() + self.bare[4](y).sigmoid()
        return self.head(self.norms[3](self.up(y)[:, :, : x.shape[2], : x.shape[3]]).relu()).tanh()


def test_a_network_of_ones_own_in_whole_numbers(tmp_path: Path) -> None:
    """Three kinds of margins, sub-pixels beyond the far side, a first layer that reads no bytes, and what ONNX Runtime
    would refuse between roundings: all are proven.
    """
    from gs_search.export.build import integer_model
    from gs_search.slimming.layers import slimmable

    torch.manual_seed(4)
    own = Own()
    own.batch.running_mean.normal_()  # type: ignore[union-attr]
    own.batch.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    student = slimmable(own).eval().requires_grad_(False)
    built = integer_model(student, pictures(4), multiple=4, image_px=PX)
    assert "stem.conv: input" in built.calibrated, "it reads what no byte stands for"
    onnx.save(built.model, tmp_path / "student.onnx")
    assert built.floats == () and check_graph(tmp_path / "student.onnx").integer == 10
    checks = check_layers(tmp_path / "student.onnx", built.reference, pictures())
    assert [layer.name for layer in checks if not layer.ok] == [] and len(checks) == 10
    (painted,) = session(tmp_path / "student.onnx").run(None, {INPUT: pictures().numpy()})
    with built.reference.on_grids() as on_grids:
        wanted = on_grids(pictures())
    assert psnr(torch.from_numpy(painted), wanted) > 45


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.body(self.stem(x).relu()).relu()).relu())


def test_a_layer_that_runs_twice_is_refused_by_name() -> None:
    from gs_search.errors import UnsupportedNetwork
    from gs_search.export.build import integer_model
    from gs_search.slimming.layers import slimmable

    with pytest.raises(UnsupportedNetwork, match="layer body runs 2 times .* take --format onnx-float"):
        integer_model(slimmable(Twice()).eval(), pictures(4), multiple=4, image_px=PX)

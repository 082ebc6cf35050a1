"""Proof that an exported file is the student: looked up in the graph that runs, and layer by layer against the student.

The distance of whole pictures cannot prove it: rounding flips grow from layer to layer, and a scale that is wrong by a
tenth costs less than a decibel. So each integer convolution is cut out of the file, runs alone on what the student
itself feeds to that layer, and must give the student's own codes: at most ``SHARE`` of them may differ, by one step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from gs_search.export.grids import InputGrid, last_of, on_grids
from gs_search.export.lowering import pairs_fit
from gs_search.export.onnx.runtime import optimized_graph, session
from gs_search.export.progress import Tick
from gs_search.slimming.layers import SlimLayer, slim_layers
from gs_search.slimming.output_quantizer import OutputGrid

__all__ = [
    "SHARE",
    "Graph",
    "LayerCheck",
    "Reference",
    "check_floats",
    "check_graph",
    "check_layers",
    "exact_output",
    "fed_inputs",
]

SHARE = 0.005
"""Share of a layer's codes that may differ. Sound files have below 0.0005, faulty ones above 0.016."""

TOP = 255
"""The largest byte."""

STEPS = 1
"""By how many steps they may differ."""


@dataclass(frozen=True)
class Reference:
    """What a file is to compute.

    Attributes:
        student: with quantizers of every weight, and of every input but the picture's; of no output.
        outputs: layer to the grid of its output: its own for each channel, or that of the layers which read it.
        shifts: layer to what rounding its bias adds to its output (C): a device adds up in whole multiples of a step
            of the input times one of the weight.
    """

    student: nn.Module
    outputs: Mapping[str, OutputGrid | InputGrid]
    shifts: Mapping[str, Tensor]

    @contextmanager
    def on_grids(self) -> Iterator[nn.Module]:
        """While open, the student computes what the file is to compute."""
        with on_grids(self.student, self.own_grids, self.shifts) as student:
            yield student

    @property
    def own_grids(self) -> dict[str, OutputGrid]:
        """Those that are no reader's."""
        return {name: grid for name, grid in self.outputs.items() if isinstance(grid, OutputGrid)}


@dataclass(frozen=True)
class LayerCheck:
    """One convolution of the file against the student's layer.

    Attributes:
        codes: how many were compared.
        differing: share of them that differ.
        largest: by how many steps at most.
        scale_error: largest relative error of the scales by which the codes are read back; 0 where the next
            convolution reads them.
    """

    name: str
    codes: int
    differing: float
    largest: int
    scale_error: float

    @property
    def ok(self) -> bool:
        return self.differing <= SHARE and self.largest <= STEPS and self.scale_error < 1e-6

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class Graph:
    """What runs.

    Attributes:
        integer: convolutions that run in whole numbers.
        floats: convolutions and matrix products that do not, by name.
        operators: how many nodes of each kind.
        unsigned: integer convolutions whose weights are unsigned bytes.
        saturating: those whose weights are signed and whose products by two may exceed 16 bits, so that an x86
            processor without VNNI could compute something else than this machine.
    """

    integer: int
    floats: tuple[str, ...]
    operators: Mapping[str, int]
    unsigned: tuple[str, ...] = ()
    saturating: tuple[str, ...] = ()


def check_graph(path: Path) -> Graph:
    """Look up what ONNX Runtime makes of a file on this machine, and whether other machines compute the same."""
    graph = optimized_graph(path)
    kinds = [node.op_type for node in graph.node]
    products = [
        node.name or node.op_type
        for node in graph.node
        if node.op_type != "QLinearConv"
        and ("Conv" in node.op_type or node.op_type in ("Gemm", "MatMul", "FusedMatMul"))
    ]
    unsigned, saturating = [], []
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {value: node for node in graph.node for value in node.output}
    for node in graph.node:
        if node.op_type == "QLinearConv":
            name, weight = node.name.partition("_token_")[0], tensors.get(node.input[3])
            if weight is not None and weight.data_type == TensorProto.UINT8:
                unsigned.append(name)
            elif weight is None or not pairs_fit(numpy_helper.to_array(weight), _highest(node, made_by, tensors)):
                saturating.append(name)
    return Graph(
        integer=kinds.count("QLinearConv"),
        floats=tuple(products),
        operators={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        unsigned=tuple(unsigned),
        saturating=tuple(saturating),
    )


def _highest(conv: NodeProto, made_by: Mapping[str, NodeProto], tensors: Mapping[str, TensorProto]) -> int:
    """The largest code that can reach a convolution of the optimized graph: of a clip before it, else of a byte."""
    value = conv.input[0]
    while (node := made_by.get(value)) is not None and node.op_type in ("Transpose", "Pad", "Clip", "Slice"):
        if node.op_type == "Clip" and len(node.input) > 2 and node.input[2] in tensors:
            return int(numpy_helper.to_array(tensors[node.input[2]]))
        value = node.input[0]
    return TOP


@torch.no_grad()
def check_layers(
    path: Path, reference: Reference, pictures: Tensor, tick: Tick = lambda done: None
) -> list[LayerCheck]:
    """Run every integer convolution of a file alone, fed the student's own input of that layer.

    Args:
        pictures: N x 3 x H x W in [-1, 1]; a few suffice, every place of every layer's output is compared.
        tick: told how many layers have been compared.

    Returns:
        one for each layer of ``reference.outputs``, in order of definition.
    """
    model = onnx.load(path)
    inputs = fed_inputs(reference, pictures)
    checks: list[LayerCheck] = []
    for name, layer in slim_layers(reference.student).items():
        if name not in reference.outputs:
            continue
        tick(len(checks))
        grid = reference.outputs[name]
        shift = reference.shifts[name].view(1, -1, 1, 1)
        expected = grid.codes(exact_output(reference.student, name, layer, inputs[name]) + shift)
        part = _cut(model, name, layer)
        found = None
        if part is not None:
            found = part.run(inputs[name])
            if isinstance(layer, nn.ConvTranspose2d):  # sub-pixels beyond the far sides are taken off behind it
                found = found[:, :, : expected.shape[2], : expected.shape[3]]
        if part is None or found is None or found.shape != expected.shape:
            checks.append(LayerCheck(name, expected.numel(), 1.0, 255, 1.0))
            continue
        difference = (found.short() - expected.short()).abs()
        checks.append(
            LayerCheck(
                name=name,
                codes=difference.numel(),
                differing=float((difference > 0).double().mean()),
                largest=int(difference.max()),
                scale_error=_scale_error(grid, part),
            )
        )
    return checks


@torch.no_grad()
def check_floats(path: Path, lowered: nn.Module, integer: set[str]) -> list[str]:
    """Names of the tensors of the lowered network that the file should hold as they are, and does not.

    Args:
        integer: names of the tensors that became whole numbers.
    """
    held = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    contents = {array.tobytes() for array in held if array.dtype == np.float32}
    missing = []
    for name, tensor in lowered.state_dict().items():
        if name not in integer and tensor.is_floating_point() and tensor.float().numpy().tobytes() not in contents:
            missing.append(name)
    return missing


def fed_inputs(reference: Reference, pictures: Tensor) -> dict[str, Tensor]:
    """What the student on its grids feeds to each layer."""
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, layer in slim_layers(reference.student).items():

        def record(module: SlimLayer, arguments: tuple[Tensor, ...], name: str = name) -> None:
            inputs[name] = arguments[0].contiguous()

        handles.append(layer.register_forward_pre_hook(record))
    try:
        with reference.on_grids() as student:
            student(pictures)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def exact_output(student: nn.Module, name: str, layer: SlimLayer, x: Tensor) -> Tensor:
    """A layer's output before it is rounded, from its rounded input, in double precision."""
    grid = InputGrid.of_pixels() if layer.input_quantizer is None else InputGrid.of(layer.input_quantizer)
    exact: Any = copy.deepcopy(layer).double()
    exact.input_quantizer = None
    y = exact(grid.values(grid.codes(x)))
    batch_norm = last_of(student, name)
    return cast(Tensor, y if batch_norm is None else copy.deepcopy(batch_norm).double()(y))


@dataclass(frozen=True)
class _Part:
    """One convolution of a file, from the float value that it reads to the bytes that it hands on.

    Attributes:
        margins: what its pads put around the picture, and the student's own input of the layer has already: top,
            left, bottom, right.
        scale, zero: of the dequantization behind, or None.
        normed: whether instance norms alone read what that gives.
    """

    model: ModelProto
    margins: tuple[int, int, int, int]
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    normed: bool = False

    def run(self, x: Tensor) -> Tensor:
        """The bytes that it makes of the layer's input."""
        top, left, bottom, right = self.margins
        inner = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right].contiguous()
        (found,) = session(self.model.SerializeToString()).run(None, {self.model.graph.input[0].name: inner.numpy()})
        return torch.from_numpy(found)


def _cut(model: ModelProto, name: str, layer: SlimLayer) -> _Part | None:
    """Cut a layer out of a file; None where the file has no such integer convolution."""
    made_by = {value: node for node in model.graph.node for value in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def reader(value: str, kind: str) -> NodeProto | None:
        return next((node for node in model.graph.node if node.op_type == kind and node.input[0] == value), None)

    conv = next((node for node in model.graph.node if node.op_type == "Conv" and node.name == name), None)
    quantize = reader(conv.output[0], "QuantizeLinear") if conv is not None else None
    read = made_by.get(conv.input[0]) if conv is not None else None
    if conv is None or quantize is None or read is None or read.op_type != "DequantizeLinear":
        return None
    nodes, codes = [read, conv, quantize], read.input[0]
    margins, own = _margins_of_operator(layer, conv)
    while (node := made_by.get(codes)) is not None and node.op_type in ("Pad", "Clip"):
        nodes.insert(0, node)
        codes = node.input[0]
        if node.op_type == "Pad":
            own = own and (_is_constant(node) or not isinstance(layer, nn.ConvTranspose2d))
            margins += 0 if own else _margins(node, tensors)
            own = False
    source = made_by.get(node.input[0]) if node is not None and node.op_type == "QuantizeLinear" else conv
    if node is not None and (source is None or source.op_type != "Conv"):
        nodes.insert(0, node)
        if layer.input_quantizer is None and source is not None:  # raised by one
            nodes.insert(0, source)
        start = nodes[0].input[0]
    else:  # the codes come from the convolution before: what it was fed is rounded here
        start = "fed"
        nodes.insert(0, helper.make_node("QuantizeLinear", [start, *read.input[1:]], [codes]))
    last = quantize.output[0]
    for kind in ("DepthToSpace", "Clip"):
        if (following := reader(last, kind)) is not None:
            nodes.append(following)
            last = following.output[0]
    behind = reader(last, "DequantizeLinear")
    readers = [] if behind is None else [n.op_type for n in model.graph.node if behind.output[0] in n.input]
    for side in conv.input[1:]:
        nodes = [*_ancestors(side, made_by), *nodes]
    nodes = list({node.output[0]: node for node in nodes}.values())
    used = {value for node in nodes for value in node.input}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(start, TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(last, TensorProto.UINT8, None)],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    around = cast("tuple[int, int, int, int]", tuple(int(m) for m in margins))
    if behind is None or "Conv" in readers:
        return _Part(part, around)
    scale, zero = (numpy_helper.to_array(tensors[value]) for value in behind.input[1:])
    return _Part(part, around, scale, zero, set(readers) == {"InstanceNormalization"})


def _is_constant(pad: NodeProto) -> bool:
    return all(a.name != "mode" or helper.get_attribute_value(a) == b"constant" for a in pad.attribute)


def _margins_of_operator(layer: SlimLayer, conv: NodeProto) -> tuple[np.ndarray, bool]:
    """What of an operator's padding is the network's (torch's exporter merges a pad with zeros into its reader), and
    whether the pad right before it is a part of the layer: of a transposed one in sub-pixel form, of others whose
    padding is not the operator's own, for it mirrors or they are in sub-pixel form.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return np.zeros(4, int), True
    merged = np.array(next((helper.get_attribute_value(a) for a in conv.attribute if a.name == "pads"), [0] * 4))
    own = np.zeros(4, int)
    if isinstance(layer, nn.Conv2d):
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        own = np.array([top, left, bottom, right])
    return (merged - own, False) if merged.any() else (np.zeros(4, int), bool(own.any()))


def _margins(pad: NodeProto, tensors: Mapping[str, TensorProto]) -> np.ndarray:
    """What a pad adds at the top, the left, the bottom and the right."""
    pads = numpy_helper.to_array(tensors[pad.input[1]])
    axes = numpy_helper.to_array(tensors[pad.input[3]]).tolist() if len(pad.input) > 3 else list(range(len(pads) // 2))
    ends = dict(zip([*axes, *(axis + 4 for axis in axes)], pads.tolist(), strict=True))
    return np.array([ends.get(place, 0) for place in (2, 3, 6, 7)])


def _ancestors(value: str, made_by: Mapping[str, NodeProto]) -> list[NodeProto]:
    node = made_by.get(value)
    if node is None:
        return []
    return [*(before for name in node.input for before in _ancestors(name, made_by)), node]


def _scale_error(grid: OutputGrid | InputGrid, part: _Part) -> float:
    """Relative error of the scales behind a layer's codes; 1 where they or the codes of zero are others."""
    if isinstance(grid, InputGrid):
        return 0.0
    if part.scale is None or part.zero is None or part.scale.shape != tuple(grid.step.shape):
        return 1.0
    if not part.normed and (part.zero != grid.zero.numpy()).any():
        return 1.0
    return float(np.abs(part.scale / grid.step.numpy() - 1).max())

"""ExecuTorch's files, run by ExecuTorch: they are the student, and every fault that is put into one is found."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.results.run_folder import RunFolder
from tests.export.conftest import Exported
from tests.export.students import PX, pictures, rounded_student

pytestmark = [pytest.mark.mobile, pytest.mark.timeout(300)]

NOTES = {"study": "zebra", "teacher_licence": "MIT, „as is“"}


@dataclass(frozen=True)
class Program:
    """A student, its whole numbers in torch, and its file."""

    built: Any
    network: nn.Module
    content: bytes


def lowered(built: Any) -> Program:
    from gs_search.export.executorch.program import write_program
    from gs_search.export.integer_network import integer_network
    from gs_search.export.lowering import integer_layers

    layers = integer_layers(built.reference.student, built.lowered)
    network = integer_network(built.lowered, layers, built.reference.outputs)
    return Program(built, network, write_program(network, PX, NOTES))


@pytest.fixture(scope="module")
def program(exported: Exported) -> Program:
    """CartoonGAN's layout with 4-bit weights and 6-bit inputs."""
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    return lowered(exported.built)


def bytes_of(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) * 127.5).round().to(torch.uint8)


def test_a_sound_file(program: Program) -> None:
    from gs_search.export.executorch.delegate import Delegate
    from gs_search.export.executorch.program import Network
    from gs_search.export.executorch.proof import check_constants, check_convolutions
    from gs_search.measure.psnr import psnr

    delegate, x = Delegate(program.content), pictures(2)
    assert (delegate.delegates, delegate.outside) == (("XnnpackBackend",), ())
    assert [one.integer for one in delegate.convolutions] == [True] * 12
    layers = check_convolutions(delegate, program.network, program.built.reference, x)
    assert {layer.name for layer in layers} == set(program.built.reference.outputs)
    for layer in layers:
        assert layer.ok and layer.differing < 1e-3, layer
    assert check_constants(delegate, program.network, PX) == []
    opened = Network(program.content)
    assert opened.about() == NOTES
    painted = opened.pictures(bytes_of(x))
    with torch.no_grad(), program.built.reference.on_grids() as student:
        wanted = student(x)
    assert psnr(painted, wanted) > 40, "at most a few roundings the other way"
    assert b"/site-packages/" not in program.content and str(Path.cwd()).encode() not in program.content


# Faults are put into the bytes of the file itself, which knows kernels as O x H x W x I.


def conv(program: Program, name: str) -> Any:
    return program.network.get_submodule(name)


def kernel(program: Program, name: str) -> np.ndarray:
    return conv(program, name).weight.permute(0, 2, 3, 1).contiguous().numpy()


def whole_bias(program: Program, name: str) -> np.ndarray:
    module = conv(program, name)
    unit = module.steps.double() * float(np.float32(module.input.scale))
    return torch.round(module.bias.double() / unit).to(torch.int32).numpy()


def dead(codes: np.ndarray) -> np.ndarray:
    codes[np.abs(codes.astype(int)).sum(axis=(1, 2, 3)).argmax()] = 0
    return codes


def scales(program: Program, name: str) -> np.ndarray:
    return conv(program, name).steps.numpy()


FAULTS: dict[str, tuple[Callable[[Program, str], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "weight scales x 0.98": (scales, lambda s: s * np.float32(0.98)),
    "scales rolled by a channel": (scales, lambda s: np.roll(s, s.size // len(set(s.tolist())))),
    "weights rolled by a channel": (kernel, lambda w: np.roll(w, 1, axis=0)),
    "a dead channel": (kernel, dead),
    "weights truncated": (kernel, lambda w: (np.trunc(w / 2) * 2).astype(np.int8)),
    "transposed kernels": (kernel, lambda w: w.swapaxes(1, 2)),
    "a dropped bias": (whole_bias, lambda b: b * 0),
}
LAYERS = ("stem.1", "down.0", "body.0.branch.1", "up.0", "up.1", "head.1")
"""One of each kind: pixels, feeding a convolution, mirrored pad, transposed, fed by a convolution, last."""


def found_in(program: Program, content: bytes) -> set[str]:
    from gs_search.export.executorch.delegate import Delegate
    from gs_search.export.executorch.proof import check_convolutions

    layers = check_convolutions(Delegate(content), program.network, program.built.reference, pictures())
    return {layer.name for layer in layers if not layer.ok}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str, program: Program) -> None:
    """Each fault in one layer of each kind, all in one file: just these layers are found."""
    held, change = FAULTS[fault]
    content = program.content
    for name in LAYERS:
        before = held(program, name)
        assert content.count(before.tobytes()) == 1, name
        after = np.ascontiguousarray(change(before.copy())).astype(before.dtype)
        assert after.tobytes() != before.tobytes()
        content = content.replace(before.tobytes(), after.tobytes())
    assert found_in(program, content) == set(LAYERS)


def test_a_wrong_scale_of_an_input_is_found(program: Program) -> None:
    """The scale of the stream that a layer reads, wherever the delegate's graph has it: of all values on that grid."""
    scale = np.float32(conv(program, "body.0.branch.5").input.scale)
    wrong = struct.pack("<f", float(scale) * 0.98)
    content = program.content.replace(struct.pack("<f", float(scale)), wrong)
    assert content != program.content
    assert "body.0.branch.5" in found_in(program, content)


def test_a_changed_constant_is_found(program: Program) -> None:
    from gs_search.export.executorch.delegate import Delegate
    from gs_search.export.executorch.proof import check_constants

    step = conv(program, "head.1").step.numpy()
    content = program.content.replace(step.tobytes(), (step * np.float32(0.98)).tobytes())
    assert check_constants(Delegate(content), program.network, PX) == ["head.1.step"]
    norm = program.network.get_submodule("body.0.branch.2").weight.numpy()
    content = program.content.replace(norm.tobytes(), (norm * np.float32(1.001)).tobytes())
    assert check_constants(Delegate(content), program.network, PX) == ["body.0.branch.2.weight"]


@pytest.mark.parametrize(
    "name", ["unet", "unet_instance", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cyclegan", "anime"))]
)
def test_other_architectures(name: str) -> None:
    """One delegate for every layout; a U-Net's first convolution stays in floats."""
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    from gs_search.export.build import integer_model
    from gs_search.export.executorch.delegate import Delegate
    from gs_search.export.executorch.proof import check_constants, check_convolutions

    student = rounded_student(name, weight_bits=6, activation_bits=8)
    built = integer_model(student, pictures(4), multiple=8 if "unet" in name else 4, image_px=PX)
    program = lowered(built)
    delegate = Delegate(program.content)
    assert (delegate.delegates, delegate.outside) == (("XnnpackBackend",), ())
    assert [one.integer for one in delegate.convolutions].count(False) == len(built.floats)
    layers = check_convolutions(delegate, program.network, built.reference, pictures())
    assert len(layers) == len(built.reference.outputs) and all(layer.ok for layer in layers)
    assert check_constants(delegate, program.network, PX) == []


def test_what_the_delegate_lacks_is_seen() -> None:
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    from gs_search.export.executorch.delegate import Delegate
    from gs_search.export.executorch.program import write_program

    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(torch.tanh(x), dim=3) + 1.0

    delegate = Delegate(write_program(Sums(), PX, {}))
    assert delegate.delegates == ("XnnpackBackend",) * 2
    assert delegate.outside == ("aten::cumsum",)


def test_the_verb(study: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    pytest.importorskip("coremltools", reason="the extra 'coreml' is not installed")
    from gs_search.cli import main
    from gs_search.export.executorch.program import Network

    base = ["export", str(study.path), "--trial", "0", "--out", str(tmp_path), "--format"]
    assert main([*base, "executorch,coreml", "--json"]) == 0
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert all(line.startswith(("exporting", "  ")) for line in said.err.splitlines()), said.err
    program, package = document["files"]
    assert (program["format"], package["format"]) == ("executorch", "coreml") and document["ok"]
    assert set(document["latency_executorch"]["threads"]["1"]["ms"]) == {"integer", "float"}
    content = (tmp_path / program["file"]).read_bytes()
    assert program["file"].endswith(".pte") and len(content) == program["bytes"]
    about = Network(content).about()
    assert about["student"] == "trial 0" and json.loads(about["protocol"])["pictures"] == 10
    assert "load_program" in (tmp_path / f"{program['file']}.md").read_text()
    assert package["file"].endswith(".mlpackage") and (tmp_path / package["file"] / "Manifest.json").is_file()
    assert "not run here" in (tmp_path / f"{package['file']}.md").read_text()


@pytest.mark.slow
def test_another_size(study: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    from gs_search.cli import main
    from gs_search.export.executorch.program import Network

    base = ["export", str(study.path), "--trial", "0", "--out", str(tmp_path), "--format"]
    assert main([*base, "executorch-float", "--size", "64", "--json"]) == 0
    (resized,) = json.loads(capfd.readouterr().out)["files"]
    assert Network((tmp_path / resized["file"]).read_bytes()).run(torch.zeros(1, 3, 64, 64)).shape[-1] == 64


@pytest.mark.slow
def test_a_program_that_is_not_the_student_is_not_left(
    study: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch.runtime", reason="the extra 'mobile' is not installed")
    from gs_search.cli import main
    from gs_search.export import device_files

    base = ["export", str(study.path), "--trial", "0", "--out", str(tmp_path), "--format"]
    genuine = device_files.write_program

    def faulty(network: nn.Module, image_px: int, notes: Any) -> bytes:
        content = genuine(network, image_px, notes)
        steps = next((m.steps.numpy().tobytes() for m in network.modules() if hasattr(m, "steps")), None)
        return (
            content
            if steps is None
            else content.replace(steps, (np.frombuffer(steps, "f4") * np.float32(0.98)).tobytes())
        )

    monkeypatch.setattr(device_files, "write_program", faulty)
    assert main([*base, "executorch"]) == 1
    assert not list(tmp_path.glob("*@*.pte"))
    assert "error: executorch: layer stem.1" in capfd.readouterr().err

"""A student that was trained on a device's grid: its file takes that grid, and is the student itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
from gs_search.export.build import integer_model  # noqa: E402
from gs_search.export.grids import InputGrid, on_grids  # noqa: E402
from gs_search.export.onnx.float_graph import INPUT  # noqa: E402
from gs_search.export.onnx.proof import check_floats, check_graph, check_layers  # noqa: E402
from gs_search.export.onnx.runtime import session  # noqa: E402
from gs_search.measure.psnr import psnr  # noqa: E402
from gs_search.slimming.layers import output_module  # noqa: E402
from tests.export.conftest import Exported  # noqa: E402
from tests.export.students import PX, deployed_student, pictures  # noqa: E402


@pytest.mark.parametrize(
    "name", ["cartoongan", "unet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cyclegan", "anime"))]
)
def test_the_file_has_the_students_grids(name: str, exported: Exported, tmp_path: Path) -> None:
    student, x = deployed_student(name, weight_bits=4, activation_bits=6), pictures(4)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    built = integer_model(student, x, multiple=8 if name == "unet" else 4, image_px=PX)
    reference = built.reference
    assert built.calibrated == (), "nothing was left open"
    for layer, grid in reference.outputs.items():
        quantizer = output_module(student, layer).output_quantizer
        if quantizer is None:
            assert isinstance(grid, InputGrid), "its reader rounds, and that alone"
        else:
            assert torch.equal(grid.step, quantizer.step) and torch.equal(grid.zero, quantizer.zero)
    with torch.no_grad():
        own = student(x)
        with on_grids(reference.student, reference.own_grids) as on:
            assert torch.equal(on(x), own), "the student is on these grids, to the last bit"
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    onnx.save(built.model, tmp_path / "student.onnx")
    graph = check_graph(tmp_path / "student.onnx")
    assert (graph.integer, len(graph.floats)) == (len(reference.outputs), len(built.floats))
    layers = check_layers(tmp_path / "student.onnx", reference, x[:2])
    assert len(layers) == len(reference.outputs) and all(layer.ok and layer.differing < 5e-4 for layer in layers)
    assert check_floats(tmp_path / "student.onnx", built.lowered, set(built.integer_tensors)) == []
    (painted,) = session(tmp_path / "student.onnx").run(None, {INPUT: x.numpy()})
    decibels = psnr(torch.from_numpy(painted), own)
    if name == "unet":  # batch norms: nothing makes one rounding the other way grow
        assert decibels > 60
    elif name == "cartoongan":  # beside the same network whose outputs were not rounded in training
        (of_other,) = session(exported.path).run(None, {INPUT: x.numpy()})
        with torch.no_grad():
            assert decibels > psnr(torch.from_numpy(of_other), exported.student(x)) + 1

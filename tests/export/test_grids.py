"""Grids of inputs and outputs against the student's quantizers and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gs_search.export.grids import InputGrid, calibrate_outputs, on_grids
from gs_search.slimming.layers import output_module, slim_layers
from gs_search.slimming.output_quantizer import OutputGrid, OutputQuantizer
from gs_search.slimming.quantize import ActivationQuantizer
from tests.export.students import pictures, rounded_student


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [8, 6, 2])
def test_input_grids_are_the_quantizers_ones(bits: int, signed: bool) -> None:
    quantizer = ActivationQuantizer(bits, torch.tensor(1.7), signed=signed)
    grid = InputGrid.of(quantizer)
    x = torch.randn(2, 3, 20, 20) * 2
    codes = grid.codes(x)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes.int() - grid.zero, quantizer.codes(x).int())
    torch.testing.assert_close(grid.values(codes).float(), quantizer(x))


def test_pixels_are_their_own_codes() -> None:
    grid = InputGrid.of_pixels()
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = bytes_.float() / 127.5 - 1.0
    assert torch.equal(grid.codes(x), bytes_)
    assert float((grid.values(bytes_) - x).abs().max()) < 1e-6


def test_output_grids_round_to_the_nearest_value() -> None:
    grid = OutputGrid.of_range(torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5]), centred=False)
    assert grid.zero.tolist() == [64.0, 0.0]  # the second is widened to hold 0
    assert grid.step.tolist() == pytest.approx([4 / 255, 2.5 / 255])
    y = torch.rand(1, 2, 9, 9) * 6 - 2
    values = ((torch.arange(256).view(-1, 1) - grid.zero) * grid.step).numpy()  # 256 x 2
    for channel in range(2):
        wanted = y[0, channel].numpy().ravel()
        nearest = values[np.abs(values[:, channel, None] - wanted).argmin(axis=0), channel]
        np.testing.assert_allclose(grid.round(y)[0, channel].numpy().ravel(), nearest, atol=1e-6)
    back = (grid.codes(y) - grid.zero.view(1, 2, 1, 1)) * grid.step.view(1, 2, 1, 1)
    torch.testing.assert_close(back.float(), grid.round(y))


def test_centred_grids_may_lie_anywhere() -> None:
    grid = OutputGrid.of_range(torch.tensor([100.0]), torch.tensor([101.0]), centred=True)
    y = torch.linspace(100, 101, 256).view(1, 1, 16, 16)
    assert float((grid.round(y) - y).abs().max()) < 0.6 / 255
    still = OutputGrid.of_range(torch.tensor([5.0]), torch.tensor([5.0]), centred=True)
    assert float((still.round(torch.full((1, 1, 2, 2), 5.0)) - 5).abs().max()) < 1e-4


def test_calibration_finds_less_error_than_the_whole_range() -> None:
    student, x = rounded_student("cyclegan"), pictures(6)
    names = list(slim_layers(student))
    outputs: dict[str, torch.Tensor] = {}
    for name in names:
        output_module(student, name).register_forward_hook(
            lambda m, i, y, name=name: outputs.__setitem__(name, y.clone())
        )
    grids = calibrate_outputs(student, x, names, centred=["down.0"])
    student(x)
    for name in names:
        y, grid = outputs[name], grids[name]
        low, high = y.amin(dim=(0, 2, 3)), y.amax(dim=(0, 2, 3))
        whole = OutputGrid.of_range(low, high, centred=name == "down.0")
        error, of_whole = ((g.round(y) - y).square().sum(dim=(0, 2, 3)) for g in (grid, whole))
        assert (error <= of_whole * 1.02 + 1e-9).all()
        assert name == "down.0" or ((grid.zero >= 0) & (grid.zero <= 255)).all()


def test_a_trained_grid_of_outputs_stays() -> None:
    student = rounded_student("cyclegan")
    layer = slim_layers(student)["down.0"]
    trained = OutputGrid(torch.rand(layer.num_outputs) + 0.1, torch.arange(layer.num_outputs) * 300.0)
    layer.output_quantizer = OutputQuantizer(trained, centred=True)
    with torch.no_grad():
        layer.output_quantizer.change[0] = 0.25
    grids = calibrate_outputs(student, pictures(), ["down.0", "down.3"], centred=[])
    assert torch.equal(grids["down.0"].step, trained.step * 1.25) and torch.equal(grids["down.0"].zero, trained.zero)
    with torch.no_grad():
        wanted = student(pictures())
        layer.output_quantizer = None
        with on_grids(student, {"down.0": grids["down.0"]}) as on:
            assert torch.equal(on(pictures()), wanted)
        assert not torch.equal(student(pictures()), wanted)

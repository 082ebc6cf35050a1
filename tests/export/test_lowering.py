"""The plain network against the student, for every architecture; the whole numbers against its weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.export.grids import OutputGrid, complete
from gs_search.export.lowering import PlainGroupNorm, integer_layers, lower, pairs_fit
from gs_search.export.subpixel import SubPixelConv2d
from gs_search.slimming.layers import SlimGroupNorm, SlimLayer, slim_layers
from tests.export.students import GENERATORS, pictures, plain_student, rounded_student


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("name", GENERATORS)
def test_the_plain_network_computes_the_same(name: str, multiple: int | None) -> None:
    student = plain_student(name)
    lowered = lower(student, multiple=multiple)
    torch.testing.assert_close(lowered(pictures()), student(pictures()), rtol=0, atol=2e-5)
    assert not any(isinstance(module, (SlimLayer, SlimGroupNorm, nn.BatchNorm2d)) for module in lowered.modules())
    transposed = [module for module in lowered.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert not transposed or multiple is None


def test_only_layers_of_the_whole_picture_become_wide() -> None:
    torch.manual_seed(0)
    student = plain_student("anime")
    lowered = lower(student, multiple=8)
    rewritten = [name for name, module in lowered.named_modules() if isinstance(module, SubPixelConv2d)]
    assert rewritten == ["stem.1", "up.6.1"]  # the 1x1 head fills its lanes no better
    halves = [
        module.taps.factor for module in lower(student, multiple=2).modules() if isinstance(module, SubPixelConv2d)
    ]
    assert halves == []  # 4 does not divide all pictures


def test_groups_that_lost_channels() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 6)
    norm.__class__ = SlimGroupNorm
    norm._extend()  # type: ignore[operator]
    norm.sizes = [4, 2]  # type: ignore[assignment]
    plain = PlainGroupNorm([4, 2], norm.weight, norm.bias, norm.eps)
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(plain(x), norm(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_codes_and_steps_are_the_weights(name: str) -> None:
    student = rounded_student(name, weight_bits=4)
    lowered = lower(student, multiple=8)
    layers = integer_layers(student, lowered)
    # 0 lies between two bytes: a layer that pads the picture itself with zeros stays float.
    assert len(slim_layers(student)) - len(layers) == (name in ("unet", "unet_instance"))
    for layer in layers:
        kernel = torch.from_numpy(layer.kernel)
        codes = kernel if layer.taps is None else layer.taps.deal(kernel)
        steps = torch.from_numpy(layer.steps).repeat_interleave(layer.factor**2)
        weight = lowered.get_parameter(layer.weight_name)
        torch.testing.assert_close(codes * steps.view(-1, 1, 1, 1).float(), weight, rtol=1e-5, atol=1e-7)
        assert (layer.steps > 0).all()
        assert abs(layer.kernel.astype(int)).max() <= 2 ** (layer.bits - 1) - 1


def test_biases_are_rounded_to_what_a_device_adds_up() -> None:
    student = rounded_student("cyclegan")
    layers = integer_layers(student, lower(student, multiple=8))
    for layer in layers:
        channels = len(layer.steps)
        grid = OutputGrid(torch.full((channels,), 0.05), torch.full((channels,), 100.0))
        sums = layer.sums(grid)
        unit = sums.unit[:: layer.factor**2]
        assert abs(sums.shift).max() <= 0.5 * (unit * 0.05).max() * 1.001
        total = sums.bias[:: layer.factor**2] * unit.astype(float) * 0.05
        offset = (100 - 128) * 0.05
        raised = layer.kernel.astype(int).sum((1, 2, 3)) * layer.steps if layer.input.pixels else 0
        assert abs(total - (layer.bias + offset - raised + sums.shift)).max() < 1e-5


def test_what_a_student_lacks_is_calibrated() -> None:
    student = plain_student("cartoongan")
    completed, added = complete(student, pictures())
    names = list(slim_layers(student))
    assert sorted(added) == sorted([f"{n}: weight" for n in names] + [f"{n}: input" for n in names if n != "stem.1"])
    assert slim_layers(student)["head.1"].weight_quantizer is None, "the student is left as it was"
    again, nothing = complete(completed, pictures())
    assert nothing == []
    assert torch.equal(again(pictures()), completed(pictures()))


@pytest.mark.parametrize(
    ("rows", "highest", "fit"),
    [
        ([[64, 64, -1]], 255, True),  # 32,640
        ([[64, -128, 65]], 255, False),  # 32,895
        ([[-64, 100, -64]], 255, True),
        ([[-65, 100, -64]], 255, False),
        ([[127, 0, -127], [1, 1, 1]], 255, True),
        ([[127, 127, -127]], 127, True),
        ([[127, 2], [3, 127]], 255, False),
        ([[127], [-128]], 255, True),
    ],
)
def test_pairs_fit(rows: list[list[int]], highest: int, fit: bool) -> None:
    """Against every pair of a row and every pair of inputs at their ends."""
    kernel = np.array(rows, np.int8)
    assert pairs_fit(kernel.reshape(len(rows), -1, 1, 1), highest) is fit
    pairs = [pair for row in rows for pair in itertools.combinations(row if len(row) > 1 else [*row, 0], 2)]
    ends = [a * x + b * y for a, b in pairs for x in (0, highest) for y in (0, highest)]
    assert (max(ends) < 1 << 15 and min(ends) >= -(1 << 15)) is fit

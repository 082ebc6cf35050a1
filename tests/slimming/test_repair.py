"""The least-squares walk against numpy's, and what it is worth on a network whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.slimming.extraction import extract
from gs_search.slimming.im2col import Patches, as_matrix, from_matrix
from gs_search.slimming.layers import SlimLayer, slim_layers, slimmable
from gs_search.slimming.repair import _Sums, record_targets, repair_
from gs_search.slimming.sparsity import Rules, cut_to_target, magnitudes, mask_
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.lessons import RandomLessons, random_teacher

FLOAT = SlimmingSettings(weight_bits=32, activation_bits=32)


LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "7x7, strided": lambda: nn.Conv2d(4, 6, 7, 2, 3),
    "no bias": lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "dilated, uneven": lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 0), dilation=(2, 3)),
    "reflected": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "same": lambda: nn.Conv2d(4, 6, 5, padding="same"),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
    "transposed, 4x4": lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1),
    "transposed, dilated": lambda: nn.ConvTranspose2d(4, 6, 3, 1, 0, dilation=2),
    "transposed, grouped": lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2),
    "linear": lambda: nn.Linear(4, 6),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> SlimLayer:
    torch.manual_seed(0)
    return slimmable(nn.Sequential(LAYERS[request.param]()))[0]


def pictures_for(layer: SlimLayer) -> torch.Tensor:
    return torch.randn(12, 9, 11, 4) if isinstance(layer, nn.Linear) else torch.randn(12, 4, 9, 11)


@torch.no_grad()
def test_patches_times_matrix_is_the_layer(layer: SlimLayer) -> None:
    x = pictures_for(layer)
    expected = layer.positions(layer(x))
    positions = torch.randperm(len(expected))[:40]
    found = (Patches(layer, x)(positions) @ as_matrix(layer, layer.weight)).transpose(0, 1).flatten(1)
    bias = 0.0 if layer.bias is None else layer.bias
    torch.testing.assert_close(found + bias, expected[positions], rtol=1e-4, atol=1e-5)
    assert torch.equal(from_matrix(layer, as_matrix(layer, layer.weight)), layer.weight)


@torch.no_grad()
def test_the_fit_is_least_squares_group_by_group(layer: SlimLayer) -> None:
    x, places = pictures_for(layer), len(layer.positions(layer(pictures_for(layer))))
    wanted = torch.randn(places, layer.num_outputs)
    free = layer.bias is not None
    sums = _Sums.of(layer, x, torch.arange(places), wanted, centred=free)
    solved = sums.solve(as_matrix(layer, layer.weight), ridge=0.0)
    assert solved is not None
    bias = sums.bias(solved).view(layer.num_groups, -1) if free else None
    rows = Patches(layer, x)(torch.arange(places)).double().numpy()
    each = layer.num_outputs // layer.num_groups
    for group in range(layer.num_groups):
        ones = [np.ones((places, 1))] if free else []
        design = np.concatenate([rows[group], *ones], axis=1)
        targets = wanted[:, group * each : (group + 1) * each].double().numpy()
        expected = np.linalg.lstsq(design, targets, rcond=None)[0]
        np.testing.assert_allclose(solved[group].numpy(), expected[: rows.shape[2]], atol=2e-3)
        if bias is not None:
            np.testing.assert_allclose(bias[group].numpy(), expected[-1], atol=2e-3)


@torch.no_grad()
def test_a_stream_far_from_zero_does_not_cancel_out() -> None:
    torch.manual_seed(0)
    layer = slimmable(nn.Sequential(nn.Conv2d(4, 4, 1)))[0]
    x = 1e3 + 0.1 * torch.randn(4, 4, 16, 16)
    wanted = layer.positions(layer(x - 1e3))
    sums = _Sums.of(layer, x, torch.arange(len(wanted)), wanted, centred=True)
    solved = sums.solve(torch.zeros(1, 4, 4), ridge=1e-6)
    assert solved is not None
    torch.testing.assert_close(solved, as_matrix(layer, layer.weight), rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_a_stream_that_is_no_number_is_not_fitted() -> None:
    layer = slimmable(nn.Sequential(nn.Conv2d(4, 4, 1)))[0]
    sums = _Sums.of(layer, torch.full((1, 4, 8, 8), torch.nan), torch.arange(64), torch.zeros(64, 4), centred=True)
    assert sums.solve(as_matrix(layer, layer.weight), ridge=1e-2) is None


def error_after(share: float, settings: SlimmingSettings, *, refit: bool) -> float:
    teacher = random_teacher(16, 2)
    pictures = RandomLessons(teacher, count=24).inputs
    network, _ = teacher.student()
    rules = Rules(floor=2, round_to=1, prune="all", multipliers=dict.fromkeys(GROUPS, 1.0))
    alive = cut_to_target(teacher.graph, magnitudes(teacher.graph, network), share, rules)
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    repair_(teacher.graph, student, alive, record_targets(teacher.network, pictures[:16]), settings, refit=refit)
    with torch.no_grad():
        return float((student(pictures[16:]) - teacher.network(pictures[16:])).square().mean())


def test_an_uncut_network_is_left_as_it_is() -> None:
    assert error_after(1.0, FLOAT, refit=True) < 1e-5


@pytest.mark.parametrize("share", [0.6, 0.3])
def test_repair_brings_a_cut_network_nearer_on_pictures_it_has_not_seen(share: float) -> None:
    assert error_after(share, FLOAT, refit=True) < 0.9 * error_after(share, FLOAT, refit=False)


def test_rounding_inside_the_walk_beats_rounding_without_refit() -> None:
    bits = SlimmingSettings(weight_bits=dict.fromkeys(GROUPS, 3), activation_bits=8)
    assert error_after(1.0, bits, refit=True) < error_after(1.0, bits, refit=False)


def test_targets_are_what_convolutions_put_out_whatever_the_rescale() -> None:
    teacher = random_teacher()
    pictures = RandomLessons(teacher).inputs
    rescaled, _ = teacher.student("rank")
    plain, other = record_targets(teacher.network, pictures), record_targets(rescaled, pictures)
    for name in slim_layers(teacher.network):
        assert torch.equal(plain.positions[name], other.positions[name])
        torch.testing.assert_close(plain.outputs[name].float(), other.outputs[name].float(), rtol=2e-2, atol=2e-3)

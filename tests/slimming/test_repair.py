"""The least-squares walk against numpy's, and what it is worth on a network whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.settings import GROUPS, SlimmingSettings
from gs_search.slimming.extract import extract
from gs_search.slimming.layers import convolutions, slimmable
from gs_search.slimming.repair import _fit_dense, _fit_depthwise, _matrix, _patches, record_targets, repair_
from gs_search.slimming.sparsity import cut, magnitudes, mask_, threshold_for_target

from .lessons import RandomLessons, random_teacher

FLOAT = SlimmingSettings(weight_bits=32, activation_bits=32)


@pytest.mark.parametrize(
    ("transposed", "kernel", "stride", "padding"),
    [p for p in itertools.product([False, True], [1, 3, 4, 7], [1, 2], [0, 1, 3]) if p[3] < max(p[1], 2)],
)
def test_patches_times_matrix_is_the_convolution(transposed: bool, kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    extra = {"output_padding": stride - 1} if transposed else {}
    conv = slimmable(nn.Sequential(kind(4, 5, kernel, stride, padding, **extra)))[0]
    x = torch.randn(2, 4, 9, 11)
    with torch.no_grad():
        expected = conv(x).permute(0, 2, 3, 1).reshape(-1, 5)
        positions = torch.randperm(len(expected))[:40]
        rows = _patches(conv, x, positions).flatten(1)
        torch.testing.assert_close(rows @ _matrix(conv, conv.weight) + conv.bias, expected[positions])


def test_the_dense_fit_is_least_squares() -> None:
    torch.manual_seed(0)
    conv = slimmable(nn.Sequential(nn.Conv2d(3, 4, 3)))[0]
    rows, wanted = torch.randn(500, 27), torch.randn(500, 4)
    design = np.concatenate([rows.numpy(), np.ones((500, 1))], axis=1)
    expected = np.linalg.lstsq(design, wanted.numpy(), rcond=None)[0]
    with torch.no_grad():
        _fit_dense(conv, rows, wanted, ridge=0.0)
    np.testing.assert_allclose(_matrix(conv, conv.weight).detach().numpy(), expected[:-1], atol=1e-4)


def test_the_depthwise_fit_is_least_squares_channel_by_channel() -> None:
    torch.manual_seed(0)
    conv = slimmable(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))[0]
    rows, wanted = torch.randn(300, 9, 4), torch.randn(300, 4)
    with torch.no_grad():
        _fit_depthwise(conv, rows, wanted, ridge=0.0)
    for channel in range(4):
        design = np.concatenate([rows[:, :, channel].numpy(), np.ones((300, 1))], axis=1)
        expected = np.linalg.lstsq(design, wanted[:, channel].numpy(), rcond=None)[0]
        fitted = [*conv.weight[channel].flatten().tolist(), conv.bias[channel].item()]
        np.testing.assert_allclose(fitted, expected, atol=1e-4)


def error_after(share: float, settings: SlimmingSettings, *, refit: bool) -> float:
    teacher = random_teacher(16, 2)
    pictures = RandomLessons(teacher, count=24).inputs
    network, _ = teacher.student()
    rules = {"floor": 2, "multipliers": dict.fromkeys(GROUPS, 1.0), "prune": "all"}
    scores = magnitudes(teacher.graph, network)
    threshold = threshold_for_target(teacher.graph, scores, share, **rules)
    alive = cut(teacher.graph, scores, threshold, **rules)
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
    for name in convolutions(teacher.network):
        assert torch.equal(plain.positions[name], other.positions[name])
        torch.testing.assert_close(plain.outputs[name].float(), other.outputs[name].float(), rtol=2e-2, atol=2e-3)

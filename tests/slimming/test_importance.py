"""What a channel is worth, against really taking it away; the rescale, against the unscaled network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from gs_search.networks import AnimeGenerator, UnetGenerator
from gs_search.slimming import Teacher
from gs_search.slimming.importance import RANKS, group_factors, rescale_, stiff_groups, taylor_scores, weight_scores
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.sparsity import magnitudes
from tests.slimming.test_channels import OWN, Excited, Transposed, conv, randomised

SOME: dict[str, Callable[[], nn.Module]] = {
    **OWN,
    "unet": lambda: UnetGenerator(4, 3),
    "animegan": lambda: AnimeGenerator(4, 1),
}


def pictures(count: int, px: int = 32) -> Tensor:
    return torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(5)) * 2 - 1


def difference(one: nn.Module, other: nn.Module) -> float:
    """In double precision."""
    probes = pictures(4).double()
    with torch.no_grad():
        one, other = (copy.deepcopy(network).double() for network in (one, other))
        return float((one(probes) - other(probes)).abs().max())


@torch.no_grad()
def brute_force(teacher: Teacher, probes: Tensor, share: float = 1.0) -> dict[str, np.ndarray]:
    """Root of the mean squared change of a picture (summed over its values) when a channel loses ``share``."""
    probes, exact = probes.double(), copy.deepcopy(teacher.network).double()
    whole, found = exact(probes), {}
    for name, group in teacher.graph.groups.items():
        changes = []
        for channel in range(group.size):
            network = copy.deepcopy(exact)
            for scale, shift, slot in group.scales(network):
                for tensor in (scale,) if shift is None else (scale, shift):
                    tensor[slot.positions[slot.channels == channel]] *= 1 - share
            change = (network(probes) - whole) / share
            changes.append(change.square().sum(dim=(1, 2, 3)).mean().sqrt().item())
        found[name] = np.array(changes)
    return found


def linear() -> Teacher:
    torch.manual_seed(0)
    network = nn.Sequential(conv(3, 6), conv(6, 5, 1), conv(5, 3))
    with torch.no_grad():
        for layer in network:
            layer.weight *= torch.linspace(0.2, 3, len(layer.weight)).view(-1, 1, 1, 1)
    return Teacher(network, 32)


def test_taylor_scores_are_the_change_of_the_picture_where_it_is_linear() -> None:
    teacher = linear()
    probes = pictures(64)
    truth = brute_force(teacher, probes)
    found = taylor_scores(teacher.graph, teacher.network, probes)
    assert list(found) == ["0", "1"]
    for name in found:  # two random directions a picture: 12 % of the squares
        np.testing.assert_allclose(found[name].numpy(), truth[name], rtol=0.25)
        assert found[name].norm().item() == pytest.approx(np.linalg.norm(truth[name]), rel=0.15)
    again = taylor_scores(teacher.graph, teacher.network, probes)
    assert all(torch.equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize("name", [*OWN, "unet"])
def test_taylor_scores_are_the_slope_of_the_change(name: str) -> None:
    """Real networks: a channel loses a thousandth of its scales and shifts."""
    teacher = Teacher(randomised(SOME[name]), 32)
    probes = pictures(16)
    truth = brute_force(teacher, probes, share=1e-3)
    found = taylor_scores(teacher.graph, teacher.network, probes)
    mine = np.concatenate([found[group].numpy() for group in truth])
    others = np.concatenate(list(truth.values()))
    assert spearmanr(mine, others).statistic > 0.9
    seen = others > 0  # some channels never pass their ReLU
    assert seen.mean() > 0.5 and not mine[~seen].any()
    assert np.median(mine[seen] / others[seen]) == pytest.approx(1.0, abs=0.15)


def test_taylor_scores_leave_the_network_alone() -> None:
    teacher = Teacher(randomised(Excited), 32)
    before = copy.deepcopy(teacher.network.state_dict())
    taylor_scores(teacher.graph, teacher.network, pictures(2))
    assert all(torch.equal(before[key], tensor) for key, tensor in teacher.network.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())


def test_group_factors_by_hand() -> None:
    """The fourth root of mean squared scores over a channel's multiply-adds, over the geometric mean, up to 3."""
    teacher = linear()
    places = 32 * 32
    costs = {"0": places * (9 * 3 + 5), "1": places * (6 + 9 * 3)}  # what writes a channel, and what reads it
    scores = {"0": torch.tensor([1.0, 2, 3, 4, 5, 6]), "1": torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])}
    worth = {n: (scores[n].square().mean().item() / costs[n]) ** 0.25 for n in costs}
    usual = (worth["0"] * worth["1"]) ** 0.5
    expected = {name: value / usual for name, value in worth.items()}
    assert group_factors(teacher.graph, scores) == pytest.approx(expected)
    scores["1"] *= 1e-6
    assert group_factors(teacher.graph, scores) == pytest.approx({"0": 3.0, "1": 1 / 3})
    assert set(group_factors(teacher.graph, {n: 0 * s for n, s in scores.items()})) == {"0", "1"}


def test_weight_scores_by_hand() -> None:
    teacher = Teacher(randomised(Excited), 32)
    scores = weight_scores(teacher.graph, teacher.network)
    layers, norm = slim_layers(teacher.network), teacher.network.get_submodule("norm")
    reads = [layers[name].weight for name in ("squeeze", "wide", "head")]
    # The stream: scaled by a norm and by two gates of one; read by a linear layer and two convolutions.
    own = ((norm.weight.square() + 1 + 1) / 3).sqrt()
    weight = sum(w.square().transpose(0, 1).flatten(1).sum(1) for w in reads)
    torch.testing.assert_close(scores["stem"], (own * weight.sqrt()).detach())
    torch.testing.assert_close(scores["squeeze"], layers["excite"].weight.norm(dim=0).detach())


def test_weight_scores_of_transposed_and_depthwise_readers() -> None:
    teacher = Teacher(randomised(Transposed), 32)
    scores = weight_scores(teacher.graph, teacher.network)
    layers = slim_layers(teacher.network)
    scales = [teacher.network.get_submodule(f"body.{i}").weight for i in (4, 7)]
    own = ((scales[0].square() + scales[1].square()) / 2).sqrt()
    # The depthwise layer between scales each channel by itself: it reads no other, and does not count.
    torch.testing.assert_close(scores["body.3"], (own * layers["body.9"].weight.flatten(1).norm(dim=1)).detach())


@pytest.mark.parametrize("importance", ["rank", "taylor"])
@pytest.mark.parametrize("name", SOME)
def test_the_rescale_preserves_the_function_and_units_make_ranks(name: str, importance: str) -> None:
    teacher = Teacher(randomised(SOME[name]), 32)
    network, scaling = teacher.student(importance, pictures(2))
    assert difference(network, teacher.network) <= 2e-6
    for group, sizes in magnitudes(teacher.graph, network, scaling.units).items():
        factor = sizes.max() / RANKS[1]  # of the whole group: what it is worth for its multiply-adds
        assert factor == pytest.approx(1.0) if importance == "rank" else 1 / 3.01 < factor < 3.01
        np.testing.assert_allclose(np.sort(sizes) / factor, np.linspace(*RANKS, len(sizes)), atol=1e-5)
        assert (scaling.growth[group] == 1).all() or (scaling.units[group] == 1).all()
    # More important is larger, inside every group.
    scores = weight_scores(teacher.graph, teacher.network)
    if importance == "rank":
        for group, sizes in magnitudes(teacher.graph, network, scaling.units).items():
            assert (np.diff(sizes[np.argsort(scores[group].numpy())]) > 0).all()


@pytest.mark.parametrize(
    ("name", "stiff"),
    [
        ("excited", {"stem"}),  # squeeze feeds a PReLU alone, wide one with many slopes
        ("transposed", {"body.3"}),  # a BatchNorm behind a depthwise layer
    ],
)
def test_groups_that_cannot_grow_are_found_and_left_alone(name: str, stiff: set[str]) -> None:
    teacher = Teacher(randomised(OWN[name]), 32)
    found = stiff_groups(teacher.graph, teacher.network, pictures(1))
    assert found == stiff
    network, scaling = teacher.student()
    for group in teacher.graph.groups.values():
        moved = any(
            not torch.equal(mine[0], other[0])
            for mine, other in zip(group.scales(network), group.scales(teacher.network), strict=True)
        )
        assert moved == (group.name not in stiff)
        assert (scaling.growth[group.name] != 1).any() == moved


@pytest.mark.parametrize("between", [nn.ReLU6, nn.Hardtanh, lambda: nn.Softshrink(0.3), nn.Hardswish, nn.Sigmoid])
def test_functions_with_corners_away_from_zero_are_stiff(between: Callable[[], nn.Module]) -> None:
    """Small scales grow fifty times: a corner that the teacher's signals never reach is reached then."""
    torch.manual_seed(0)
    network = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), between(), conv(8, 3))
    nn.init.uniform_(network[1].weight, 0.01, 0.02)
    nn.init.uniform_(network[1].bias, 0.1, 0.3)
    teacher = Teacher(network, 32)
    rescaled, _ = teacher.student()
    assert difference(rescaled, teacher.network) < 2e-6


def test_units_say_which_channels_die_first() -> None:
    """A stiff group keeps its scales, and its least important channel still goes first."""
    teacher = Teacher(randomised(Transposed), 32)
    network, scaling = teacher.student()
    scores = weight_scores(teacher.graph, teacher.network)["body.3"]
    sizes = magnitudes(teacher.graph, network, scaling.units)["body.3"]
    assert sizes.argmin() == int(scores.argmin()) and sizes.argmax() == int(scores.argmax())


def test_zero_scales_stay_zero() -> None:
    teacher = Teacher(randomised(OWN["U-Net"]), 32)
    norm = teacher.network.get_submodule("first.1")
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 0.0, 0.0
    network = copy.deepcopy(teacher.network)
    scaling = rescale_(teacher.graph, network, weight_scores(teacher.graph, network))
    assert network.get_submodule("first.1").weight[2] == 0 and np.isfinite(scaling.growth["first.0"]).all()
    assert difference(network, teacher.network) <= 2e-6

"""Thresholds, ranks and landings against the paper's formula and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gs_search.networks import CartoonGenerator, ResnetGenerator
from gs_search.slimming import Teacher
from gs_search.slimming.importance import RANKS, Scaling
from gs_search.slimming.layers import norms
from gs_search.slimming.sparsity import Rules, Steering, cut, cut_to_target, magnitudes, proximal_step_
from gs_search.study.settings import GROUPS
from tests.slimming.lessons import random_teacher

EVEN = Rules(floor=2, round_to=1, prune="all", multipliers=dict.fromkeys(GROUPS, 1.0))


def test_the_proximal_step_is_the_papers_for_a_lone_scale() -> None:
    teacher = random_teacher()
    network, _ = teacher.student("raw")
    before = norms(network)["stem.2"].weight.detach().clone()
    before[0] = -0.9
    norms(network)["stem.2"].weight.data[0] = -0.9
    alive, units = teacher.graph.all_alive(), Scaling.none(teacher.graph).units
    proximal_step_(teacher.graph, network, 0.4, alive, EVEN, units, revive=False)
    expected = before.sign() * (before.abs() - 0.4).clamp_min(0)
    torch.testing.assert_close(norms(network)["stem.2"].weight.detach(), expected)


def test_coupled_scales_shrink_together_and_keep_their_proportions() -> None:
    teacher = random_teacher()
    network, _ = teacher.student("raw")
    coupled = ["down.4", "body.0.branch.6", "body.1.branch.6"]
    before = torch.stack([norms(network)[n].weight.detach().clone() for n in coupled])
    size = before.square().mean(0).sqrt()
    alive, units = teacher.graph.all_alive(), Scaling.none(teacher.graph).units
    proximal_step_(teacher.graph, network, 0.1, alive, EVEN, units, revive=False)
    after = torch.stack([norms(network)[n].weight.detach() for n in coupled])
    torch.testing.assert_close(after, before * (size - 0.1).clamp_min(0) / size)


@pytest.mark.parametrize("make", [lambda: ResnetGenerator(16, 3), lambda: CartoonGenerator(16, 3)])
def test_the_rescale_preserves_the_function_and_makes_scales_ranks(make: object) -> None:
    torch.manual_seed(3)
    generator = make()  # type: ignore[operator]
    with torch.no_grad():
        for norm in norms(generator).values():
            norm.weight.uniform_(0.05, 1.0)
            norm.bias.normal_(0, 0.1)
    teacher = Teacher(generator, 32)
    network, scaling = teacher.student("rank")
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert (network(picture) - teacher.network(picture)).abs().max() <= 1e-5
        assert (network.double()(picture.double()) - teacher.network.double()(picture.double())).abs().max() <= 2e-6
    for name, sizes in magnitudes(teacher.graph, network).items():
        np.testing.assert_allclose(np.sort(sizes), np.linspace(*RANKS, len(sizes)), atol=1e-5)
        assert scaling.growth[name].shape == sizes.shape


@pytest.mark.parametrize("target", [0.7, 0.4, 0.2, 0.1, 0.04])
def test_landing_is_at_most_the_target_and_the_next_channel_would_exceed_it(target: float) -> None:
    torch.manual_seed(0)
    teacher = Teacher(CartoonGenerator(32, 4), 32)
    scores = magnitudes(teacher.graph, teacher.student()[0])
    dense = teacher.graph.macs(teacher.graph.all_alive())
    alive = cut_to_target(teacher.graph, scores, target, EVEN)
    assert 0.98 * target <= teacher.graph.macs(alive) / dense <= target
    best = max((s, n, c) for n in scores for c, s in enumerate(scores[n]) if alive[n].any() and not alive[n][c])
    alive[best[1]][best[2]] = True
    assert teacher.graph.macs(alive) / dense > target


def test_multipliers_move_the_cuts_and_zero_spares() -> None:
    teacher = random_teacher(16, 3)
    scores = magnitudes(teacher.graph, teacher.student()[0])
    rules = Rules(floor=1, round_to=1, prune="all", multipliers={**EVEN.multipliers, "stem": 0.0, "body": 1.5})
    alive = cut(teacher.graph, scores, 0.5, rules)
    assert alive["stem.1"].all()
    assert alive["body.0.branch.1"].mean() < alive["down.0"].mean() < 1


def test_inner_spares_the_residual_stream() -> None:
    teacher = random_teacher(16, 3)
    scores = magnitudes(teacher.graph, teacher.student()[0])
    alive = cut(teacher.graph, scores, 0.8, replace(EVEN, floor=1, prune="inner"))
    assert alive["down.3"].all()
    assert not alive["body.0.branch.1"].all()


def test_steering_pushes_harder_above_its_course_and_softer_below() -> None:
    steering = Steering(0.25, 100)
    on_course = 1 - 0.75 * 41 / 80
    assert steering.threshold(40, on_course + 0.1) > steering.threshold(40, on_course)
    assert steering.threshold(40, on_course - 0.1) < steering.threshold(40, on_course)
    assert steering.threshold(40, on_course) == pytest.approx(0.5 / 100)

"""The loop against a second, plain implementation of one step; determinism; failures by name."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gs_search.errors import TrialFailed
from gs_search.measure.flops import count_flops
from gs_search.networks import Architecture
from gs_search.slimming import (
    Teacher,
    harm_of_rates,
    load_student,
    rate_factor,
    record_targets,
    save_student,
    slim,
)
from gs_search.slimming.discriminator import Adversary
from gs_search.slimming.layers import norms, slim_layers
from gs_search.slimming.training import Training
from gs_search.study.settings import SlimmingSettings
from tests.slimming.lessons import RandomLessons, random_teacher

PLAIN = SlimmingSettings(
    steps=3,
    precision="float32",
    learning_rate=1e-3,
    scale_learning_rate=0.05,
    discriminator_learning_rate=1e-3,
    adversarial_weight=0.7,
    feature_weight=0.0,
)


def new_training(teacher: Teacher, settings: SlimmingSettings, *, steps: int = 3) -> Training:
    network, scaling = teacher.student()
    adversary = Adversary(settings, torch.Generator().manual_seed(0), "cpu")
    alive = teacher.graph.all_alive()
    return Training(teacher, network, scaling, alive, settings, adversary, steps=steps, sparsity=False)


def test_scales_are_free_of_weight_decay() -> None:
    """The reference code's fine-tuning decays them like weights, which goes on pruning without an end."""
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    run = new_training(teacher, replace(PLAIN, weight_decay=1.0, scale_learning_rate=0.0))
    before = copy.deepcopy(run.network)
    for step in range(3):
        run.run_step(lessons.batch([2 * step, 2 * step + 1]))
    for name, norm in norms(run.network).items():
        assert torch.equal(norm.weight, before.get_submodule(name).weight), name
    weights = [[layer.weight.norm() for layer in slim_layers(net).values()] for net in (before, run.network)]
    assert all(after < first for first, after in zip(*weights, strict=True))


def test_three_steps_equal_a_plain_implementation() -> None:
    """Same mathematics, written down again from the paper: Adam on W, SGD on the scales, Adam on D."""
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    run = new_training(teacher, PLAIN)
    network, critic = copy.deepcopy(run.network), copy.deepcopy(run.adversary.network)
    scales = [m.weight for m in norms(network).values()]
    weights = [p for p in network.parameters() if all(p is not s for s in scales)]
    weight_adam = torch.optim.Adam(weights, betas=(0.5, 0.999))
    scale_sgd = torch.optim.SGD(scales, lr=1.0)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    for step, shape in enumerate((0.2, 0.4 * 0.75, 0.6 * 0.25)):  # warm-up times cosine
        batch = lessons.batch([2 * step, 2 * step + 1])
        terms = run.run_step(batch)
        weight_adam.param_groups[0]["lr"], scale_sgd.param_groups[0]["lr"] = 1e-3 * shape, 0.05 * shape
        fake = network(batch.inputs)
        pixel = (fake - batch.outputs).abs().mean()
        adversarial = ((critic(fake) - 1) ** 2).mean()
        loss = 10 * pixel + 0.7 * adversarial
        for optimizer in (weight_adam, scale_sgd):
            optimizer.zero_grad()
        loss.backward()
        weight_adam.step()
        scale_sgd.step()
        critic_adam.zero_grad()
        critic_loss = 0.5 * (((critic(batch.outputs) - 1) ** 2).mean() + (critic(fake.detach()) ** 2).mean())
        critic_loss.backward()
        critic_adam.step()
        for name, expected in (("pixel", pixel), ("adversarial", adversarial), ("discriminator", critic_loss)):
            torch.testing.assert_close(terms[name], expected.detach(), rtol=1e-4, atol=1e-5)
    for (name, mine), other in zip(run.network.named_parameters(), network.parameters(), strict=True):
        if not name.endswith(".bias") or name in ("head.1.bias", "stem.2.bias"):
            # A bias before an InstanceNorm has no gradient but rounding noise, which Adam turns into steps.
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-5, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(run.network(batch.inputs), network(batch.inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", ["at_once", "proximal"])
def test_the_same_seed_gives_the_same_student_bit_for_bit(schedule: str) -> None:
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    targets = record_targets(teacher.network, lessons.inputs)
    settings = SlimmingSettings(
        schedule=schedule, target_gflops_ratio=0.5, steps=8, weight_bits=4, scale_learning_rate=0.05
    )
    results = [slim(teacher, settings, lessons, targets, seed=seed) for seed in (7, 7, 8)]
    states = [r.network.state_dict() for r in results]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(
        states[0][name].shape != states[2][name].shape or not torch.equal(states[0][name], states[2][name])
        for name in states[0]
    )
    assert results[0].curve == results[1].curve
    assert results[0].parity.code_mismatches == 0


@pytest.mark.parametrize("target", [0.7, 0.4, 0.2])
def test_a_steered_proximal_run_lands_on_its_target(target: float) -> None:
    teacher = random_teacher(24, 3)
    lessons = RandomLessons(teacher)
    targets = record_targets(teacher.network, lessons.inputs)
    settings = SlimmingSettings(
        schedule="proximal", target_gflops_ratio=target, steps=30, scale_learning_rate=0.02, slim_fraction=0.8
    )
    result = slim(teacher, settings, lessons, targets, seed=0)
    assert 0.95 * target <= result.macs_share <= target


def test_a_student_whose_blocks_have_vanished_is_trained_and_stored(tmp_path: Path) -> None:
    teacher = random_teacher(16, 2)
    lessons = RandomLessons(teacher)
    targets = record_targets(teacher.network, lessons.inputs)
    settings = SlimmingSettings(target_gflops_ratio=0.35, steps=3, sparsity_multiplier={"body": 3.0, "down": 0.1})
    result = slim(teacher, settings, lessons, targets, seed=0)
    assert not result.alive["body.0.branch.1"].any()
    assert result.curve[-1]["feature"] > 0
    save_student(tmp_path / "s.safetensors", result.network, Architecture("cyclegan_resnet", 16, 2))
    loaded = load_student(tmp_path / "s.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(lessons.inputs), result.network(lessons.inputs))
    assert teacher.graph.macs(result.alive) == pytest.approx(count_flops(loaded, 32).macs, rel=1e-12)


def test_a_larger_budget_prunes_more() -> None:
    teacher = random_teacher(16, 2)
    lessons = RandomLessons(teacher)
    targets = record_targets(teacher.network, lessons.inputs)
    base = SlimmingSettings(schedule="proximal", steps=20, scale_learning_rate=0.02, slim_fraction=0.9)
    shares = [
        slim(teacher, replace(base, sparsity_weight=budget), lessons, targets, seed=0).macs_share
        for budget in (0.0, 0.2, 0.5, 0.8)
    ]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.2


def test_losses_that_are_not_numbers_fail_the_trial() -> None:
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    run = new_training(teacher, PLAIN)
    with torch.no_grad():
        next(iter(run.network.parameters())).fill_(float("nan"))
    with pytest.raises(TrialFailed, match="stopped being numbers") as failure:
        for step in range(3):
            run.run_step(lessons.batch([step, step + 1]))
    assert failure.value.cause == "nan"


def test_flat_pictures_are_named_a_collapse() -> None:
    teacher = random_teacher()
    run = new_training(teacher, replace(PLAIN, learning_rate=0.0))
    with torch.no_grad():
        head = run.network.get_submodule("head.1")
        assert isinstance(head, nn.Conv2d)
        head.weight.zero_()
    with pytest.raises(TrialFailed, match="one flat colour") as failure:
        for step in range(3):
            run.run_step(RandomLessons(teacher).batch([step, step + 1]))
    assert failure.value.cause == "collapse"


def test_rates_that_wreck_the_teacher_are_lowered() -> None:
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    calm = harm_of_rates(teacher, replace(PLAIN, learning_rate=1e-6, scale_learning_rate=1e-6), lessons, seed=0)
    assert [row["factor"] for row in calm] == [1.0]
    harm = harm_of_rates(teacher, replace(PLAIN, learning_rate=0.05), lessons, seed=0)
    assert rate_factor(harm) < 0.1
    assert harm[-1]["psnr_to_teacher"] > harm[0]["psnr_to_teacher"]


def test_the_worse_a_student_is_the_higher_its_rates_may_be() -> None:
    harm = [{"factor": 0.5**k, "psnr_to_teacher": p} for k, p in enumerate((18.0, 22.0, 27.0, 33.0))]
    assert [rate_factor(harm, p) for p in (15.0, 18.0, 21.0, 25.0, 26.0, 40.0)] == [1.0, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rate_factor(harm) == 0.125
    assert rate_factor(harm[:2]) == 0.5  # nothing was harmless: the least harmful


@pytest.mark.parametrize("round_to", [1, 4])
def test_multipliers_are_not_applied_once_more_at_the_landing(round_to: int) -> None:
    """What the proximal steps left alive stays, however strongly its layers were pressed."""
    teacher = random_teacher(16, 2)
    lessons = RandomLessons(teacher)
    targets = record_targets(teacher.network, lessons.inputs)
    settings = SlimmingSettings(
        schedule="proximal",
        sparsity_weight=0.05,
        steps=4,
        round_to=round_to,
        sparsity_multiplier={"body": 3.0, "stem": 0.0},
    )
    result = slim(teacher, settings, lessons, targets, seed=0)
    for name, group in teacher.graph.groups.items():
        assert result.alive[name].mean() > 0.5, name
        if group.layers == "stem":
            assert result.alive[name].all()

"""The distillation terms, against a second computation by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gs_search.slimming import Batch, Lessons, Teacher
from gs_search.slimming.channels import Alive
from gs_search.slimming.distillation import Distillation, perceptual_of
from gs_search.slimming.extraction import extract
from gs_search.slimming.importance import Scaling
from gs_search.slimming.perceptual import Perceptual
from gs_search.slimming.sparsity import mask_
from gs_search.slimming.teacher import record_features
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.lessons import random_teacher
from tests.slimming.test_api import pictures
from tests.slimming.test_channels import Skips, random_alive, randomised

PLAIN = SlimmingSettings(feature_weight=1.0, distill_weight=2.0)
MAP = replace(PLAIN, feature_match="map")


@pytest.fixture(params=["resnet", "U-Net"])
def teacher(request: pytest.FixtureRequest) -> Teacher:
    return random_teacher() if request.param == "resnet" else Teacher(randomised(Skips), 32)


def batch_of(teacher: Teacher) -> Batch:
    return Lessons.in_memory(teacher, pictures()).batch([3, 1])


def some_alive(teacher: Teacher, *, vanished: bool = True) -> Alive:
    alive = random_alive(teacher, np.random.default_rng(3))
    for name, group in teacher.graph.groups.items():
        if group.block is not None:
            alive[name][:3] = not vanished or group.block != "body.0"
            alive[name][3:] = False
    return alive


@torch.no_grad()
def terms_of(
    teacher: Teacher, network: torch.nn.Module, scaling: Scaling, alive: Alive, settings: SlimmingSettings, **more: Any
) -> dict[str, tuple[float, Tensor]]:
    batch = batch_of(teacher)
    distillation = Distillation(teacher, scaling, alive, settings, **{"extracted": False, "perceptual": None, **more})
    with record_features(network, teacher.taps) as features:
        fake = network(batch.inputs)
    return distillation.terms(fake, features, batch)


def test_taps_are_where_streams_are_normalised() -> None:
    assert random_teacher().taps == ("down.0", "down.3", "body.0.branch.1", "body.1.branch.1", "up.0", "up.3", "head.1")
    # second's channels reach down.0 and last with a gate, not with a norm's scale alone
    assert Teacher(randomised(Skips), 32).taps == ("second", "up.0")


@pytest.mark.parametrize("settings", [PLAIN, MAP], ids=["channels", "map"])
def test_an_uncut_student_pays_nothing(teacher: Teacher, settings: SlimmingSettings) -> None:
    """However its scales were changed: its features have grown, and are compared with the teacher's grown alike."""
    network, scaling = teacher.student("rank")
    assert any((growth != 1).any() for growth in scaling.growth.values())
    terms = terms_of(teacher, network, scaling, teacher.graph.all_alive(), settings)
    assert list(terms) == ["pixel", "feature"]
    assert [weight for weight, _ in terms.values()] == [2.0, 1.0]
    assert all(value < 1e-5 for _, value in terms.values())


@pytest.mark.parametrize("settings", [PLAIN, MAP], ids=["channels", "map"])
def test_a_masked_student_pays_as_much_as_the_extracted_one(teacher: Teacher, settings: SlimmingSettings) -> None:
    network, scaling = teacher.student("rank")
    alive = some_alive(teacher, vanished=False)  # of a vanished block the masked student still has the tap
    mask_(teacher.graph, network, alive)
    masked = terms_of(teacher, network, scaling, alive, settings)
    small = terms_of(teacher, extract(teacher.graph, network, alive), scaling, alive, settings, extracted=True)
    for name in ("pixel", "feature"):
        torch.testing.assert_close(masked[name][1], small[name][1], rtol=1e-3, atol=1e-5)
        assert masked[name][1] > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("match", ["channels", "map"])
def test_features_by_hand(teacher: Teacher, match: Any) -> None:
    """Kept channels over what each has grown, or, with a map, also the teacher's lost ones, which count as zeros."""
    weights = {group: float(number) for number, group in enumerate(GROUPS)}
    settings = replace(PLAIN, feature_match=match, feature_weight=weights)
    network, scaling = teacher.student("rank")
    alive = some_alive(teacher)
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    found = terms_of(teacher, student, scaling, alive, settings, extracted=True)["feature"][1]
    batch = batch_of(teacher)
    with record_features(student, teacher.taps) as features:
        student(batch.inputs)
    total = 0.0
    for tap in teacher.taps:
        if tap not in features:
            assert tap.startswith("body.0")  # vanished
            continue
        wanted, own = batch.features[tap], features[tap]
        keep = torch.zeros(wanted.shape[1], dtype=torch.bool)
        growth = torch.ones(wanted.shape[1])
        for name, group in teacher.graph.groups.items():
            for slot in (s for s in group.slots if s.module == tap and s.role == "in"):
                keep[slot.positions] = torch.as_tensor(alive[name][slot.channels])
                growth[slot.positions] = torch.as_tensor(scaling.growth[name][slot.channels]).float()
        if match == "channels":
            wanted, seen = wanted[:, keep] * growth[keep].view(1, -1, 1, 1), own
        else:
            seen = torch.zeros_like(wanted)
            seen[:, keep] = own / growth[keep].view(1, -1, 1, 1)
        loss = (seen - wanted).square().mean() / wanted.square().mean()
        total += weights[teacher.graph.layers[tap].group] / len(teacher.taps) * loss.item()
    assert found.item() == pytest.approx(total, rel=1e-3)


def test_maps_are_learned_and_only_where_their_group_has_weight() -> None:
    teacher = random_teacher()
    network, scaling = teacher.student("rank")
    settings = replace(MAP, feature_weight={"stem": 0.0, "down": 0.0, "up": 0.0, "head": 1.0, "body": 1.0})
    batch = batch_of(teacher)
    distillation = Distillation(teacher, scaling, teacher.graph.all_alive(), settings, extracted=False, perceptual=None)
    assert sorted(distillation.maps) == ["body/0/branch/1", "body/1/branch/1", "head/1"]
    assert sum(p.numel() for p in distillation.parameters()) == 2 * 32 * 32 + 8 * 8
    with record_features(network, teacher.taps) as features:
        network(batch.inputs)
        twice = {tap: 2 * feature for tap, feature in features.items()}
    before = distillation.terms(batch.outputs, twice, batch)["feature"][1]
    before.backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in distillation.maps.values())
    with torch.no_grad():
        for value in distillation.maps.values():
            value.mul_(0.5)
    assert distillation.terms(batch.outputs, twice, batch)["feature"][1] < 1e-6 < before


def test_no_weight_no_feature_term() -> None:
    teacher = random_teacher()
    network, scaling = teacher.student()
    for match in ("channels", "map"):
        settings = replace(PLAIN, feature_weight=0.0, feature_match=match)
        assert list(terms_of(teacher, network, scaling, teacher.graph.all_alive(), settings)) == ["pixel"]


def test_perceptual_terms_by_hand() -> None:
    settings = replace(PLAIN, perceptual_weight=3.0, style_weight=4.0)
    teacher = random_teacher()
    network, scaling = teacher.student("raw")
    alive = some_alive(teacher)
    mask_(teacher.graph, network, alive)
    cache = perceptual_of(settings, "cpu")
    assert cache is not None
    found = terms_of(teacher, network, scaling, alive, settings, perceptual=cache)
    batch, extractor = batch_of(teacher), Perceptual("efficientnet_lite0").extractor
    with torch.no_grad():
        fake, wanted = extractor(network(batch.inputs)), extractor(batch.outputs)

    def gram(x: Tensor) -> Tensor:
        return torch.einsum("nchw,ndhw->ncd", x, x) / x[0].numel()

    content = (fake[0] - wanted[0]).abs().mean()
    style = sum((gram(a) - gram(b)).square().mean() for a, b in zip(fake, wanted, strict=True))
    assert (found["perceptual"][0], found["style"][0]) == (3.0, 4.0)
    torch.testing.assert_close(found["perceptual"][1], content, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found["style"][1], style, rtol=1e-3, atol=1e-9)
    # The teacher's side is remembered by the numbers of the lessons; without numbers it is computed again.
    again = terms_of(teacher, network, scaling, alive, settings, perceptual=cache)
    assert torch.equal(found["perceptual"][1], again["perceptual"][1]) and cache.used_bytes > 0


def test_perceptual_networks_are_made_only_where_asked_for() -> None:
    assert perceptual_of(PLAIN, "cpu") is None
    content = perceptual_of(replace(PLAIN, perceptual_weight=1.0), "cpu")
    both = perceptual_of(replace(PLAIN, perceptual_weight=1.0, style_weight=1.0), "cpu")
    assert content is not None and both is not None
    assert not content.perceptual.style and both.perceptual.style

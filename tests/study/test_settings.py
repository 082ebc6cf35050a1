"""The settings of a run: legal values, groups of layers, points over defaults."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_search.errors import ConfigError
from gs_search.study.settings import GROUPS, LEGAL, Legal, SlimmingSettings, settings_from_point


def test_every_setting_has_limits_and_a_legal_default() -> None:
    names = [field.name for field in dataclasses.fields(SlimmingSettings)]
    assert sorted(names) == sorted(LEGAL)
    assert all(legal.problem(getattr(SlimmingSettings(), name)) is None for name, legal in LEGAL.items())


@pytest.mark.parametrize(
    ("legal", "value", "wrong"),
    [
        (Legal(0.0, 1.0), 0.5, None),
        (Legal(0.0, 1.0), 1, None),
        (Legal(0.0, 1.0), 1.01, "must lie between 0 and 1, not 1.01"),
        (Legal(0.0, 1.0), math.nan, "must be finite, not nan"),
        (Legal(0.0, 1.0), -math.inf, "must be finite, not -inf"),
        (Legal(0.0, 1.0), 10**400, "must lie between 0 and 1"),
        (Legal(0.0, 1.0), True, "must be a number, not True"),
        (Legal(0.0, 1.0), "0.5", "must be a number, not '0.5'"),
        (Legal(0.0, 1.0), None, "must be a number, not None"),
        (Legal(0.0, 1.0, optional=True), None, None),
        (Legal(1, 8, integer=True), 2.5, "must be a whole number, not 2.5"),
        (Legal(1, 8, integer=True), 9, "must lie between 1 and 8, not 9"),
        (Legal(choices=(True, False)), 1, "must be one of True, False, not 1"),
        (Legal(choices=(1, 2)), True, "must be one of 1, 2, not True"),
        (Legal(choices=("a", "b")), "c", "must be one of a, b, not 'c'"),
        (Legal(choices=("a", "b")), ["a"], "must be one of a, b, not ['a']"),
    ],
)
def test_legal_values(legal: Legal, value: object, wrong: str | None) -> None:
    problem = legal.problem(value)
    assert problem is None if wrong is None else problem is not None and problem.startswith(wrong)


def test_all_mistakes_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        SlimmingSettings(steps=-1, weight_bits={"body": 1, "tail": 8}, precision="half")  # type: ignore[arg-type]
    assert [line.split()[0] for line in caught.value.problems] == [
        "weight_bits.body", "weight_bits.tail", "steps", "precision",
    ]  # fmt: skip


def test_a_plain_bit_width_spares_stem_and_head() -> None:
    narrow = SlimmingSettings(weight_bits=4)
    assert [narrow.bits("weight_bits", group) for group in GROUPS] == [8, 4, 4, 4, 8]
    exact = SlimmingSettings(weight_bits=32)
    assert [exact.bits("weight_bits", group) for group in GROUPS] == [32] * 5
    named = SlimmingSettings(weight_bits={"stem": 4, "body": 2})
    assert [named.bits("weight_bits", group) for group in GROUPS] == [4, 8, 2, 8, 8]


def test_point_over_defaults() -> None:
    settings = settings_from_point(
        {"steps": 5, "weight_bits.body": 4, "feature_weight.up": 1.0},
        {"steps": 9, "weight_bits": 6, "batch_size": 3},
    )
    assert (settings.steps, settings.batch_size) == (5, 3)
    assert [settings.bits("weight_bits", group) for group in GROUPS] == [8, 6, 4, 6, 8]
    assert [settings.per_group("feature_weight", group) for group in GROUPS] == [5, 5, 5, 1, 5]


def test_group_of_a_point_replaces_the_group_of_a_default_mapping() -> None:
    settings = settings_from_point({"weight_bits.up": 3}, {"weight_bits": {"body": 4, "up": 6}})
    assert [settings.bits("weight_bits", group) for group in GROUPS] == [8, 8, 4, 3, 8]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"stepps": 3}, "unknown setting 'stepps'"),
        ({"weight_bits.tail": 4}, "weight_bits.tail is not a group"),
        ({"steps.body": 4}, "steps must be a number"),
        ({"learning_rate": 2.0}, "learning_rate must lie between 0 and 1"),
    ],
)
def test_illegal_points(point: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from_point(point)  # type: ignore[arg-type]


bits = st.sampled_from(LEGAL["weight_bits"].choices or ())


@given(st.dictionaries(st.sampled_from(GROUPS), bits), bits)
def test_groups_not_named_keep_the_plain_value(grouped: dict[str, int], plain: int) -> None:
    point = {"weight_bits": plain, **{f"weight_bits.{group}": value for group, value in grouped.items()}}
    settings, alone = settings_from_point(point), SlimmingSettings(weight_bits=plain)
    for group in GROUPS:
        assert settings.bits("weight_bits", group) == grouped.get(group, alone.bits("weight_bits", group))

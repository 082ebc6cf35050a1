"""Advice: only when it is due, and about what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gs_search.monitor.advice import PATIENCE, Advice, Ended, Member, Study, advise
from gs_search.study.space import SearchSpace
from gs_search.study.space_file import space_from_dict

SPACE = space_from_dict(
    {
        "parameters": {
            "target_gflops_ratio": {"type": "float", "low": 0.1, "high": 0.8, "log": True},
            "feature_weight": {"type": "float", "low": 1.0, "high": 21.0},
            "repair_pictures": {"type": "int", "low": 16, "high": 64, "step": 16},
            "weight_bits.body": {"type": "choice", "choices": [8, 6, 4]},
            "schedule": {"type": "choice", "choices": ["at_once", "proximal"]},
        }
    }
)
MIDDLE = {
    "target_gflops_ratio": 0.3,
    "feature_weight": 10.0,
    "repair_pictures": 32,
    "weight_bits.body": 6,
    "schedule": "at_once",
}
STUDY = Study(space=SPACE, sampler="tpe", steps=100, hypervolume=0.5, remaining=9, folder="runs/x")


def idle(count: int = PATIENCE, first: float = 0.3, **changes: Any) -> list[Ended]:
    """A trial that gained something, and then so many that did not."""
    start = Ended(number=0, state="COMPLETE", gain=first)
    return [start, *(Ended(number=n, **{"state": "COMPLETE", **changes}) for n in range(1, count + 1))]


def front(*points: dict[str, Any], trained_db: float | None = None) -> list[Member]:
    """Members in the middle of the space but for what is given; schedules take turns."""
    turns = ("at_once", "proximal")
    return [
        Member(number=n, point={**MIDDLE, "schedule": turns[n % 2], **point}, trained_db=trained_db)
        for n, point in enumerate(points)
    ]


def of(kind: str, found: Sequence[Advice]) -> list[str]:
    return [advice.text for advice in found if advice.kind == kind]


def test_fifteen_trials_without_a_gain_and_no_fewer() -> None:
    members = front(*({"feature_weight": w} for w in (2.5, 7.0, 13.0)))
    assert advise(idle(PATIENCE - 1), members, STUDY) == []
    found = advise(idle(PATIENCE), members, STUDY)
    assert found[0].text == "the last 15 finished trials added nothing to the hypervolume since trial 0"
    assert [advice.kind for advice in found] == ["stalled", "sampler", "how", "stop"]
    assert "spare the 9 trials that remain" in found[-1].text and "--from runs/x" in found[-2].text
    assert "all trials are there" in advise(idle(), members, replace(STUDY, remaining=0))[-1].text
    gained_late = [*idle(PATIENCE), Ended(number=16, state="COMPLETE", gain=1e-6)]
    assert advise(gained_late, members, STUDY) == []


def test_a_study_that_has_never_gained_anything() -> None:
    found = advise(idle(first=0.0), [], replace(STUDY, hypervolume=0.0))
    assert found[0].text == "the last 16 finished trials added nothing to the hypervolume"
    assert [advice.kind for advice in found][1] == "worthless"


@pytest.mark.parametrize(
    ("points", "texts"),
    [
        (
            [{"target_gflops_ratio": r} for r in (0.1, 0.101, 0.1, 0.5)],
            ["3 of 4 points of the front lie at the lower end of target_gflops_ratio: lower `low` from 0.1 to 0.05"],
        ),
        (
            [{"target_gflops_ratio": r} for r in (0.79, 0.8, 0.77)],
            ["all points of the front lie at the upper end of target_gflops_ratio: raise `high` from 0.8 to 1"],
        ),
        # In the logarithm 0.12 is far from 0.1; on the even scale of feature_weight 1.9 is near to 1.
        ([{"target_gflops_ratio": 0.12}] * 4, []),
        (
            [{"feature_weight": 1.9}] * 4,
            ["all points of the front lie at the lower end of feature_weight: lower `low` from 1 to 0"],
        ),
        (
            [{"repair_pictures": 64}] * 6,
            ["all points of the front lie at the upper end of repair_pictures: raise `high` from 64 to 88"],
        ),
        ([{"repair_pictures": 64}] * 3, []),  # one value of four: three may be chance
        (
            [{"weight_bits.body": 4}] * 5,
            ["all points of the front lie at the lower end of weight_bits.body: offer 3 too"],
        ),
        ([{"weight_bits.body": 4}] * 4, []),
        ([{"feature_weight": 1.0}, {"feature_weight": 1.0}, {}, {}, {}], []),  # two of five
    ],
)
def test_where_the_front_sits_at_an_end(points: list[dict[str, Any]], texts: list[str]) -> None:
    filled = []
    for place, point in enumerate(points):  # what is not under test is spread, so that it says nothing
        spread = {"weight_bits.body": (8, 6, 4)[place % 3], "repair_pictures": (16, 32, 48, 64)[place % 4]}
        filled.append({**spread, **point})
    assert of("widen", advise(idle(), front(*filled), STUDY)) == texts


def test_an_end_that_cannot_be_moved_is_left_alone() -> None:
    space = space_from_dict({"parameters": {"target_gflops_ratio": {"type": "float", "low": 0.5, "high": 1.0}}})
    members = [Member(number=n, point={"target_gflops_ratio": 1.0}) for n in range(5)]
    assert of("widen", advise(idle(), members, replace(STUDY, space=space))) == []


def test_a_choice_that_the_whole_front_shares() -> None:
    points = [
        {"weight_bits.body": (8, 6, 4)[n % 3], "schedule": "proximal", "feature_weight": 4.0 + n} for n in range(7)
    ]
    (text,) = of("fix", advise(idle(), front(*points), STUDY))
    assert text == "all points of the front have schedule proximal: fix it there, to learn others"
    points = [{**point, "schedule": "at_once", "weight_bits.body": 8} for point in points]
    texts = of("fix", advise(idle(), front(*points), STUDY))
    assert texts[0].startswith("all points of the front have weight_bits.body 8"), "32 bits are no step beyond 8"


@pytest.mark.parametrize(
    ("gained", "steps", "text"),
    [
        (
            1.5,
            100,
            "100 training steps add 1.5 dB to the front's students (median): twice as many (settings.steps: 200)",
        ),
        (0.1, 100, "100 training steps add 0.1 dB to the front's students (median): with half of them"),
        (0.5, 100, None),
        (1.5, None, None),
        (None, 100, None),
    ],
)
def test_training_that_pays_and_training_that_does_not(
    gained: float | None, steps: int | None, text: str | None
) -> None:
    members = front({}, {}, {}, trained_db=gained)
    texts = of("steps", advise(idle(), members, replace(STUDY, steps=steps)))
    assert [told.startswith(text or "") for told in texts] == ([True] if text else [])


@pytest.mark.parametrize(
    ("ending", "study", "kind", "text"),
    [
        (
            {"state": "FAIL", "cause": "nan"},
            {},
            "failures",
            "15 of the last 15 failed (nan): look at trials/15/log.txt",
        ),
        (
            {"state": "PRUNED", "cause": "infeasible"},
            {"limits": {"max_gflops": 0.4}},
            "constraint",
            "raise max_gflops (0.4)",
        ),
        (
            {"missed": ("max_mb",)},
            {"limits": {"max_mb": 0.2}},
            "constraint",
            "15 of the last 15 students miss max_mb (0.2)",
        ),
        (
            {"state": "PRUNED", "cause": "dominated"},
            {"margin_db": 0.5, "foretold": 0.0},
            "margin",
            "raise stopping.margin_db from 0.5 to 1",
        ),
        ({"duplicate": True}, {}, "exhausted", "15 of the last 15 points had been tried before"),
    ],
)
def test_what_the_last_trials_were(ending: dict[str, Any], study: dict[str, Any], kind: str, text: str) -> None:
    found = advise(idle(**ending), front({}, {}), replace(STUDY, **study))
    (told,) = of(kind, found)
    assert text in told and found[1].kind == kind, "what went wrong comes first"


def test_a_rung_that_foretells_well_may_stop_trials() -> None:
    stopped = idle(state="PRUNED", cause="dominated")
    for study in (replace(STUDY, margin_db=0.5, foretold=0.9), replace(STUDY, margin_db=0.5), STUDY):
        assert of("margin", advise(stopped, front({}, {}), study)) == []


@pytest.mark.parametrize(
    ("sampler", "other"),
    [("random", "surrogate"), ("tpe", "surrogate"), ("nsga3", "surrogate"), ("surrogate", "nsga2"), ("gp", "nsga2")],
)
def test_another_sampler(sampler: str, other: str) -> None:
    (text,) = of("sampler", advise(idle(20), [], replace(STUDY, sampler=sampler)))
    assert text.startswith(f"try sampler: {other},") and text.endswith(f"instead of {sampler}")


def test_a_space_of_few_points_and_an_empty_front() -> None:
    space: SearchSpace = space_from_dict({"parameters": {"prune": {"type": "choice", "choices": ["all", "inner"]}}})
    assert advise(idle(), [], replace(STUDY, space=space))[0].kind == "stalled"

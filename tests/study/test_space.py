"""Search spaces: proposals, checks of points, canonical keys."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_search.study.space import Parameter, SearchSpace
from gs_search.study.space_file import space_from_dict

PARAMETERS: dict[str, Any] = {
    "target_gflops_ratio": {"type": "float", "low": 0.05, "high": 0.9, "log": True},
    "weight_bits.body": {"type": "choice", "choices": [8, 6, 4]},
    "repair_pictures": {"type": "int", "low": 16, "high": 64, "step": 16},
    "schedule": {"type": "choice", "choices": ["at_once", "proximal"]},
    "slim_fraction": {
        "type": "float",
        "low": 0.2,
        "high": 0.8,
        "step": 0.1,
        "when": {"schedule": "proximal"},
    },
    "revive": {"type": "choice", "choices": [True, False], "when": {"schedule": ["proximal"]}},
    "steps": 80,
}
SPACE = space_from_dict({"parameters": PARAMETERS})
POINT = {"target_gflops_ratio": 0.25, "weight_bits.body": 4, "repair_pictures": 32, "schedule": "at_once"}
SLIM = {**POINT, "schedule": "proximal", "slim_fraction": 0.6, "revive": False}


class Scripted:
    """A trial that answers from a list of unit numbers, and notes what it was asked."""

    def __init__(self, answers: list[float]) -> None:
        self.answers = answers
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = (low, high, step, log)
        share = self.answers.pop()
        if step:
            return low + step * round(share * (high - low) / step)
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = (low, high, step, log)
        return low + step * int(self.answers.pop() * ((high - low) // step))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked[name] = choices
        return choices[min(int(self.answers.pop() * len(choices)), len(choices) - 1)]


def test_suggest_asks_for_what_counts() -> None:
    trial = Scripted([0.0, 0.5, 0.5, 0.5])
    assert SPACE.suggest(trial) == {
        "steps": 80, "target_gflops_ratio": pytest.approx(0.2121, abs=1e-4), "weight_bits.body": 6,
        "repair_pictures": 32, "schedule": "at_once",
    }  # fmt: skip
    assert trial.asked == {
        "target_gflops_ratio": (0.05, 0.9, None, True),
        "weight_bits.body": (8, 6, 4),
        "repair_pictures": (16, 64, 16, False),
        "schedule": ("at_once", "proximal"),
    }
    assert set(SPACE.suggest(Scripted([1.0] * 6))) == {*SLIM, "steps"}


def test_optuna_trials_fit() -> None:
    import optuna

    trial = optuna.create_study().ask(
        {"schedule": optuna.distributions.CategoricalDistribution(["at_once", "proximal"])}
    )
    assert SPACE.check_point(SPACE.suggest(trial)) == []
    fixed = optuna.trial.FixedTrial(SLIM)
    assert SPACE.suggest(fixed) == {**SLIM, "steps": 80}


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_what_is_suggested_is_legal_and_has_a_stable_key(answers: list[float]) -> None:
    point = SPACE.suggest(Scripted(answers))
    assert SPACE.check_point(point) == []
    shuffled = dict(reversed(point.items()))
    assert SPACE.key(shuffled) == SPACE.key(point) == SPACE.key(SPACE.tunable(point))
    assert SPACE.tunable(point).keys() == point.keys() - {"steps"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"steps": 80}, None),
        ({"steps": 81}, "steps: is fixed to 80, not 81"),
        ({"target_gflops_ratio": 0.01}, "target_gflops_ratio: must lie between 0.05 and 0.9, not 0.01"),
        ({"target_gflops_ratio": float("nan")}, "target_gflops_ratio: must be finite, not nan"),
        ({"weight_bits.body": 5}, "weight_bits.body: must be one of 8, 6, 4, not 5"),
        ({"repair_pictures": 40}, "repair_pictures: must be 16 plus a multiple of 16, not 40"),
        ({"repair_pictures": 32.5}, "repair_pictures: must be a whole number, not 32.5"),
        ({"slim_fraction": 0.6}, "slim_fraction: its condition does not hold at this point"),
        (
            {"weight_bit.body": 4},
            "weight_bit.body: is not in this search space; did you mean weight_bits.body?",
        ),
    ],
)
def test_check_point(change: dict[str, Any], problem: str | None) -> None:
    assert SPACE.check_point({**POINT, **change}) == ([] if problem is None else [problem])


def test_check_point_names_what_is_missing() -> None:
    assert SPACE.check_point({"schedule": "proximal"}) == [
        f"{name}: is missing" for name in PARAMETERS if name not in ("schedule", "steps")
    ]


def test_key() -> None:
    assert SPACE.key(POINT) == ("repair_pictures=32,schedule=at_once,target_gflops_ratio=0.25,weight_bits.body=4")
    assert SPACE.key(SLIM) == (
        "repair_pictures=32,revive=false,schedule=proximal,slim_fraction=0.6,target_gflops_ratio=0.25,"
        "weight_bits.body=4"
    )
    # The last digits of a float, the type of a number, constants and idle parameters make no other trial.
    same = {**POINT, "target_gflops_ratio": 0.2500000001, "repair_pictures": 32.0, "weight_bits.body": 4.0}
    assert SPACE.key({**same, "slim_fraction": 0.3, "steps": 80}) == SPACE.key(POINT)
    assert SPACE.key({**POINT, "target_gflops_ratio": 0.250001}) != SPACE.key(POINT)


def test_minus_zero_is_zero() -> None:
    parameter = Parameter(name="distill_weight", kind="float", low=-1, high=1)
    assert parameter.canonical(-0.0) == parameter.canonical(0.0) == parameter.canonical(0) == "0"


def test_conditions_chain() -> None:
    space = space_from_dict(
        {
            "parameters": {
                "repair": {"type": "choice", "choices": [True, False]},
                "schedule": {"type": "choice", "choices": ["at_once", "proximal"], "when": {"repair": True}},
                "revive": {"type": "choice", "choices": [True, False], "when": {"schedule": "proximal"}},
            }
        }
    )
    assert space.key({"repair": False, "schedule": "proximal", "revive": True}) == "repair=false"
    assert space.suggest(Scripted([0.9])) == {"repair": False}


def test_round_trips() -> None:
    space = space_from_dict({"parameters": PARAMETERS, "start_points": [POINT, SLIM]})
    assert space.start_points == ({**POINT, "steps": 80}, {**SLIM, "steps": 80})
    assert space_from_dict(space.to_dict()) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert isinstance(space, SearchSpace)

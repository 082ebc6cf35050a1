"""Proposals by expected gain: the gain against brute force, coordinates against the sampler's values, whole studies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from gs_search.results.pareto import front_indices, hypervolume
from gs_search.search import surrogate
from gs_search.search.storage import quiet
from gs_search.search.surrogate import MOST, STARTUP, Room, SurrogateSampler, _Gain, _some
from gs_search.study.space import SearchSpace
from tests.driving.kinds import KINDS

REFERENCE = (2.0, 1.0, 1.0)


def space(*names: str, **options: Any) -> SearchSpace:
    chosen = tuple(p for p in KINDS if not names or p.name in names)
    return SearchSpace(parameters=chosen, constants=options.pop("constants", {}), **options)


def sampler(where: SearchSpace, turn: int, **options: Any) -> SurrogateSampler:
    given = {"reference": REFERENCE, "position": turn, "seed": 100 + turn, "study_seed": 0, **options}
    return SurrogateSampler(where, **given)


def study_of(trials: int, where: SearchSpace, objectives: Callable[[dict[str, Any]], list[float]]) -> optuna.Study:
    with quiet():
        study = optuna.create_study(directions=["minimize"] * 3)
        for turn in range(trials):
            study.sampler = sampler(where, turn)
            trial = study.ask()
            study.tell(trial, objectives(where.suggest(trial)))
    return study


def ask(study: optuna.Study, where: SearchSpace, **options: Any) -> dict[str, Any]:
    with quiet():
        study.sampler = sampler(where, len(study.trials), **options)
        return where.suggest(study.ask())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "SPREAD", 256)
    monkeypatch.setattr(surrogate, "NEAR", 128)


# --- gain


def test_sure_gain_is_that_of_hypervolume() -> None:
    rng = np.random.default_rng(0)
    front, new = rng.random((25, 3)) * 2 - 0.2, rng.random((40, 3)) * 1.5
    front = front[(front > 0).all(axis=1)]
    room = Room((1.4, 1.3, 1.2))
    for point in front:
        room.add(point)
    whole = hypervolume(front, (1.4, 1.3, 1.2))
    expected = [hypervolume([*front, point], (1.4, 1.3, 1.2)) - whole for point in new]
    assert max(expected) > 0.01
    np.testing.assert_allclose(room.expected_gain(new[:, 0], np.zeros(40), new[:, 1:]), expected, atol=1e-9)


def test_expected_gain_is_the_mean_over_what_may_come() -> None:
    room, front = Room((1.0, 1.0, 1.0)), [(0.5, 0.2, 0.6), (0.3, 0.7, 0.4), (0.8, 0.1, 0.1)]
    for point in front:
        room.add(point)
    mean, spread, costs = np.array([0.6, 1.1]), np.array([0.1, 0.3]), np.array([[0.3, 0.3], [0.05, 0.5]])
    draws = np.maximum(mean + spread * np.random.default_rng(0).normal(size=(4000, 2)), 0.0)
    whole = hypervolume(front, (1, 1, 1))
    drawn = [
        np.mean([hypervolume([*front, (fid, *costs[k])], (1, 1, 1)) - whole for fid in draws[:, k]]) for k in range(2)
    ]
    np.testing.assert_allclose(room.expected_gain(mean, spread, costs), drawn, rtol=0.05)


# --- proposals


def bowl(point: dict[str, Any]) -> list[float]:
    """The best is at plain = 1; the less of it, the cheaper, with log for the bytes."""
    return [0.2 + (point["plain"] - 1.0) ** 2 / 4, (point["plain"] + 1.5) / 5, point["share"]]


def test_finds_the_front_that_random_points_do_not() -> None:
    where = space("share", "plain")
    study = study_of(24, where, bowl)
    found = hypervolume([t.values for t in study.trials], REFERENCE)
    rng = np.random.default_rng(3)
    shares = 0.1 * 9 ** rng.random((40, 24))
    plain = rng.random((40, 24)) * 4 - 1
    drawn = [
        hypervolume([bowl({"plain": p, "share": s}) for p, s in zip(*both, strict=True)], REFERENCE)
        for both in zip(plain, shares, strict=True)
    ]
    assert found > np.quantile(drawn, 0.95)


def test_begins_with_the_sequence_and_is_a_function_of_the_trials(quick: None) -> None:
    where = space()

    def objectives(point: dict[str, Any]) -> list[float]:
        return [1.0 + point["plain"] / 4, point["share"], point["bits"] / 10]

    study, again = (study_of(STARTUP + 2, where, objectives) for _ in range(2))
    assert [t.params for t in study.trials] == [t.params for t in again.trials]
    sequence = optuna.create_study(directions=["minimize"] * 3)
    for turn in range(3):
        sequence.sampler = surrogate.SobolSampler([p.name for p in KINDS], position=turn, seed=0)
        assert where.suggest(sequence.ask()) == study.trials[turn].params
    assert ask(study, where, seed=1) != ask(again, where, seed=2)


def test_goes_nowhere_twice_and_where_nothing_is_under_way(quick: None) -> None:
    where = space("bits", "rule")  # six points
    study = optuna.create_study(directions=["minimize"] * 3)
    where_to = [(8, "a"), (6, "a"), (3, "a"), (8, "b"), (6, "b"), (3, "b")]
    lone = where_to.pop(2)

    def add(bits: int, rule: str, state: str, fid: float = 0.0) -> None:
        distributions = {"bits": optuna.distributions.CategoricalDistribution((8, 6, 3)),
                         "rule": optuna.distributions.CategoricalDistribution(("a", "b"))}  # fmt: skip
        values = [1.0 + fid, bits / 10, 0.5] if state == "COMPLETE" else None
        study.add_trial(
            optuna.trial.create_trial(
                params={"bits": bits, "rule": rule},
                distributions=distributions,
                values=values,
                state=optuna.trial.TrialState[state],
            )
        )

    for turn in range(STARTUP):
        add(*where_to[turn % 3], "COMPLETE", fid=turn / 100)
    add(*where_to[3], "RUNNING")
    add(*where_to[4], "FAIL")
    assert ask(study, where) == dict(zip(("bits", "rule"), lone, strict=True))


def test_keeps_what_is_fixed(quick: None) -> None:
    where = space("share", "plain", "bits")
    study = study_of(STARTUP, where, bowl)
    study.enqueue_trial({"bits": 6, "plain": 2.5})
    point = ask(study, where)
    assert (point["bits"], point["plain"]) == (6, 2.5)
    # With plain as it is, FID and GFLOPs cannot change: the fewest bytes are best.
    assert point["share"] < 0.15


def test_stays_away_from_points_that_fail(quick: None) -> None:
    where = space("plain")
    study = study_of(STARTUP, where, lambda point: [0.2 + (point["plain"] - 1.0) ** 2 / 4, 0.5, 0.5])
    before = ask(study, where)["plain"]
    distribution = optuna.distributions.FloatDistribution(-1.0, 3.0)
    for near in (before - 0.03, before, before + 0.03):
        failed = optuna.trial.create_trial(
            params={"plain": near}, distributions={"plain": distribution}, state=optuna.trial.TrialState.FAIL
        )
        study.add_trial(failed)
    assert abs(ask(study, where)["plain"] - before) > 0.06


def test_without_a_reference_and_with_one_that_nobody_keeps(quick: None) -> None:
    where = space("share", "plain")
    study = study_of(STARTUP, where, bowl)
    for reference in (None, (0.01, 0.01, 0.01)):
        assert where.check_point(ask(study, where, reference=reference)) == []


def test_many_trials_are_thinned_but_for_the_front() -> None:
    rng = np.random.default_rng(0)
    with quiet():
        study = optuna.create_study(directions=["minimize"] * 3)
        for row in rng.random((3 * MOST, 3)):
            study.add_trial(optuna.trial.create_trial(values=row.tolist()))
    kept = {trial.number for trial in _some(study.trials)}
    assert len(kept) == MOST
    assert set(front_indices([t.values for t in study.trials])) <= kept
    assert min(kept) < MOST / 2 and max(kept) > 2.5 * MOST
    assert math.isclose(np.mean(list(kept)), 1.5 * MOST, rel_tol=0.1)


def test_a_trial_that_was_left_counts_as_no_better_than_the_best_that_costs_no_more() -> None:
    x = np.linspace(0, 1, 12)[:, None]
    values = np.column_stack([2.0 - x[:, 0], 0.2 + x[:, 0], np.full(12, 0.5)])
    none = np.empty((0, 1))

    def gain(left: np.ndarray) -> _Gain:
        return _Gain(x[:9], values[:9], running=none, left=left, failed=none, reference=(2.5, 2.0, 1.0))

    there = np.array([[0.95]])
    plain, told = gain(none), gain(np.array([[0.95], [0.96], [0.94]]))
    assert float(plain._fid(there)[0][0]) == pytest.approx(math.log(1.05), abs=0.05)
    assert float(told._fid(there)[0][0]) == pytest.approx(math.log(values[8, 0]), abs=0.05)
    assert told(there)[0] < 0.3 * plain(there)[0]
    # Nothing costs less than what is cheaper than all: nobody can say how good it is.
    assert gain(np.array([[-0.5]]))(there)[0] == pytest.approx(plain(there)[0])


def test_only_dominated_trials_are_taken_for_left(quick: None) -> None:
    where = space("share", "plain")

    def next_one(cause: str | None, near: dict[str, Any] | None = None) -> dict[str, Any]:
        study = study_of(STARTUP + 4, where, bowl)
        for _ in range(3 if near else 0):
            study.add_trial(
                optuna.trial.create_trial(
                    params=near,
                    distributions=study.trials[0].distributions,
                    state=optuna.trial.TrialState.PRUNED,
                    user_attrs={"cause": cause},
                )
            )
        return ask(study, where, seed=5, position=50)

    first = next_one(None)
    assert next_one("infeasible", first) == pytest.approx(first, abs=0.05)  # says nothing of FID
    assert next_one("dominated", first) != pytest.approx(first, abs=0.05)


def test_a_trial_that_was_killed_and_repeated_changes_nothing(quick: None) -> None:
    where = space("share", "plain", "bits")
    undisturbed = study_of(STARTUP + 3, where, bowl)
    with quiet():
        disturbed = optuna.create_study(directions=["minimize"] * 3)
        for trial in undisturbed.trials:
            if trial.number == 4:
                killed = optuna.trial.create_trial(
                    params=trial.params,
                    distributions=trial.distributions,
                    state=optuna.trial.TrialState.FAIL,
                    user_attrs={"requeue": True},
                )
                disturbed.add_trial(killed)
            disturbed.add_trial(trial)
    options = {"seed": 9, "position": STARTUP + 3}
    assert ask(disturbed, where, **options) == ask(undisturbed, where, **options)

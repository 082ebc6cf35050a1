"""Coordinates against the values that the Sobol sampler makes of them, for every kind of parameter."""

from __future__ import annotations

import numpy as np
import optuna

from gs_search.search.encoding import Coordinates
from gs_search.search.samplers import SobolSampler
from gs_search.search.storage import quiet
from gs_search.study.space import Parameter, SearchSpace
from tests.driving.kinds import KINDS


def test_a_share_and_its_value_go_back_and_forth() -> None:
    where, rng = SearchSpace(parameters=KINDS, constants={}), np.random.default_rng(1)
    coordinates = Coordinates(where)
    shares = coordinates.at(rng.random((50, len(KINDS))))
    for row in shares:
        with quiet():
            study = optuna.create_study(sampler=_Given(dict(zip(coordinates.names, row.tolist(), strict=True))))
            point = where.suggest(study.ask())
        assert where.check_point(point) == []
        np.testing.assert_allclose(coordinates.shares(point), row, atol=1e-9)
        assert np.isnan(row[-1]) == (point["rule"] == "b") == ("only_a" not in point)


class _Given(SobolSampler):
    """Values at given shares."""

    def __init__(self, shares: dict[str, float]) -> None:
        super().__init__(list(shares), position=0, seed=0)
        self._shares = shares


def test_inputs_keep_the_distances_of_numbers_and_none_of_names() -> None:
    coordinates = Coordinates(
        SearchSpace(parameters=tuple(p for p in KINDS if p.name in ("plain", "bits", "rule")), constants={})
    )
    points = [{"plain": p, "bits": b, "rule": r} for p, b, r in ((-1.0, 8, "a"), (1.0, 6, "b"), (3.0, 3, "b"))]
    inputs = coordinates.inputs(np.array([coordinates.shares(point) for point in points]))
    np.testing.assert_allclose(inputs, [[0, 1, 1, 0], [0.5, 0.6, 0, 1], [1, 0, 0, 1]])


def test_a_condition_on_a_constant() -> None:
    bound = Parameter(name="bound", kind="float", low=0.0, high=1.0, when=(("rule", ("b",)),))
    for constant, idle in (("a", True), ("b", False)):
        where = SearchSpace(parameters=(bound,), constants={"rule": constant})
        assert np.isnan(Coordinates(where).at(np.array([[0.3]])))[0, 0] == idle

"""A world without a model: only the table's own points can be trained, each once, and tell what was measured.

A proposal is moved to the nearest point of the table that is left; where a sampler proposes parameter by parameter
(random, and any sampler before it has learned), points come in a shuffled order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from benchmarks.search_clock import Exhausted, MemoryDatabase
from benchmarks.search_world import Outcome, Table
from gs_search.search.encoding import Coordinates
from gs_search.search.surrogate import SurrogateSampler

__all__ = ["Pool", "nearest_left"]


class Pool:
    """The points of a table, with what their seeds told."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._places = {table.space.key(point): k for k, point in enumerate(table.points)}
        self._means = np.nanmean(table.values, axis=1)

    def outcome(self, point: Mapping[str, Any], seed: int) -> Outcome:
        """What one of the point's seeds told."""
        cells = self.table.values[self._places[self.table.space.key(point)]]
        known = cells[~np.isnan(cells[:, 0])]
        return self.table.outcome(known[seed % len(known)])

    def true(self, point: Mapping[str, Any]) -> dict[str, float]:
        """Objectives, means over the seeds."""
        return self.table.outcome(self._means[self._places[self.table.space.key(point)]]).objectives


def nearest_left(database: MemoryDatabase, table: Table, seed: int) -> None:
    """Have a database propose points of a table only, and none twice."""
    own = database.next_sampler
    coordinates = Coordinates(table.space)
    shares = np.array([coordinates.shares(point) for point in table.points])
    order = list(range(len(table.points)))
    random.Random(seed).shuffle(order)

    def next_sampler() -> BaseSampler:
        taken = {table.space.key({**table.space.constants, **t.params}) for t in database.trials() if t.params}
        left = [k for k in order if table.space.key(table.points[k]) not in taken]
        if not left:
            raise Exhausted("every point of the table has been proposed")
        return _Nearest(own(), table, coordinates, shares, left)

    database.next_sampler = next_sampler  # type: ignore[method-assign]


class _Nearest(BaseSampler):
    """Another sampler, whose proposals are moved."""

    def __init__(
        self, own: BaseSampler, table: Table, coordinates: Coordinates, shares: np.ndarray, left: list[int]
    ) -> None:
        self.own, self.table, self.coordinates, self.shares, self.left = own, table, coordinates, shares, left
        self._point: dict[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The other sampler's."""
        return self.own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Move what the other sampler proposes."""
        wanted = np.full(self.shares.shape[1], np.nan)
        if isinstance(self.own, SurrogateSampler):
            proposed = self.own.propose(study, trial)
            wanted = np.array([proposed.get(name, np.nan) for name in self.coordinates.names])
        elif len(search_space) == self.shares.shape[1]:
            wanted = self.coordinates.shares(self.own.sample_relative(study, trial, search_space))
        best = self.left[0]
        if not np.isnan(wanted).any():
            there = self.coordinates.inputs(self.coordinates.at(wanted[None]))
            here = self.coordinates.inputs(self.shares[self.left])
            best = self.left[int(np.argmin(((here - there) ** 2).sum(axis=1)))]
        self._point = self.table.points[best]
        return {name: self._point[name] for name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The rest of the same point."""
        return self._point[param_name]

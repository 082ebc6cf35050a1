"""Proposals where the front is expected to grow most, judged by models of the finished trials.

A Gaussian process for each objective is fitted to the finished trials, in logarithms. Multiply-adds and bytes follow
from a point, so their models are as good as exact, and only FID is taken for uncertain. The expected gain of
hypervolume then has a closed form: what no trial dominates yet is a set of boxes, and a new point gains, in each of
them, the area that its costs leave times the expected improvement of FID. Trials under way count as if they had ended
as foretold; one that was left at a rung counts as no better than the best that costs no more. All of this takes a few
tenths of a second, also after thousands of trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm, qmc

from gs_search.results.hypervolume import Volume
from gs_search.results.pareto import front_indices
from gs_search.search.encoding import Coordinates
from gs_search.search.gaussian_process import Process
from gs_search.search.optuna_adapter import fixed_params
from gs_search.search.samplers import SobolSampler
from gs_search.study.space import SearchSpace

__all__ = ["Room", "SurrogateSampler"]

Array = NDArray[np.float64]

STARTUP = 10
"""Finished trials from which on models are fitted."""

MOST, MOST_LEFT = 200, 100
"""Finished trials, and others, that models are fitted to: their time grows with the cube of the number."""

SPREAD, NEAR, ROUNDS, STEPS = 2048, 1024, 3, (0.02, 0.06, 0.2)
"""Candidates all over the space (a power of two), and in each round near the best of them and the front; how near."""

PARENTS = 10

CLOSE = 0.01
"""Share by which a model may be off the costs of a student."""


class Room(Volume):
    """What no point of a front dominates yet, below ``corner``: where a point may gain."""

    def expected_gain(self, mean: Array, spread: Array, costs: Array) -> Array:
        """Hypervolume that n points are expected to add.

        Args:
            mean, spread: n; of the first objective, which is normally distributed.
            costs: n x (m - 1); the others, which are known.
        """
        low, high = np.maximum(self._low, 0.0), self._high
        area = np.ones((len(mean), len(high)))
        for k, cost in enumerate(costs.T, start=1):
            area *= np.maximum(high[:, k] - np.maximum(low[:, k], cost[:, None]), 0.0)
        sure = np.maximum(spread, 1e-12 * np.abs(mean) + 1e-300)
        edges, place = np.unique(np.concatenate([high[:, 0], low[:, 0]]), return_inverse=True)
        z = (edges - mean[:, None]) / sure[:, None]
        below = sure[:, None] * (z * norm.cdf(z) + norm.pdf(z))  # expected improvement below each edge
        return np.asarray((area * (below[:, place[: len(high)]] - below[:, place[len(high) :]])).sum(axis=1))


class SurrogateSampler(SobolSampler):
    """Proposes the point with the greatest expected gain of hypervolume; before there is a model, one of a sequence.

    Args:
        space: what is proposed; narrowed where constraints rule parts out.
        reference: corner from which hypervolume is measured, constraints already in it; None: a tenth beyond the
            worst trial.
        position, study_seed: of the Sobol sequence.
        seed: of this turn's candidates.
    """

    def __init__(
        self, space: SearchSpace, *, reference: Sequence[float] | None, position: int, seed: int, study_seed: int
    ) -> None:
        super().__init__([parameter.name for parameter in space.parameters], position=position, seed=study_seed)
        self._coordinates = Coordinates(space)
        self._reference = reference
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._proposed = False

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Value of one parameter; the first one that is asked for decides on all."""
        if not self._proposed:
            self._proposed = True
            self._shares |= self.propose(study, trial)
        return super().sample_independent(study, trial, param_name, param_distribution)

    def propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        """Shares of the parameters that count at the best point; empty while too few trials are finished."""
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.params]
        complete = [t for t in others if t.state == TrialState.COMPLETE and "duplicate_of" not in t.user_attrs]
        if len(complete) < STARTUP:
            return {}
        tried = self._inputs(others)
        gain = _Gain(
            self._inputs(known := _some(complete)),
            np.array([t.values for t in known], np.float64),
            running=self._inputs([t for t in others if t.state == TrialState.RUNNING]),
            left=self._inputs([t for t in others if t.user_attrs.get("cause") == "dominated"][-MOST_LEFT:]),
            failed=self._inputs(
                [t for t in others if t.state == TrialState.FAIL and not t.user_attrs.get("requeue")][-MOST_LEFT:]
            ),
            reference=self._reference,
        )
        front = np.stack([self._coordinates.shares(known[k].params) for k in gain.front if k < len(known)])
        fixed = self._coordinates.shares(fixed_params(trial))
        best = self._search(gain, tried, np.clip(front, 0.0, 1.0), fixed)
        return {name: min(float(share), 1.0 - 1e-12) for name, share in zip(self._coordinates.names, best, strict=True)
                if not np.isnan(share)}  # fmt: skip

    def _inputs(self, trials: Sequence[FrozenTrial]) -> Array:
        shares = [self._coordinates.shares(trial.params) for trial in trials]
        return self._coordinates.inputs(np.array(shares, np.float64).reshape(len(trials), len(self._coordinates.names)))

    def _search(self, gain: _Gain, tried: Array, front: Array, fixed: Array) -> Array:
        """Shares of the candidate with the greatest gain, of those that have not been tried."""
        d = front.shape[1]
        shares = qmc.Sobol(d, seed=self._seed).random(SPREAD)
        found, gains = np.empty((0, d)), np.empty(0)
        known = {row.tobytes() for row in tried.round(9) + 0.0}
        for _ in range(ROUNDS + 1):
            shares = self._coordinates.at(np.where(np.isnan(fixed), shares, fixed))
            inputs = self._coordinates.inputs(shares)
            new = np.array([row.tobytes() not in known for row in inputs.round(9) + 0.0])
            found = np.concatenate([found, shares])
            gains = np.concatenate([gains, np.where(new, gain(inputs), -1.0)])
            kept = np.argsort(-gains, kind="stable")[:PARENTS]
            shares = self._near(np.concatenate([found[kept], front]))
        return found[int(np.argmax(gains))]

    def _near(self, parents: Array) -> Array:
        """Candidates that differ a little from the parents, in about half of their parameters."""
        chosen = parents[self._rng.integers(len(parents), size=NEAR)]
        step = self._rng.choice(STEPS, size=(NEAR, 1))
        moved = chosen + self._rng.normal(size=chosen.shape) * step
        choices = np.array([parameter.kind == "choice" for parameter in self._coordinates.space.parameters])
        anew = np.isnan(chosen) | (choices & (self._rng.random(chosen.shape) < 2 * step))
        moved = np.where(anew, self._rng.random(chosen.shape), np.where(choices, chosen, np.clip(moved, 0.0, 1.0)))
        return np.where(anew | (self._rng.random(chosen.shape) < 0.6), moved, chosen)


class _Gain:
    """Expected gain of hypervolume at model inputs."""

    def __init__(
        self,
        inputs: Array,
        values: Array,
        *,
        running: Array,
        left: Array,
        failed: Array,
        reference: Sequence[float] | None,
    ) -> None:
        logs = np.log(np.maximum(values, 1e-12))
        corner = values.max(axis=0) * 1.1 if reference is None else np.asarray(reference, np.float64)
        self._costs = [Process(inputs, column) for column in logs[:, 1:].T]
        # What is near to a trial that has come to nothing is not to be tried again and again: one that failed is as
        # bad as the worst, one that was left as good as the best that costs no more.
        bad = np.full(len(failed), logs[:, 0].max())
        costs = np.column_stack([process(left)[0] for process in self._costs])
        cheaper = (logs[:, 1:] <= costs[:, None] + CLOSE).all(axis=2)
        no_better = np.where(cheaper, logs[:, 0], np.inf).min(axis=1)
        sure = np.isfinite(no_better)
        self._fid = Process(
            np.concatenate([inputs, failed, left[sure]]), np.concatenate([logs[:, 0], bad, no_better[sure]])
        )
        # The front of what the model makes of the trials: a lucky FID would forbid its neighbourhood.
        believed = np.concatenate([np.column_stack([np.exp(self._fid(inputs)[0]), values[:, 1:]]), self._mean(running)])
        self.front = front_indices(believed)
        self._room = Room(tuple(corner))
        for k in self.front:
            self._room.add(believed[k])

    def __call__(self, inputs: Array) -> Array:
        mean, spread = self._fid(inputs)
        fid = np.exp(mean)
        return self._room.expected_gain(fid, fid * spread, self._mean(inputs)[:, 1:])

    def _mean(self, inputs: Array) -> Array:
        if not len(inputs):
            return np.empty((0, 1 + len(self._costs)))
        return np.exp(np.column_stack([process(inputs)[0] for process in (self._fid, *self._costs)]))


def _some(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """At most ``MOST`` trials: the front, and others from all over the study's time."""
    if len(trials) <= MOST:
        return trials
    front = front_indices([trial.values for trial in trials])[-MOST:]
    rest = sorted(set(range(len(trials))) - set(front))
    spread = np.linspace(0, len(rest) - 1, MOST - len(front)).astype(int)
    return [trials[k] for k in sorted({*front, *(rest[k] for k in spread)})]

"""Where a study stands: its front, how much that is worth, and how long the rest will take."""

from __future__ import annotations

import datetime
import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from gs_search.results.pareto import front_indices, hypervolume, reference_point
from gs_search.search.storage import is_counted

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.search.study_database import StudyDatabase

__all__ = ["Reference", "Rest", "Standing", "cost", "reference_of", "rest", "seconds_to_go", "standing"]

RECENT = 50
"""So many of the last trials say how long the next ones take: later proposals are others than the first ones."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a study is."""

    done: int
    """Finished trials of the study, those of earlier runs included."""
    total: int
    front: tuple[int, ...]
    """Numbers of the trials on the front."""
    infeasible: tuple[int, ...] = ()
    """Numbers of the complete trials that miss a constraint."""
    hypervolume: float | None
    """Share of the box between zero and the reference point that the front dominates, 0..1; None without
    one."""
    seconds_left: float | None
    """None before anything can be said."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What is still to come in a run."""

    seconds: float | None
    """Until the number of trials is reached or time is up, whichever is earlier; None before anything can be said."""
    limit: str | None = None
    """``trials`` or ``hours``: which of the two it is."""
    finished: int | None = None
    """About how many trials will be finished then."""


Reference = tuple[float, float, float]
"""(fid, gflops, size_mb) from which hypervolume is measured."""


def reference_of(folder: RunFolder) -> Reference | None:
    """Reference point of a study; None before it was prepared. Raises BadInput where its baselines are torn."""
    return reference_point(folder.measured()) if folder.baselines.is_file() else None


def standing(
    database: StudyDatabase,
    reference: Reference | None,
    total: int,
    workers: int,
    *,
    ends: float | None = None,
    trials: Sequence[FrozenTrial] | None = None,
) -> Standing:
    """Judge all complete trials of the database; those that miss a constraint are on no front.

    Args:
        total: finished trials to reach.
        workers: trials at once.
        ends: ``time.time()`` at which time will be up.
        trials: all of the study, where the caller has them at hand.
    """
    trials = database.trials() if trials is None else trials
    infeasible = tuple(t.number for t in database.feasibility.infeasible(trials))
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.number not in infeasible]
    points = np.array([t.values for t in complete], np.float64).reshape(len(complete), 3)
    best = front_indices(points)
    volume = None
    if reference is not None:
        volume = hypervolume(points[best], reference) / math.prod(reference)
    left = rest(trials, total, workers, ends=ends).seconds
    done = sum(map(is_counted, trials))
    front = tuple(complete[index].number for index in best)
    return Standing(done=done, total=total, front=front, infeasible=infeasible, hypervolume=volume, seconds_left=left)


def cost(trial: FrozenTrial) -> float | None:
    """Seconds that a finished trial has cost this study; None where nobody knows, as of a worker that was killed."""
    told = trial.user_attrs
    free = told.get("duplicate_of") is not None or "warm_start" in told or told.get("cause") == "infeasible"
    seconds = 0.0 if free else told.get("seconds")
    return None if seconds is None else float(seconds)


def rest(trials: Sequence[FrozenTrial], total: int, workers: int, *, ends: float | None = None) -> Rest:
    """Estimate what a run has before it, from the mean cost of the last trials of whatever ending.

    Args:
        trials: all of the study.
        total: finished trials to reach.
        workers: trials at once.
        ends: ``time.time()`` at which time will be up.
    """
    counted = [t for t in trials if is_counted(t)]
    recent = heapq.nlargest(RECENT, counted, key=lambda t: (t.datetime_complete or datetime.datetime.min, t.number))
    costs = [seconds for t in recent if (seconds := cost(t)) is not None]
    whole = [s for t in recent if t.state == TrialState.COMPLETE and (s := cost(t))]
    # While none has run to its end, those that were stopped or failed say nothing about the next.
    if not whole:
        clock = None if ends is None else max(0.0, ends - time.time())
        return Rest(seconds=clock, limit=None if clock is None else "hours")
    mean, usual = sum(costs) / len(costs), float(np.median(whole))
    now = datetime.datetime.now()
    elapsed = [(now - t.datetime_start).total_seconds() for t in trials if _runs(t) and t.datetime_start]
    # One that has outlived the mean is most likely none of those that are stopped early.
    owed = [max(0.0, (usual if spent > mean else mean) - max(0.0, spent)) for spent in elapsed]
    queued = max(0, total - len(counted) - len(owed))
    by_trials = seconds_to_go(mean, queued, workers, owed)
    # Nothing starts after the end; what runs then is waited for.
    clock = math.inf if ends is None else max([ends - time.time(), 0.0, *owed])
    if by_trials <= clock:
        return Rest(seconds=by_trials, limit="trials", finished=total)
    more = sum(int((clock - start) / mean) for start in _starts(owed, workers))
    return Rest(seconds=clock, limit="hours", finished=min(total, len(counted) + len(owed) + more))


def seconds_to_go(mean: float, queued: int, workers: int, owed: Sequence[float] = ()) -> float:
    """Time until the last of ``queued`` trials of ``mean`` seconds ends, each begun by the first free worker.

    Args:
        owed: seconds that the trials which run now still need.
    """
    if mean <= 0:
        return max(owed, default=0.0)
    starts = _starts(owed, workers)
    heapq.heapify(starts)
    # A few trials until all workers are at most one trial apart; then every round is like the one before.
    last = max(starts)
    while queued and last - starts[0] > mean:
        heapq.heapreplace(starts, starts[0] + mean)
        queued -= 1
    rounds, further = divmod(queued, len(starts))
    return max(start + mean * (rounds + (place < further)) for place, start in enumerate(sorted(starts)))


def _starts(owed: Sequence[float], workers: int) -> list[float]:
    """When each worker is free."""
    return [*owed, *[0.0] * max(workers - len(owed), 0 if owed else 1)]


def _runs(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING

"""What the search has reached for its cost: the hypervolume of the front after each trial.

Cost is the time of one worker: the seconds of all trials so far, whatever became of them. Points answered from the
record, and trials taken over from an earlier study, cost nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gs_search.results.hypervolume import Volume

__all__ = ["Gain", "Spent", "hypervolume_series"]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """One ended trial, as the series sees it."""

    number: int
    seconds: float
    objectives: tuple[float, float, float] | None
    """None where it counts for no front: stopped, failed or infeasible."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Where the search stood when a trial had ended."""

    number: int
    trials: int
    """Trials so far, this one included."""
    seconds: float
    """Seconds of all of them."""
    hypervolume: float
    """Share, 0..1, of the box from zero to the reference point that the front dominates."""
    gained: float
    """What this trial has added to it."""


def hypervolume_series(trials: Iterable[Spent], reference: Sequence[float]) -> tuple[Gain, ...]:
    """Follow the hypervolume through trials in the order of their ends."""
    volume, box = Volume(reference), math.prod(reference)
    series: list[Gain] = []
    seconds = 0.0
    for count, trial in enumerate(trials, start=1):
        gained = 0.0 if trial.objectives is None else volume.add(trial.objectives)
        seconds += trial.seconds
        series.append(
            Gain(
                number=trial.number,
                trials=count,
                seconds=seconds,
                hypervolume=volume.value / box,
                gained=gained / box,
            )
        )
    return tuple(series)

"""Where a study stands: its front, how much that is worth, and how long the rest will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from gs_search.front import front_indices, hypervolume, reference_point

if TYPE_CHECKING:
    from gs_search.runfolder import RunFolder
    from gs_search.search.database import StudyDatabase

__all__ = ["Baselines", "Standing", "standing"]


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
    baselines."""
    seconds_left: float | None
    """None before anything can be said."""


@dataclass(frozen=True)
class Baselines:
    """The reference point of a study, (fid, gflops, size_mb); None before the study was prepared."""

    reference: tuple[float, float, float] | None

    @classmethod
    def read(cls, folder: RunFolder) -> Baselines:
        """Read ``teacher/baselines.json``; raises BadInput where it is torn."""
        if not folder.baselines.is_file():
            return cls(None)
        return cls(reference_point(folder.read_json(folder.baselines)))


def standing(database: StudyDatabase, baselines: Baselines, total: int, workers: int) -> Standing:
    """Judge all complete trials of the database; those that miss a constraint are on no front.

    Args:
        total: finished trials to reach.
        workers: trials at once.
    """
    trials = database.trials()
    infeasible = tuple(t.number for t in database.feasibility.infeasible(trials))
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.number not in infeasible]
    points = np.array([t.values for t in complete], np.float64).reshape(len(complete), 3)
    front = tuple(complete[index].number for index in front_indices(points))
    volume = None
    if baselines.reference is not None:
        volume = hypervolume(points, baselines.reference) / math.prod(baselines.reference)
    done = database.counted()
    usual = database.usual_seconds()
    left = None if usual is None else usual * math.ceil(max(0, total - done) / workers)
    return Standing(done=done, total=total, front=front, infeasible=infeasible, hypervolume=volume, seconds_left=left)

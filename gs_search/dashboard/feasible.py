"""Which trials of a study keep its constraints, and the front of those, as the study database tells it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from gs_search.results.pareto import front_indices

__all__ = ["CONSTRAINTS", "feasible_front"]

CONSTRAINTS = "constraints"
"""System attribute by which optuna-dashboard tells feasible trials from others: a list, above 0 where one is missed."""


def feasible_front(trials: Sequence[FrozenTrial], directions: Sequence[object]) -> list[FrozenTrial]:
    """Complete trials that keep the constraints and that no other such trial beats; all objectives are minimised."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and not _misses(trial)]
    values = np.array([trial.values for trial in complete], np.float64).reshape(len(complete), len(directions))
    return [complete[index] for index in front_indices(values)]


def _misses(trial: FrozenTrial) -> bool:
    return any(share > 0 for share in trial.system_attrs.get(CONSTRAINTS) or ())

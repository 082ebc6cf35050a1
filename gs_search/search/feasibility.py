"""Which trials keep the study's constraints, told before a training where that can be, and after it.

``gs_search.study.constraints`` has the arithmetic; here it meets the run folder and Optuna's attributes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gs_search.errors import GsSearchError
from gs_search.results.pareto import OBJECTIVES, reference_point
from gs_search.study.constraints import is_feasible, resolve, too_large_to_start, violations

if TYPE_CHECKING:
    from gs_search.results.record import Baselines, TrialRecord
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig
    from gs_search.study.space import Parameter, SearchSpace

__all__ = ["Feasibility", "constraint_attributes"]

TARGET = "target_gflops_ratio"

MAX_REFUSED = 50
"""So many points in a row that may not even start are no accident of the sampler."""


def constraint_attributes(violated: Mapping[str, float]) -> dict[str, Any]:
    """System attributes that a trial gets from its violations, before it is told.

    By name for Optuna 5 (``trial.constraints``), and the largest once more in the list of Optuna 4, by which
    optuna-dashboard 0.21 tells feasible trials from others.
    """
    named: dict[str, Any] = {f"constraints:{name}": share for name, share in violated.items()}
    return {**named, "constraints": [max(violated.values())]} if violated else {}


class Feasibility:
    """The judge of one study. Knows nothing of the database."""

    def __init__(self, folder: RunFolder, config: StudyConfig) -> None:
        self._folder = folder
        self._config = config
        self._refused_in_a_row = 0

    def limits(self) -> dict[str, float]:
        """What the study's constraints come to, as far as the teacher has been measured."""
        return resolve(
            self._config.constraints.model_dump(), None if (found := self._baselines()) is None else found.teacher.fid
        )

    def violations(self, record: TrialRecord) -> dict[str, float]:
        """Share by which a trial exceeds each limit; of one without a student, what it says itself."""
        if not record.is_complete:
            return dict(record.constraints or {})
        return violations(record.values, self.limits())

    def infeasible(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Complete trials that miss a constraint."""
        limits = self.limits()
        if not limits:
            return []
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        return [
            t for t in complete if not is_feasible(violations(dict(zip(OBJECTIVES, t.values, strict=True)), limits))
        ]

    def corner(self) -> tuple[float, ...] | None:
        """The reference point, or the constraints where they are narrower; None before the teacher was measured.

        What lies beyond it is worth nothing.
        """
        baselines, limits = self._baselines(), self.limits()
        if baselines is None:
            return None
        names = ("max_fid", "max_gflops", "max_mb")  # in the order of the objectives
        return tuple(min(a, limits.get(n, a)) for n, a in zip(names, reference_point(baselines), strict=True))

    def space(self) -> SearchSpace:
        """The study's space without what ``max_gflops`` rules out, as far as the teacher has been measured.

        GP and the genetic samplers see complete trials only: they would propose for ever what never starts.
        """
        space, limit, baselines = self._config.space, self.limits().get("max_gflops"), self._baselines()
        if limit is None or baselines is None:
            return space
        highest = limit / baselines.teacher.gflops
        narrowed = [_narrowed(p, highest) if p.name == TARGET else p for p in space.parameters]
        return dataclasses.replace(space, parameters=tuple(narrowed))

    def before_training(self, point: Mapping[str, Any]) -> tuple[dict[str, float], str]:
        """Violations of a point that is too large to be worth a training, and the words for it; else empty."""
        limits, baselines = self.limits(), self._baselines()
        target = point.get(TARGET, self._config.settings.get(TARGET))
        gflops = 0.0 if baselines is None else baselines.teacher.gflops
        violated = too_large_to_start(target, limits, gflops)
        if not violated:
            self._refused_in_a_row = 0
            return {}, ""
        self._refused_in_a_row += 1
        return violated, f"asks for {target * gflops:.4g} GFLOPs; max_gflops is {limits['max_gflops']:.4g}"

    def check_hope(self) -> None:
        """Raises GsSearchError after too many refusals in a row: the search would go on like this."""
        if self._refused_in_a_row < MAX_REFUSED:
            return
        limit, gflops = self.limits()["max_gflops"], self._folder.measured().teacher.gflops
        raise GsSearchError(
            f"stopped after {MAX_REFUSED} points in a row that max_gflops {limit:g} rules out; it allows a "
            f"target_gflops_ratio of at most {limit / gflops:.4g}: lower its range in the "
            "search space, or raise the limit"
        )

    def _baselines(self) -> Baselines | None:
        return self._folder.measured() if self._folder.baselines.is_file() else None


def _narrowed(parameter: Parameter, highest: float) -> Parameter:
    """The parameter up to ``highest``; as it is where nothing would be left, or where its values are choices."""
    if parameter.kind == "choice" or not parameter.low <= highest < parameter.high:
        return parameter
    if parameter.step:
        # The tolerance: a limit that is meant to be on the grid is.
        highest = parameter.low + parameter.step * math.floor((highest - parameter.low) / parameter.step + 1e-9)
    return dataclasses.replace(parameter, high=highest)

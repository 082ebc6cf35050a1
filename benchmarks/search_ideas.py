"""Ideas for a better search that were tried, on top of the study's own code: what stopped trials could still be worth.

Each follows from the records of a study alone, so that it would survive a kill, and from no random number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from benchmarks.search_clock import MemoryDatabase
from gs_search.results.pareto import hypervolume
from gs_search.results.record import Rung
from gs_search.search.samplers import make_sampler
from gs_search.search.stopping import Rungs, Verdict
from gs_search.search.storage import quiet

__all__ = ["FidRungs", "Foretold", "ScreeningRungs", "ShadowDatabase"]

LEAST = 8
"""Finished trials from which on FID is foretold."""


class Foretold:
    """FID at the end from the distance to the teacher at a rung: the least-squares curve that never rises.

    Args:
        pairs: decibels and final FID of finished trials.
    """

    def __init__(self, pairs: Sequence[tuple[float, float]]) -> None:
        # Pool adjacent violators: neighbours out of order share their mean.
        pools: list[list[float]] = []  # decibels, FID, number
        for decibels, fid in sorted(pairs):
            pools.append([decibels, fid, 1.0])
            while len(pools) > 1 and pools[-2][1] <= pools[-1][1]:
                (x0, y0, n0), (x1, y1, n1) = pools[-2:]
                pools[-2:] = [[(x0 * n0 + x1 * n1) / (n0 + n1), (y0 * n0 + y1 * n1) / (n0 + n1), n0 + n1]]
        self._x, self._y = (np.array(column) for column in list(zip(*pools, strict=True))[:2])

    def __call__(self, decibels: float) -> float:
        return float(np.interp(decibels, self._x, self._y))


def foretold(database: MemoryDatabase, step: int) -> Foretold | None:
    """The curve of a rung; None while too few trials are finished."""
    pairs = [
        (report.psnr_to_teacher, record.fid)
        for record in database.results.values()
        if record.is_complete and record.duplicate_of is None
        for report in record.rungs
        if report.step == step
    ]
    return Foretold(pairs) if len(pairs) >= LEAST else None


class ShadowDatabase(MemoryDatabase):
    """Proposals from a study in which a trial that was left at a rung is complete, with the FID foretold there."""

    def next_sampler(self) -> BaseSampler:
        """A sampler that repeats what the study's own proposes to the shadow."""
        names = [parameter.name for parameter in self.config.space.parameters]
        with quiet():
            shadow = optuna.create_study(directions=["minimize"] * 3, sampler=super().next_sampler())
            shadow.add_trials([trial for trial in map(self._shadow, self.trials()) if trial is not None])
            point = self.config.space.suggest(shadow.ask())
        # The fallback draws what the point lacks, which is nothing.
        rest = make_sampler("random", turn=0, turn_seed=0, study_seed=0, parameters=names)
        return optuna.samplers.PartialFixedSampler(point, rest)

    def _shadow(self, trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial | None:
        record = self.results.get(trial.number)
        if trial.state == TrialState.PRUNED and record is not None and record.rungs:
            last = record.rungs[-1]
            curve = foretold(self, last.step)
            if curve is None:
                return trial
            values = [curve(last.psnr_to_teacher), last.gflops, last.size_mb]
            return create_trial(values=values, params=trial.params, distributions=trial.distributions)
        return None if trial.state == TrialState.WAITING else trial


class FidRungs(Rungs):
    """Dominance by the FID that is foretold at the rung, where decibels that FID does not see save nobody.

    Args:
        margin_fid: by which another trial must be better.
    """

    def __init__(self, database: MemoryDatabase, margin_fid: float) -> None:
        super().__init__("pareto", 0.0)
        self.database, self.margin_fid = database, margin_fid

    def judge(self, number: int, report: Rung) -> Verdict | None:
        step = report.step
        curve = foretold(self.database, step)
        others = dict(self._reports.get(step, {}))
        self.remember(number, [report])
        if curve is None:
            return None
        fid = curve(report.psnr_to_teacher)
        for other, theirs in others.items():
            better = fid - curve(theirs.psnr_to_teacher) > self.margin_fid
            if better and all(getattr(theirs, name) <= getattr(report, name) for name in ("gflops", "size_mb")):
                return Verdict(step, other, float(theirs.psnr_to_teacher - report.psnr_to_teacher))
        return None


class ScreeningRungs(Rungs):
    """Of every ``many`` students looked at before any training, about one is trained: those with the largest gains.

    The gain is that of hypervolume with the FID foretold at rung 0, over the front of the finished trials. A student
    goes on where it is among the best ``1 / many`` of the last 16 gains, its own included.
    """

    LAST = 16

    def __init__(self, database: MemoryDatabase, many: int, reference: Sequence[float]) -> None:
        super().__init__("off", 0.0)
        self.database, self.many, self.reference = database, many, reference
        self._looks: list[tuple[float, float, float]] = []

    def judge(self, number: int, report: Rung) -> Verdict | None:
        super().judge(number, report)
        curve = foretold(self.database, 0)
        if report.step or curve is None:
            return None
        self._looks.append((report.psnr_to_teacher, report.gflops, report.size_mb))
        complete = [t.values for t in self.database.trials() if t.state == TrialState.COMPLETE]
        whole = hypervolume(complete, self.reference)
        gains = [
            hypervolume([*complete, [curve(psnr), *costs]], self.reference) - whole
            for psnr, *costs in self._looks[-self.LAST :]
        ]
        rank = sum(gain > gains[-1] for gain in gains)
        return Verdict(0, number, 0.0) if rank * self.many >= len(gains) else None

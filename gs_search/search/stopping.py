"""Who is left at a rung: Pareto-aware stopping, without Ray.

A fixed share of a rung's trials may not be stopped: of random points nearly half are on a front of three objectives.
So a trial stops only where an earlier one *dominates* it there by more than the noise: nearer to the teacher by a
margin, with neither more multiply-adds nor more bytes. Both of these are final at every rung, and the distance of a
repaired student before training ranks the end of the trial (``studies/README.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gs_search.results.record import Rung, TrialRecord

__all__ = ["Rungs", "Verdict", "agreement", "savings"]

SAME = 1e-9
"""Share by which two costs may differ and still be equal."""


@dataclass(frozen=True)
class Verdict:
    """Why a trial is left."""

    step: int
    by: int
    margin_db: float

    def __str__(self) -> str:
        return (
            f"at {self.step} steps trial {self.by} is {self.margin_db:.2f} dB nearer to the teacher, "
            "and needs neither more multiply-adds nor more bytes"
        )


class Rungs:
    """What all trials of a study have told at each rung.

    Args:
        rule: ``pareto``, or ``off``: nobody is left.
        margin_db: decibels by which another trial must be nearer.
    """

    def __init__(self, rule: str, margin_db: float) -> None:
        self.rule, self.margin_db = rule, margin_db
        self._reports: dict[int, dict[int, Rung]] = {}

    def remember(self, number: int, reports: Iterable[Rung]) -> None:
        """Take over what a trial has told before."""
        for report in reports:
            self._reports.setdefault(report.step, {})[number] = report

    def judge(self, number: int, report: Rung) -> Verdict | None:
        """Remember what a trial tells, and say by which other one it is dominated, or None where by none."""
        others = self._reports.setdefault(report.step, {})
        verdict = None if self.rule == "off" else self._worst(number, report, others)
        others[number] = report
        return verdict

    def _worst(self, number: int, report: Rung, others: Mapping[int, Rung]) -> Verdict | None:
        best: Verdict | None = None
        for other, theirs in others.items():
            cheaper = all(getattr(theirs, n) <= getattr(report, n) * (1 + SAME) for n in ("gflops", "size_mb"))
            nearer = theirs.psnr_to_teacher - report.psnr_to_teacher
            if other != number and cheaper and nearer > self.margin_db and (best is None or nearer > best.margin_db):
                best = Verdict(report.step, other, float(nearer))
        return best


def agreement(records: Iterable[TrialRecord]) -> dict[int, tuple[float, int]]:
    """How well each rung foretold the end: Spearman's rank correlation of its distance with the final FID.

    Args:
        records: only complete ones with rungs count.

    Returns:
        step of the rung to the correlation (1: the same order) and the number of trials; rungs of fewer than three
        trials are left out.
    """
    pairs: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        if record.is_trained:
            for report in record.rungs:
                pair = (-report.psnr_to_teacher, record.fid)
                pairs.setdefault(report.step, []).append(pair)
    found = {}
    for step, points in sorted(pairs.items()):
        if len(points) >= 3:
            ranks = [_ranks(np.array(column)) for column in zip(*points, strict=True)]
            if all(rank.std() > 0 for rank in ranks):
                found[step] = (float(np.corrcoef(ranks[0], ranks[1])[0, 1]), len(points))
    return found


def savings(records: Iterable[TrialRecord]) -> dict[str, Any]:
    """How many trials were left at each rung, and about how many seconds that has saved.

    Returns:
        ``stopped`` (step to number of trials) and ``seconds``: each of them would have taken a median trial's time.
    """
    stopped: dict[int, int] = {}
    spent: list[float] = []
    whole: list[float] = []
    for record in records:
        if record.state == "PRUNED" and record.rungs:
            step = record.rungs[-1].step
            stopped[step] = stopped.get(step, 0) + 1
            spent.append(record.rungs[-1].seconds)
        elif record.is_trained and record.seconds:
            whole.append(record.seconds)
    usual = float(np.median(whole)) if whole else 0.0
    return {"stopped": dict(sorted(stopped.items())), "seconds": sum(max(0.0, usual - s) for s in spent)}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]

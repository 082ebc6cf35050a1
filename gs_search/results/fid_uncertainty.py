"""How far apart two FIDs must be to differ: ties under noise, and what other seeds say about an order. No files.

A FID is one draw: of the pictures that it is measured on, and of the seed that its student was trained with. Without
repeated trainings only the first is known, as the standard deviation of the teacher's FID (``noise`` of the
baselines). Trials that were trained again with other seeds, and measured on other subsets of the pictures, tell both.
Everything here is at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gs_search.results.pareto import front_indices

__all__ = ["Reading", "describe", "gap", "interval", "order_of", "tie_margin", "ties"]

TAIL = 0.975
NORMAL = 1.959964
"""Quantile of the normal distribution at ``TAIL``."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is known of a student's FID."""

    first: float
    """Of the run that the search made. Among the members of a front it is too low on average, for they were chosen
    by it; so it is no part of ``mean``."""
    others: tuple[float, ...] = ()
    """Of the runs with other seeds."""
    subsets: tuple[tuple[float, ...], ...] = ()
    """One row for each of ``others``: its FID on random halves of the pictures, the same halves in every row."""

    @property
    def mean(self) -> float:
        """Over the other seeds; where there are none, the first run's."""
        return sum(self.others) / len(self.others) if self.others else self.first

    @property
    def subset_std(self) -> float | None:
        """Standard deviation of the FID over other pictures; None where there are no other runs.

        The spread over random halves, drawn without replacement, is that of the whole set: a half has twice the
        variance, and half of it is shared.
        """
        rows = np.asarray(self.subsets, np.float64)
        return float(rows.mean(axis=0).std(ddof=1)) if rows.size and rows.shape[1] > 1 else None


def tie_margin(fid_std: float) -> float:
    """Difference of two FIDs, of one run each, that chance exceeds in one of 20 cases.

    Args:
        fid_std: standard deviation of one FID.
    """
    return NORMAL * math.sqrt(2.0) * fid_std


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Confidence interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    data = np.asarray(values, np.float64)
    half = _quantile(len(data) - 1) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return float(data.mean()) - half, float(data.mean()) + half


def gap(a: Reading, b: Reading, fid_std: float) -> tuple[float, float]:
    """How much higher the FID of ``b`` is, and how much chance alone would explain.

    With two other seeds or more of both: the difference of the means, and Welch's interval over the seeds together
    with the spread over subsets of the pictures, pair by pair. Else the difference of the first runs, and
    ``tie_margin``.
    """
    if min(len(a.others), len(b.others)) < 2:
        return b.first - a.first, tie_margin(fid_std)
    parts = [float(np.var(one.others, ddof=1)) / len(one.others) for one in (a, b)]
    seeds = sum(parts)
    freedom = sum(part**2 / (len(one.others) - 1) for part, one in zip(parts, (a, b), strict=True))
    half = _quantile(seeds**2 / freedom) * math.sqrt(seeds) if freedom > 0 else 0.0
    pictures = 0.0
    if a.subsets and b.subsets and len(a.subsets[0]) == len(b.subsets[0]) > 1:
        pictures = float(np.std(np.mean(a.subsets, axis=0) - np.mean(b.subsets, axis=0), ddof=1))
    return b.mean - a.mean, math.hypot(half, NORMAL * pictures)


def ties(readings: Sequence[Reading], fid_std: float) -> list[list[int]]:
    """Find for each reading those that its FID does not differ from: no groups, because ties are not transitive.

    Returns:
        Rising indices, one list for each reading.
    """
    found: list[list[int]] = [[] for _ in readings]
    for i in range(len(readings)):
        for j in range(i + 1, len(readings)):
            difference, margin = gap(readings[i], readings[j], fid_std)
            if abs(difference) <= margin:
                found[i].append(j)
                found[j].append(i)
    return found


def order_of(readings: Sequence[Reading], costs: Sequence[Sequence[float]], fid_std: float) -> dict[str, Any] | None:
    """Say whether the order by FID survives other seeds, over the readings that have any; None below two of them.

    Args:
        costs: the other objectives of each reading.

    Returns:
        ``members`` that were run again, ``seeds`` of them (least and most), ``kendall_tau`` between the first runs and
        the means (None where all tie), ``pairs``, how many of them are ``decided`` by the other seeds and how many of
        these are ``turned``, ``beaten``: indices of readings that another one beats in everything once the means
        count, ``shift``: how much higher the means are on average than the first runs.
    """
    again = [index for index, reading in enumerate(readings) if reading.others]
    if len(again) < 2:
        return None
    agree = turned = decided = 0
    first_ties = mean_ties = 0
    pairs = len(again) * (len(again) - 1) // 2
    for place, i in enumerate(again):
        for j in again[place + 1 :]:
            before, after = readings[j].first - readings[i].first, readings[j].mean - readings[i].mean
            agree += int(np.sign(before) * np.sign(after))
            first_ties, mean_ties = first_ties + (before == 0), mean_ties + (after == 0)
            if min(len(readings[i].others), len(readings[j].others)) >= 2:
                difference, margin = gap(readings[i], readings[j], fid_std)
                decided += abs(difference) > margin
                turned += abs(difference) > margin and difference * before < 0
    scale = math.sqrt((pairs - first_ties) * (pairs - mean_ties))
    points = [[readings[index].mean, *costs[index]] for index in again]
    kept = {again[index] for index in front_indices(points)}
    counts = [len(readings[index].others) for index in again]
    return {
        "members": len(again),
        "seeds": [min(counts), max(counts)],
        "kendall_tau": agree / scale if scale else None,
        "pairs": pairs,
        "decided": decided,
        "turned": turned,
        "beaten": [index for index in again if index not in kept],
        "shift": sum(readings[index].mean - readings[index].first for index in again) / len(again),
    }


def describe(reading: Reading, failed: int) -> Mapping[str, Any] | None:
    """A reading as documents have it; None where nothing was run again."""
    if not reading.others and not failed:
        return None
    bounds = interval(reading.others)
    return {
        "seeds": len(reading.others),
        "failed": failed,
        "fids": list(reading.others),
        "mean": reading.mean if reading.others else None,
        "std": float(np.std(reading.others, ddof=1)) if len(reading.others) > 1 else None,
        "low": None if bounds is None else bounds[0],
        "high": None if bounds is None else bounds[1],
        "subset_std": reading.subset_std,
    }


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit  # a third of a second, for those only who have run something again

    return float(stdtrit(freedom, TAIL))

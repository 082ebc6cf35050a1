"""Dominance, the front, its hypervolume and its knee. Pure numpy; all objectives are minimised.

A point dominates another one if it is at most as large in every objective and smaller in one. Points are rows
of an n x m array. A row with a value that is not finite stands for a trial without a result: it dominates
nothing and is on no front.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gs_search.errors import NothingFeasible

if TYPE_CHECKING:
    from gs_search.results.record import Baselines

__all__ = ["OBJECTIVES", "dominates", "front_indices", "hypervolume", "knee", "reference_point", "scaled"]

OBJECTIVES = ("fid", "gflops", "size_mb")
"""Names of the objectives, in the order of the columns everywhere."""


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Tell whether point ``a`` dominates point ``b``; never so where one of them is not finite."""
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return False
    return bool((left <= right).all() and (left < right).any())


def front_indices(points: ArrayLike) -> list[int]:
    """Find the points that no other point dominates.

    Equal points do not dominate each other; of equal points on the front the one with the lowest index stands
    for all.

    Args:
        points: n x m.

    Returns:
        Indices in rising order; empty where no row is finite.
    """
    rows = _rows(points)
    if rows.size == 0:
        return []
    finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
    # In lexicographic order no point is dominated by a later one, so the front only ever grows. lexsort is
    # stable: of equal points the one with the lowest index comes first.
    left = finite[np.lexsort(rows[finite].T[::-1])]
    front: list[int] = []
    while left.size:
        front.append(int(left[0]))
        left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return sorted(front)


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """Measure the volume between the points and ``reference``: what at least one of the points dominates.

    Exact for one, two and three objectives. Points that are not below ``reference`` in every objective, and
    rows that are not finite, add nothing.

    Args:
        points: n x m, m at most 3.
        reference: m values.
    """
    corner = np.asarray(reference, np.float64)
    rows = _rows(points)
    if rows.size == 0:
        return 0.0
    if rows.shape[1] != corner.size or corner.size not in (1, 2, 3):
        raise ValueError(f"{rows.shape[1]} objectives and a reference of {corner.size}; 1 to 3 are supported")
    inside = rows[np.isfinite(rows).all(axis=1) & (rows < corner).all(axis=1)]
    if inside.size == 0:
        return 0.0
    if corner.size == 1:
        return float(corner[0] - inside.min())
    # From the nearest along the last objective to the farthest: between two of them the cross-section is the area
    # that the points up to there dominate. Of two objectives it is the whole.
    steps = _Staircase(float(corner[0]), float(corner[1]))
    if corner.size == 2:
        for x, y in inside.tolist():
            steps.add(x, y)
        return steps.area
    volume, last = 0.0, -np.inf
    for x, y, z in inside[np.argsort(inside[:, 2], kind="stable")].tolist():
        volume += steps.area * (z - last) if steps.area else 0.0
        last = z
        steps.add(x, y)
    return float(volume + steps.area * (corner[2] - last))


class _Staircase:
    """The area between points of the plane and a corner, as points come in: x rises, y falls from step to step."""

    def __init__(self, right: float, top: float) -> None:
        self._right, self._top = right, top
        self._x: list[float] = []
        self._y: list[float] = []
        self.area = 0.0

    def add(self, x: float, y: float) -> None:
        """Take a point in, which lies below the corner."""
        first = bisect.bisect_left(self._x, x)
        before = self._y[first - 1] if first else self._top
        if before <= y or (first < len(self._x) and self._x[first] == x and self._y[first] <= y):
            return
        end, left, upper = first, x, before
        while end < len(self._x) and self._y[end] >= y:  # steps that it makes needless
            self.area += (self._x[end] - left) * (upper - y)
            left, upper = self._x[end], self._y[end]
            end += 1
        self.area += ((self._x[end] if end < len(self._x) else self._right) - left) * (upper - y)
        self._x[first:end], self._y[first:end] = [x], [y]


def knee(points: ArrayLike) -> int:
    """Find the most balanced point: the nearest to the best value of every objective.

    Each objective is scaled to 0..1 on the front; those in which the front does not differ do not count. Of
    equally near points the first one is taken.

    Returns:
        The index of a point on the front of ``points``.

    Raises:
        NothingFeasible: no row is finite.
    """
    rows = _rows(points)
    members = front_indices(rows)
    if not members:
        raise NothingFeasible("no finished trial, so there is no front to choose from")
    front = rows[members]
    return members[int(np.argmin((scaled(front, front) ** 2).sum(axis=1)))]


def scaled(points: ArrayLike, front: ArrayLike) -> NDArray[np.float64]:
    """Scale each objective so that ``front`` spans 0 to 1; one in which it does not differ keeps its unit.

    Args:
        points: n x m.
        front: k x m, k at least 1.
    """
    rows, members = _rows(points), _rows(front)
    low, high = members.min(axis=0), members.max(axis=0)
    return (rows - low) / np.where(high > low, high - low, 1.0)


def reference_point(baselines: Baselines) -> tuple[float, float, float]:
    """Return the point from which a study's hypervolume is measured.

    It is 1.5 x the FID of the untranslated input, and the teacher's GFLOPs and MB: a student beyond it is
    worse than doing nothing, or larger than what there was.
    """
    return 1.5 * baselines.input.fid, baselines.teacher.gflops, baselines.teacher.size_mb


def _rows(points: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(points, np.float64)
    if rows.size and rows.ndim != 2:
        raise ValueError(f"points must be an n x m array, not {rows.ndim}-dimensional")
    return rows

"""Dominance, front, hypervolume and knee, against hand-made answers, brute force and Optuna."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gs_search.errors import NothingFeasible
from gs_search.results.pareto import dominates, front_indices, hypervolume, knee, reference_point
from gs_search.results.record import Baselines

NAN, INF = math.nan, math.inf

# A grid of few values makes ties, duplicates and shared coordinates common.
coarse = st.integers(0, 6).map(float)
point_sets = st.tuples(st.integers(0, 24), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=coarse | st.floats(0, 6))
)
holed_sets = st.tuples(st.integers(0, 16), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=coarse | st.sampled_from([NAN, INF, -INF]))
)


def brute_front(points: np.ndarray) -> list[int]:
    """The definition, word for word."""
    rows = [tuple(row) for row in points]
    finite = [i for i, row in enumerate(rows) if all(map(math.isfinite, row))]
    kept = []
    for i in finite:
        beaten = any(all(a <= b for a, b in zip(rows[j], rows[i], strict=True)) and rows[j] != rows[i] for j in finite)
        if not beaten and rows[i] not in [rows[k] for k in kept]:
            kept.append(i)
    return kept


def grid_volume(points: np.ndarray, corner: np.ndarray) -> float:
    """Cut space along all coordinates that occur and add up the dominated boxes."""
    axes = [sorted({*column, limit}) for column, limit in zip(points.T, corner, strict=True)]
    axes = [[value for value in axis if value <= limit] for axis, limit in zip(axes, corner, strict=True)]
    volume = 0.0
    for box in itertools.product(*(range(len(axis) - 1) for axis in axes)):
        low = np.array([axis[i] for axis, i in zip(axes, box, strict=True)])
        if (points <= low).all(axis=1).any():
            volume += float(np.prod([axis[i + 1] - axis[i] for axis, i in zip(axes, box, strict=True)]))
    return volume


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 1], [2, 2], True),
        ([1, 2], [1, 3], True),
        ([1, 1], [1, 1], False),
        ([1, 3], [2, 2], False),
        ([2, 2], [1, 1], False),
        ([1, NAN], [2, 2], False),
        ([1, 1], [2, NAN], False),
        ([1, -INF], [2, 2], False),
    ],
)
def test_dominates(a: list[float], b: list[float], expected: bool) -> None:
    assert dominates(a, b) is expected


#  y
#  4 | a
#  3 |   . c       a (1,4)  b (2,2)  c (3,3) dominated by b
#  2 |   b   e     d (4,1)  e (4,2) dominated by b and d
#  1 |       d
def test_front_by_hand() -> None:
    assert front_indices([[1, 4], [2, 2], [3, 3], [4, 1], [4, 2]]) == [0, 1, 3]


def test_front_of_ties_holes_and_nothing() -> None:
    assert front_indices([]) == []
    assert front_indices(np.empty((0, 3))) == []
    assert front_indices([[NAN, 1], [2, INF]]) == []
    assert front_indices([[3, 3], [2, 2], [NAN, 0], [2, 2], [2, 2]]) == [1]
    assert front_indices([[5.0]]) == [0]
    with pytest.raises(ValueError, match="n x m"):
        front_indices([1.0, 2.0])


@given(point_sets | holed_sets)
def test_front_is_brute_force(points: np.ndarray) -> None:
    assert front_indices(points) == brute_front(points)


@given(point_sets.filter(len))
@settings(deadline=None)  # the first call imports Optuna
def test_front_is_optunas(points: np.ndarray) -> None:
    from optuna.study._multi_objective import _is_pareto_front

    members = np.flatnonzero(_is_pareto_front(points, assume_unique_lexsorted=False))
    assert {tuple(points[i]) for i in members} == {tuple(points[i]) for i in front_indices(points)}


def test_hypervolume_by_hand() -> None:
    assert hypervolume([[2.0]], [5.0]) == 3
    # An L of 3x1, 2x1 and 1x1 unit squares.
    assert hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4]) == 6
    # Two boxes of 2x2x1 and 1x1x3 that share 1x1x1.
    assert hypervolume([[0, 0, 2], [1, 1, 0]], [2, 2, 3]) == pytest.approx(4 + 3 - 1)
    assert hypervolume([[4, 0, 0], [0, 9, 9], [NAN, 0, 0]], [4, 4, 4]) == 0
    assert hypervolume([], [1, 1]) == 0


@given(point_sets, st.floats(0.5, 8))
def test_hypervolume_is_brute_force(points: np.ndarray, limit: float) -> None:
    corner = np.full(points.shape[1], limit)
    assert hypervolume(points, list(corner)) == pytest.approx(grid_volume(points, corner), abs=1e-9)


@given(point_sets.filter(len), st.floats(0.5, 8))
@settings(deadline=None)
def test_hypervolume_is_optunas(points: np.ndarray, limit: float) -> None:
    from optuna._hypervolume import compute_hypervolume

    inside = points[(points < limit).all(axis=1)]
    expected = compute_hypervolume(inside, np.full(points.shape[1], limit)) if len(inside) else 0.0
    assert hypervolume(points, [limit] * points.shape[1]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(point_sets.filter(len), st.data())
def test_hypervolume_needs_only_the_front_and_only_grows(points: np.ndarray, data: st.DataObject) -> None:
    corner = [7.0] * points.shape[1]
    whole = hypervolume(points, corner)
    assert hypervolume(points[front_indices(points)], corner) == pytest.approx(whole)
    part = points[: data.draw(st.integers(0, len(points)))]
    assert hypervolume(part, corner) <= whole + 1e-9
    assert hypervolume(points[::-1], corner) == pytest.approx(whole)


def test_hypervolume_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="4 objectives"):
        hypervolume([[1, 1, 1, 1]], [2, 2, 2, 2])
    with pytest.raises(ValueError, match="2 objectives and a reference of 3"):
        hypervolume([[1, 1]], [2, 2, 2])


def test_knee_by_hand() -> None:
    # On a front from (0, 10) to (10, 0) the bend at (2, 2) is nearest to (0, 0); scale does not matter.
    points = np.array([[0, 10], [2, 2], [10, 0], [11, 11]])
    assert knee(points) == 1
    assert knee(points * [1e-6, 1e6]) == 1
    # The dominated point at the end does not stretch the scale.
    assert knee([[0, 10], [2, 2], [10, 0], [1e9, 1e9]]) == 1
    assert knee([[NAN, 0], [5, 5]]) == 1
    assert knee([[1, 1], [1, 1]]) == 0
    with pytest.raises(NothingFeasible):
        knee([[NAN, 1]])


@given(point_sets.filter(len))
def test_knee_is_on_the_front(points: np.ndarray) -> None:
    assert knee(points) in front_indices(points)


def test_reference_point() -> None:
    teacher, untouched = {"fid": 1, "gflops": 2, "size_mb": 3}, {"fid": 100}
    content = {"protocol": {"id": "p"}, "teacher": teacher, "input": untouched, "noise": {}}
    assert reference_point(Baselines.from_json(content)) == (150.0, 2.0, 3.0)


def test_large_sets_are_quick() -> None:
    points = np.random.default_rng(0).random((3000, 3))
    members = front_indices(points)
    assert 20 < len(members) < 300
    assert 0.9 < hypervolume(points, [1, 1, 1]) < 1


def nearest_to_the_best(points: np.ndarray) -> set[int]:
    """All indices that could be the knee, by its definition, in fractions of the front's range."""
    front = brute_front(points)
    ranges = [(min(points[i][c] for i in front), max(points[i][c] for i in front)) for c in range(points.shape[1])]
    distances = {
        i: sum(
            ((Fraction(points[i][c]) - Fraction(low)) / (Fraction(high) - Fraction(low))) ** 2
            for c, (low, high) in enumerate(ranges)
            if high > low
        )
        for i in front
    }
    return {i for i, distance in distances.items() if distance == min(distances.values())}


def test_a_thousand_random_sets_with_ties() -> None:
    """Dominance, front, hypervolume and knee of sets of one to three objectives, on grids of few values."""
    dice = np.random.default_rng(5)
    for turn in range(1000):
        objectives, side = 1 + turn % 3, int(dice.integers(2, 7))
        points = dice.integers(0, side, (int(dice.integers(1, 15)), objectives)).astype(float)
        front = front_indices(points)
        assert front == brute_front(points)
        for a, b in itertools.product(points[:4], repeat=2):
            assert dominates(a, b) is (all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b))
        # Whole coordinates: the volume is the number of unit cells that a point reaches.
        cells = np.array(list(itertools.product(range(side), repeat=objectives)))
        reached = (points[:, None, :] <= cells[None]).all(axis=2).any(axis=0).sum()
        assert hypervolume(points, [side] * objectives) == reached
        assert knee(points) in nearest_to_the_best(points)
        assert knee(points) == knee(points * 2.0 ** dice.integers(-20, 20, objectives))

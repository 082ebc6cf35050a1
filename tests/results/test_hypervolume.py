"""Hypervolume, point by point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gs_search.results.hypervolume import History, Volume
from gs_search.results.pareto import hypervolume


def cells(points: np.ndarray, corner: tuple[int, ...]) -> int:
    """Number of unit cells below ``corner`` that a point of whole numbers dominates, one by one."""
    grid = itertools.product(*(range(side) for side in corner))
    return sum(any((point <= cell).all() for point in points) for cell in map(np.array, grid))


@pytest.mark.parametrize("sides", [(9,), (7, 9), (5, 6, 7)])
def test_it_counts_what_is_dominated(sides: tuple[int, ...]) -> None:
    """Whole numbers have ties in plenty, points on the corner and points beyond it."""
    random = np.random.default_rng(len(sides))
    for _ in range(8):
        points = random.integers(0, np.array(sides) + 2, (12, len(sides)))
        volume, before = Volume(sides), 0
        for end, point in enumerate(points, 1):
            now = cells(points[:end], sides)
            assert volume.add(point) == now - before
            assert volume.value == now
            before = now


def test_it_agrees_with_the_hypervolume_of_every_front_on_the_way() -> None:
    random = np.random.default_rng(0)
    sphere = np.abs(random.normal(size=(60, 3)))
    points = np.concatenate([1 - 0.9 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True), random.random((60, 3))])
    points = random.permutation(points)
    volume = Volume((0.9, 0.95, 1.0))
    for end, point in enumerate(points, 1):
        volume.add(point)
        assert volume.value == pytest.approx(hypervolume(points[:end], (0.9, 0.95, 1.0)), rel=1e-12)


def test_points_that_are_no_numbers_add_nothing() -> None:
    volume = Volume((1.0, 1.0))
    assert volume.add((float("nan"), 0.5)) == volume.add((-np.inf, 0.5)) == volume.add((0.5, np.inf)) == 0.0
    assert volume.add((0.5, 0.5)) == 0.25


def test_a_thousand_trials_that_all_join_the_front() -> None:
    random = np.random.default_rng(1)
    points = np.abs(random.normal(size=(1000, 2)))
    points = 1 - points / np.linalg.norm(points, axis=1, keepdims=True)
    volume = Volume((1.0, 1.0))
    for point in points:
        volume.add(point)
    assert volume.value == pytest.approx(hypervolume(points, (1.0, 1.0)), rel=1e-9)


def test_a_history_adds_up_cost_and_gains() -> None:
    history = History((10.0, 2.0))
    history.add(0, 4.0, (5.0, 1.0))  # 5 x 1 of 20
    history.add(2, 1.5, None)  # stopped: costs, brings nothing
    history.add(1, 0.0, (5.0, 1.0))  # the same again, from the record
    history.add(3, 2.0, (6.0, 0.5))  # 4 x 1.5, of which 4 x 1 was there
    told = [(step.trial, step.seconds, step.hypervolume, step.gain) for step in history.steps]
    assert told == [(0, 4.0, 0.25, 0.25), (2, 5.5, 0.25, 0.0), (1, 5.5, 0.25, 0.0), (3, 7.5, 0.35, pytest.approx(0.1))]


def test_a_history_without_a_reference_point_has_costs_alone() -> None:
    history = History(None)
    history.add(0, 4.0, (5.0, 1.0))
    assert [(step.seconds, step.hypervolume, step.gain) for step in history.steps] == [(4.0, None, 0.0)]

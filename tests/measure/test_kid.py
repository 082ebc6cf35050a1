from __future__ import annotations

import numpy as np
import pytest

from gs_search.errors import BadInput
from gs_search.measure.kid import kernel_distance


def brute_force(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator, term by term (eq. 4 of the paper)."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    xy = sum(k(a, b) for a in x for b in y) / (m * n)
    return xx + yy - 2 * xy


def test_full_estimate_equals_the_sum_over_pairs() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(7, 5)), random.normal(0.5, 1.5, size=(9, 5))
    assert kernel_distance(x, y).full == pytest.approx(brute_force(x, y), rel=1e-10)


def test_subsets_are_pairs_of_rows_of_both_sets() -> None:
    """With one subset of the size of half the smaller set, the mean is that subset's estimate."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(8, 3)), random.normal(size=(12, 3))
    distance = kernel_distance(x, y, subsets=1, seed=5)
    draw = np.random.default_rng(5)
    i, j = draw.choice(8, 4, replace=False), draw.choice(12, 4, replace=False)
    assert distance.mean == pytest.approx(brute_force(x[i], y[j]), rel=1e-10)
    assert distance.std == 0


def test_unbiased_whatever_the_number_of_pictures() -> None:
    random = np.random.default_rng(2)
    estimates = [kernel_distance(*random.normal(size=(2, 10, 4)), subsets=4).full for _ in range(400)]
    standard_error = np.std(estimates) / 20
    assert abs(np.mean(estimates)) < 4 * standard_error
    assert min(estimates) < 0 < max(estimates)


def test_grows_with_the_difference_and_repeats() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(40, 6)), random.normal(size=(50, 6))
    near, far = kernel_distance(x, y + 0.5), kernel_distance(x, y + 2)
    assert 0 < near.full < far.full and 0 < near.std
    assert far.mean == pytest.approx(far.full, rel=0.3)
    assert kernel_distance(x, y + 2) == far
    assert kernel_distance(x, y + 2, seed=1).mean != far.mean


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones((3, 2)), np.ones((9, 2))),
        (np.ones((9, 2)), np.ones((9, 3))),
        (np.ones((9, 2)), np.full((9, 2), np.nan)),
    ],
    ids=["few", "widths", "nan"],
)
def test_sets_that_have_no_distance_are_refused(x: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(BadInput, match="KID needs"):
        kernel_distance(x, y)

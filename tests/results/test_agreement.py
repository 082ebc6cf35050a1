"""Kendall's tau and its exact interval, against all orders there are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from gs_search.results.agreement import agreement, turned_pairs


def turned(order: tuple[int, ...]) -> int:
    return sum(a > b for a, b in itertools.combinations(order, 2))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_the_distribution_is_that_of_all_orders(n: int) -> None:
    counts = np.bincount([turned(order) for order in itertools.permutations(range(n))])
    assert turned_pairs(n) == pytest.approx(counts / math.factorial(n))


def test_tau_is_scipys() -> None:
    chance = np.random.default_rng(0)
    for n in (2, 5, 9, 30):
        first, second = chance.normal(size=n), chance.normal(size=n).round(1)
        found = agreement(first, second)
        assert found["kendall_tau"] == pytest.approx(kendalltau(first, second).statistic, nan_ok=True)
        assert found["low"] <= found["kendall_tau"] <= found["high"]


@pytest.mark.parametrize("n", [3, 5, 6])
@pytest.mark.parametrize("q", [0.05, 0.3, 0.7, 1.0, 1.8])
def test_the_interval_covers_the_truth_in_19_of_20_cases(n: int, q: float) -> None:
    """Every order of n, with its probability in Mallows' model: the mean tau lies in the interval of 95 % of them."""
    orders = list(itertools.permutations(range(n)))
    pairs = n * (n - 1) / 2
    weights = np.array([q ** turned(order) for order in orders])
    weights /= weights.sum()
    truth = sum(w * (1 - 2 * turned(order) / pairs) for w, order in zip(weights, orders, strict=True))
    found = {d: agreement(range(n), order) for order in orders for d in [turned(order)]}
    covered = sum(
        w for w, order in zip(weights, orders, strict=True)
        if found[turned(order)]["low"] <= truth <= found[turned(order)]["high"]
    )  # fmt: skip
    assert covered >= 0.95


def test_chance_is_counted() -> None:
    assert agreement((1, 2, 3), (1, 2, 3))["chance"] == pytest.approx(1 / 6)
    assert agreement(range(5), (1, 0, 2, 3, 4))["chance"] == pytest.approx(5 / 120)
    assert agreement(range(5), range(5))["chance"] == pytest.approx(1 / 120)


def test_few_points_say_little() -> None:
    assert [agreement(range(n), range(n))["enough"] for n in range(8)] == [False] * 5 + [True] * 3
    three, fifty = agreement(range(3), range(3)), agreement(range(50), range(50))
    assert (three["kendall_tau"], three["high"]) == (1.0, 1.0) and three["low"] < -0.5
    assert fifty["low"] > 0.99
    for values in ((), (1.0,), (1.0, 1.0)):
        assert agreement(values, range(len(values)))["kendall_tau"] is None
    tied = agreement((1, 1, 2), (1, 2, 3))
    assert 0.8 < tied["kendall_tau"] < 0.82 and tied["low"] < three["low"]
    assert agreement((1, 2, 3), (3, 2, 1))["low"] == -1.0

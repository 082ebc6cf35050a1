"""Ties and intervals, against scipy's tests and hand-made cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gs_search.results.fid_uncertainty import Reading, describe, gap, interval, order_of, tie_margin, ties


def test_the_tie_margin_is_what_two_draws_of_one_fid_differ_by_in_one_of_twenty_cases() -> None:
    draws = np.random.default_rng(0).normal(250, 1.6, (2, 200_000))
    assert (abs(draws[0] - draws[1]) > tie_margin(1.6)).mean() == pytest.approx(0.05, abs=0.002)
    assert tie_margin(0) == 0


def test_the_interval_is_students() -> None:
    values = [251.0, 249.5, 252.2, 250.1]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval([250.0]) is None and interval([]) is None
    assert interval([250.0, 250.0]) == (250.0, 250.0)


def test_the_gap_of_repeated_trainings_is_welchs() -> None:
    a, b = (251.0, 249.5, 252.2), (255.0, 259.5, 254.0, 258.0)
    difference, margin = gap(Reading(first=240, others=a), Reading(first=241, others=b), 1.0)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert difference == pytest.approx(np.mean(b) - np.mean(a))
    assert (difference - margin, difference + margin) == pytest.approx((expected.low, expected.high))


def test_the_gap_of_single_runs_is_that_of_the_pictures() -> None:
    alone, again, twice = Reading(first=250), Reading(first=260, others=(300.0,)), Reading(first=1, others=(2.0, 3.0))
    assert gap(alone, again, 2.0) == (10, tie_margin(2.0))
    assert gap(alone, twice, 2.0) == (-249, tie_margin(2.0))


def test_pictures_count_pair_by_pair() -> None:
    """What moves both students alike on a subset of the pictures says nothing about which is better."""
    shared = (1.0, -2.0, 3.0, -2.0)
    a = Reading(first=0, others=(10.0, 10.0), subsets=(shared, shared))
    b = Reading(first=0, others=(11.0, 11.0), subsets=tuple(tuple(x + 1 for x in shared) for _ in range(2)))
    assert gap(a, b, 9.0) == (1.0, 0.0)
    apart = Reading(first=0, others=(11.0, 11.0), subsets=((2.0, 1.0, 2.0, 1.0), (2.0, 1.0, 2.0, 1.0)))
    own = np.subtract((2.0, 1.0, 2.0, 1.0), shared).std(ddof=1)
    assert gap(a, apart, 9.0) == (1.0, pytest.approx(1.959964 * own))


def test_halves_scatter_as_whole_sets_do() -> None:
    """The standard deviation over random halves is that of the mean of the whole set: no factor."""
    dice = np.random.default_rng(1)
    scatter = []
    for _ in range(200):
        data = dice.normal(size=100)
        halves = [data[dice.choice(100, 50, replace=False)].mean() for _ in range(20)]
        scatter.append(Reading(first=0, others=(0.0,), subsets=(tuple(halves),)).subset_std)
    assert np.sqrt(np.mean(np.square(scatter))) == pytest.approx(1 / math.sqrt(100), rel=0.05)
    assert Reading(first=0).subset_std is None


def test_ties_are_pairs_and_no_groups() -> None:
    margin = tie_margin(1.0)
    readings = [Reading(first=250 + 0.8 * margin * step) for step in range(3)]
    assert ties(readings, 1.0) == [[1], [0, 2], [1]]
    assert ties([Reading(first=5)] * 3, 0.0) == [[1, 2], [0, 2], [0, 1]]
    assert ties([], 1.0) == []


def test_the_order_is_kendalls() -> None:
    dice = np.random.default_rng(2)
    for count in (2, 3, 7):
        first, others = dice.integers(0, 6, count), dice.integers(0, 6, (count, 3))
        readings = [Reading(first=float(f), others=tuple(map(float, o))) for f, o in zip(first, others, strict=True)]
        found = order_of(readings, [[0.0]] * count, 1.0)
        expected = stats.kendalltau(first, others.mean(axis=1)).statistic
        assert found is not None and found["pairs"] == count * (count - 1) // 2
        if math.isnan(expected):
            assert found["kendall_tau"] is None
        else:
            assert found["kendall_tau"] == pytest.approx(expected)
        assert found["shift"] == pytest.approx(others.mean() - first.mean())


def test_the_order_by_hand() -> None:
    """Three of four were run again: the second turns out worse than the first, the third is far from both."""
    readings = [
        Reading(first=100, others=(100.0, 100.1, 100.2)),
        Reading(first=90, others=(110.0, 110.1, 110.2)),
        Reading(first=50),
        Reading(first=20, others=(20.0, 20.1)),
    ]
    found = order_of(readings, [[1.0], [2.0], [3.0], [4.0]], 5.0)
    assert found is not None
    assert (found["members"], found["seeds"], found["pairs"]) == (3, [2, 3], 3)
    assert (found["decided"], found["turned"], found["beaten"]) == (3, 1, [1])
    assert order_of(readings[2:], [[1.0], [2.0]], 5.0) is None


def test_described() -> None:
    assert describe(Reading(first=3), 0) is None
    only_failed = describe(Reading(first=3), 2)
    assert only_failed is not None and only_failed["mean"] is None
    assert (only_failed["seeds"], only_failed["failed"]) == (0, 2)
    one = describe(Reading(first=3, others=(4.0,), subsets=((4.0, 6.0),)), 0)
    assert one is not None and (one["mean"], one["std"], one["low"], one["high"]) == (4.0, None, None, None)
    assert one["subset_std"] == pytest.approx(math.sqrt(2))
    two = describe(Reading(first=3, others=(4.0, 6.0)), 0)
    assert two is not None and two["std"] == pytest.approx(math.sqrt(2)) and two["low"] < 5 < two["high"]


def test_ties_are_symmetric() -> None:
    dice = np.random.default_rng(3)
    readings = [Reading(first=f, others=tuple(dice.normal(f, 1, f).tolist())) for f in range(6)]
    found = ties(readings, 1.0)
    for i, j in itertools.permutations(range(6), 2):
        difference, margin = gap(readings[i], readings[j], 1.0)
        assert (j in found[i]) is (i in found[j]) is (abs(difference) <= margin)

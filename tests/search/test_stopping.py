"""Who is left at a rung, against the definition of dominance; what the rungs foretell, against scipy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from gs_search.results.record import Rung, State, TrialRecord
from gs_search.search.stopping import Rungs, agreement, savings

GRID = st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 4))


def report(psnr: float, gflops: float, size_mb: float, step: int = 0) -> Rung:
    return Rung(step=step, psnr_to_teacher=psnr, gflops=gflops, size_mb=size_mb, seconds=2.0)


def ended(state: State, **fields: Any) -> TrialRecord:
    return TrialRecord(number=0, state=state, **fields)


@given(st.lists(GRID, min_size=1, max_size=20), st.sampled_from([0.0, 1.0, 2.5]))
def test_a_trial_is_left_only_where_an_earlier_one_dominates_it_by_more_than_the_margin(
    points: list[tuple[int, int, int]], margin: float
) -> None:
    rungs = Rungs("pareto", margin)
    for number, (psnr, gflops, size) in enumerate(points):
        verdict = rungs.judge(number, report(psnr, gflops, size))
        better = [k for k, (p, g, s) in enumerate(points[:number]) if p > psnr + margin and g <= gflops and s <= size]
        assert (verdict is not None) == bool(better)
        if verdict is not None:
            assert verdict.by in better and f"trial {verdict.by} is {verdict.margin_db:.2f} dB nearer" in str(verdict)


def test_rungs_are_not_compared_with_each_other_and_nobody_with_itself() -> None:
    rungs = Rungs("pareto", 0.5)
    assert rungs.judge(0, report(20, 1, 1)) is None
    assert rungs.judge(1, report(15, 1, 1, step=25)) is None
    assert rungs.judge(0, report(10, 1, 1)) is None  # begun again after its process died


def test_off_leaves_nobody() -> None:
    rungs = Rungs("off", 0.0)
    rungs.remember(0, [report(30, 1, 1)])
    assert rungs.judge(1, report(10, 2, 2)) is None


def test_what_earlier_runs_told_counts() -> None:
    rungs = Rungs("pareto", 0.5)
    rungs.remember(3, [report(20, 1, 1), report(22, 1, 1, step=25)])
    assert rungs.judge(4, report(19, 1, 1)) is not None
    assert rungs.judge(5, report(21, 2, 1, step=25)) is not None
    assert rungs.judge(6, report(19.6, 1, 1)) is None  # within the margin


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_agreement_is_spearmans(points: list[tuple[int, int]]) -> None:
    records = [ended("COMPLETE", rungs=(report(psnr, 1, 1),), objectives={"fid": float(fid)}) for psnr, fid in points]
    found = agreement([*records, ended("FAIL"), ended("PRUNED", rungs=(report(1, 1, 1),))])
    if len({p for p, _ in points}) == 1 or len({f for _, f in points}) == 1:
        assert found == {}
        return
    expected = spearmanr([-p for p, _ in points], [f for _, f in points]).statistic
    correlation, count = found[0]
    assert count == len(points) and math.isclose(correlation, expected, abs_tol=1e-9)


def test_savings_are_what_a_median_trial_would_have_taken() -> None:
    complete = [ended("COMPLETE", seconds=s) for s in (10.0, 20.0, 90.0)]
    left = [ended("PRUNED", rungs=(report(1, 1, 1, step),)) for step in (0, 5)]
    assert savings([*complete, *left, ended("FAIL")]) == {"stopped": {0: 1, 5: 1}, "seconds": pytest.approx(36.0)}
    assert savings([]) == {"stopped": {}, "seconds": 0.0}

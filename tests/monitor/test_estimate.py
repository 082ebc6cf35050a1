"""Where a study stands."""

from __future__ import annotations

import datetime
import heapq
import time
from typing import Any

import optuna
import pytest
from engine_studies import MakeStudy, record_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_search.errors import BadInput
from gs_search.monitor.estimate import Rest, reference_of, rest, seconds_to_go, standing
from gs_search.search.study_database import open_database
from gs_search.system.files import write_json

POINTS = [(100.0, 0.5, 0.1), (200.0, 0.25, 0.1), (300.0, 0.9, 0.2), (100.0, 0.5, 0.1)]
"""The third is dominated, the fourth equals the first."""


def test_front_share_of_the_box_and_time_left(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for fid, gflops, size in POINTS:
        asked = database.ask()
        objectives = {"fid": fid, "gflops": gflops, "size_mb": size}
        database.tell(record_of(database, asked, objectives=objectives, seconds=10.0))
    database.fail(database.ask(), "nan", "fid is nan")
    where = standing(database, (400.0, 1.0, 1.0), 10, 2)
    assert where.done == 5 and where.front == (0, 1)
    # By hand: 300 x 0.5 x 0.9 and, beyond it, 200 x 0.25 x 0.9, of a box of 400.
    assert where.hypervolume == pytest.approx((300 * 0.5 * 0.9 + 200 * 0.25 * 0.9) / 400)
    assert where.seconds_left == 30.0, "five more trials, two at once, ten seconds each"


def test_before_the_first_trial(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    where = standing(database, reference_of(folder), 10, 2)
    assert (where.done, where.front, where.hypervolume, where.seconds_left) == (0, (), None, None)


MEASURED = {
    "input": {"fid": 200},
    "teacher": {"gflops": 0.4, "size_mb": 1.1, "fid": 60},
    "protocol": {"id": "p"},
    "noise": {},
}


def test_the_reference_is_read_from_the_baselines(make_study: MakeStudy) -> None:
    _, folder = make_study()
    write_json(folder.baselines, MEASURED)
    assert reference_of(folder) == (300.0, 0.4, 1.1)


def one_by_one(mean: float, queued: int, workers: int, owed: list[float]) -> float:
    """Each trial goes to the worker that is free first."""
    free = [*owed, *[0.0] * (workers - len(owed))]
    heapq.heapify(free)
    for _ in range(queued):
        heapq.heappush(free, heapq.heappop(free) + mean)
    return max(free)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.1, 5), st.integers(0, 40), st.integers(1, 6), st.lists(st.floats(0, 20), max_size=6)
)  # fmt: skip
def test_time_to_go_is_that_of_workers_which_take_turns(
    mean: float, queued: int, workers: int, owed: list[float]
) -> None:
    owed = owed[:workers]
    assert seconds_to_go(mean, queued, workers, owed) == pytest.approx(one_by_one(mean, queued, workers, owed))


def test_time_to_go_of_a_million_trials() -> None:
    assert seconds_to_go(2.0, 1_000_000, 4, [1000.0]) == pytest.approx(one_by_one(2.0, 1_000_000, 4, [1000.0]))


def trial_of(state: str, seconds: float | None, ago: float = 100.0, **told: Any) -> optuna.trial.FrozenTrial:
    """A trial that began so many seconds ago."""
    values = [1.0, 1.0, 1.0] if state == "COMPLETE" else None
    attributes = {**told, **({} if seconds is None else {"seconds": seconds})}
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState[state], values=values, user_attrs=attributes)
    trial.datetime_start = datetime.datetime.now() - datetime.timedelta(seconds=ago)
    trial.datetime_complete = None if state == "RUNNING" else trial.datetime_start
    return trial


def test_the_rest_is_what_a_trial_of_whatever_ending_costs() -> None:
    whole, stopped, known = trial_of("COMPLETE", 30.0), trial_of("PRUNED", 6.0), {"duplicate_of": 0}
    assert rest([whole, stopped], 12, 2) == Rest(seconds=5 * 18.0, limit="trials", finished=12)
    again = trial_of("COMPLETE", 30.0, **known)
    assert rest([whole, stopped, again], 12, 3).seconds == pytest.approx(3 * 12.0), "an answer from the record is free"
    never = trial_of("PRUNED", None, cause="infeasible")
    killed = trial_of("FAIL", None, cause="killed")
    assert rest([whole, never, killed], 5, 1).seconds == pytest.approx(2 * 15.0), "nobody knows what a killed one cost"
    elsewhere = trial_of("COMPLETE", 500.0, warm_start="x")
    assert rest([whole, elsewhere], 3, 1).seconds == pytest.approx(2 * 30.0)
    assert rest([stopped, stopped], 12, 2).seconds is None, "none has run to its end"


def test_the_rest_counts_what_running_trials_have_done() -> None:
    whole, stopped = trial_of("COMPLETE", 30.0), trial_of("PRUNED", 6.0)
    assert rest([whole, stopped, trial_of("RUNNING", None, ago=8)], 3, 1).seconds == pytest.approx(10, abs=1)
    # Later than the mean of 18 s it is none of those that are stopped early.
    assert rest([whole, stopped, trial_of("RUNNING", None, ago=20)], 3, 1).seconds == pytest.approx(10, abs=1)
    assert rest([whole, stopped, trial_of("RUNNING", None, ago=99)], 3, 1).seconds == 0


@pytest.mark.parametrize(
    ("hours", "seconds", "limit", "finished"),
    [(100, 100, "hours", 2 + 2 * 10), (180, 180, "trials", 38), (0, 0, "hours", 2)],
)
def test_the_earlier_of_two_budgets_decides(hours: float, seconds: float, limit: str, finished: int) -> None:
    trials = [trial_of("COMPLETE", 10.0), trial_of("COMPLETE", 10.0)]
    found = rest(trials, 38, 2, ends=time.time() + hours + 0.5)
    assert (found.limit, found.finished) == (limit, finished)
    assert found.seconds == pytest.approx(seconds, abs=1)


def test_a_running_trial_is_waited_for_after_the_end() -> None:
    trials = [trial_of("COMPLETE", 10.0), trial_of("RUNNING", None, ago=4)]
    found = rest(trials, 38, 2, ends=time.time() - 5)
    assert (found.limit, found.finished) == ("hours", 2) and found.seconds == pytest.approx(6, abs=1)


def test_before_the_first_ending_only_the_clock_is_known() -> None:
    found = rest([trial_of("RUNNING", None)], 38, 2, ends=time.time() + 60)
    assert (found.limit, found.finished) == ("hours", None) and found.seconds == pytest.approx(60, abs=1)
    assert rest([], 38, 2) == Rest(seconds=None)


def test_baselines_without_a_teacher_are_refused(make_study: MakeStudy) -> None:
    _, folder = make_study()
    write_json(folder.baselines, {name: MEASURED[name] for name in ("input", "protocol", "noise")})
    with pytest.raises(BadInput, match="baselines.json: teacher: field required"):
        reference_of(folder)

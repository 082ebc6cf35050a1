"""The searcher between Tune and Optuna: the eleven defects of ``OptunaSearch``, and the rules of a total."""

from __future__ import annotations

import math
import pickle
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from engine_studies import SMALL, MakeStudy, record_of, state_counts
from optuna.trial import TrialState
from ray.tune.search import Searcher

from gs_search.engine.searcher import FAILURES_IN_A_ROW, MACHINES, SearchStopped, StudyCallback, StudySearcher
from gs_search.errors import GsSearchError
from gs_search.results.run_folder import RunFolder
from gs_search.search import storage
from gs_search.search.study_database import StudyDatabase, open_database


def searcher_of(database: StudyDatabase, total: int = 6, **options: Any) -> StudySearcher:
    seen: list[dict[str, Any]] = []
    choices: dict[str, Any] = {"deadline": None, "interrupted": lambda: False, "on_finish": seen.append}
    searcher = StudySearcher(database, total=total, **{**choices, **options})
    searcher.seen = seen  # type: ignore[attr-defined]
    return searcher


def finish(searcher: StudySearcher, trial_id: str, **changes: Any) -> None:
    """End a trial as Tune reports it."""
    asked = searcher.live[trial_id]
    record = record_of(searcher.database, asked, **changes)
    searcher.database.write_result(record)
    searcher.on_trial_complete(trial_id, {"record": [record], "done": True})


def fail(searcher: StudySearcher, trial_id: str, cause: str) -> None:
    objectives = {"objectives": None, "state": "FAIL", "cause": cause, "message": "why"}
    finish(searcher, trial_id, **objectives)


def test_a_suggestion_carries_what_a_worker_needs(make_study: MakeStudy) -> None:
    config, folder = make_study(start_points=[{"target_gflops_ratio": 0.25, "weight_bits": 8}])
    database = open_database(folder, config)
    database.enqueue_start_points()
    suggestion = searcher_of(database).suggest("a")
    assert isinstance(suggestion, dict)
    assert suggestion.pop("timeout_s") is None
    assert suggestion.pop("seed") == database._asked(0, suggestion["point"]).seed
    assert suggestion == {
        "number": 0,
        "point": {"target_gflops_ratio": 0.25, "weight_bits": 8},
        "key": "target_gflops_ratio=0.25,weight_bits=8",
    }


def test_trials_in_flight_count_towards_the_total(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), total=3)
    assert [isinstance(searcher.suggest(name), dict) for name in "abc"] == [True] * 3
    assert searcher.suggest("d") is None, "one of the three may have to be repeated"
    for name in "abc":
        finish(searcher, name)
    assert searcher.suggest("d") == Searcher.FINISHED
    assert len(searcher.database.trials()) == 3


def test_the_total_counts_trials_of_earlier_runs(make_study: MakeStudy) -> None:
    config, folder = make_study()
    first = searcher_of(open_database(folder, config), total=2)
    for name in "ab":
        first.suggest(name)
        finish(first, name)
    second = searcher_of(open_database(folder, config), total=3)
    assert isinstance(second.suggest("c"), dict)
    assert second.suggest("d") is None


def test_d1_a_stopped_trial_is_pruned_not_complete(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")
    finish(searcher, "a", state="PRUNED", objectives=None)
    (trial,) = searcher.database.trials()
    assert trial.state == TrialState.PRUNED and trial.values is None
    assert searcher.database.study.best_trials == []
    assert isinstance(searcher.suggest("b"), dict), "TPE goes on after a stopped trial"


def test_d2_a_trial_without_a_record_fails_and_is_not_left_running(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    for name, result in (("a", None), ("b", {"training_iteration": 1})):
        searcher.suggest(name)
        searcher.on_trial_complete(name, result)
    assert state_counts(searcher.database) == {"FAIL": 2}
    assert {r.cause for r in folder.results()} == {"exception"}


def test_d5_a_hiccup_of_the_database_is_waited_out(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    ask, calls = searcher.database.study.ask, []

    def flaky() -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise optuna.exceptions.StorageInternalError("server closed the connection")
        return ask()

    monkeypatch.setattr(searcher.database.study, "ask", flaky)
    assert isinstance(searcher.suggest("a"), dict)
    assert len(calls) == 3


def test_a_database_that_stays_away_ends_the_search_and_says_what_to_do(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")

    def away(*_: Any, **__: Any) -> Any:
        raise optuna.exceptions.StorageInternalError("postgresql://user:sEcReT@host refused")

    monkeypatch.setattr(storage, "PATIENCE_S", 0.2)
    monkeypatch.setattr(searcher.database.study, "tell", away)
    finish(searcher, "a")
    assert searcher.suggest("b") == Searcher.FINISHED
    assert "same command goes on" in str(searcher.error) and "sEcReT" not in str(searcher.error)
    with pytest.raises(SearchStopped):
        StudyCallback(searcher, print).on_step_begin(0, [])

    database = open_database(folder, config)
    assert database.settle("killed", "died") == [], "told from its file once the database is back"
    assert state_counts(database) == {"COMPLETE": 1}


def test_d6_d7_nothing_of_the_searcher_is_pickled(make_study: MakeStudy, tmp_path: Path) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.save_to_dir(str(tmp_path), "session")
    assert not list(tmp_path.glob("*.pkl")) and not list(tmp_path.glob("*session*"))
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(searcher)


def test_d8_a_failure_has_its_cause_and_text(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")
    fail(searcher, "a", "collapse")
    (trial,) = searcher.database.trials()
    assert (trial.user_attrs["cause"], trial.user_attrs["message"]) == ("collapse", "why")


def test_d11_a_point_that_is_known_costs_no_training(make_study: MakeStudy) -> None:
    config, folder = make_study(SMALL)
    searcher = searcher_of(open_database(folder, config), total=30)
    trained, index = [], 0
    while isinstance(suggestion := searcher.suggest(str(index)), dict):
        trained.append(suggestion["key"])
        finish(searcher, str(index))
        index += 1
    assert len(trained) == len(set(trained)) <= 6
    assert state_counts(searcher.database) == {"COMPLETE": 30}
    assert len(folder.results()) == 30 == len(searcher.seen)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", ["COMPLETE", "FAIL"])
def test_the_twin_of_a_live_trial_gets_its_ending(ending: str, make_study: MakeStudy) -> None:
    points = [{"target_gflops_ratio": 0.1, "weight_bits": 8}, {"target_gflops_ratio": 0.2, "weight_bits": 8}]
    config, folder = make_study(SMALL)
    database = open_database(folder, config)
    for point in (points[0], points[0], points[1]):
        database.study.enqueue_trial(point)
    searcher = searcher_of(database, total=3)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict) and isinstance(second, dict)
    assert (first["number"], second["number"]) == (0, 2)
    assert searcher.suggest("c") is None
    finish(searcher, "a") if ending == "COMPLETE" else fail(searcher, "a", "nan")
    finish(searcher, "b")
    assert [t.state.name for t in database.trials()] == [ending, ending, "COMPLETE"]


def test_a_trial_whose_process_died_is_repeated_once_whoever_is_next(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), total=2)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    finish(searcher, "b")
    searcher.on_trial_complete("a", error=True)
    assert searcher.process_died("a", "killed", "no reason given")
    assert not searcher.process_died("a", "killed", "told twice by Tune")
    again = searcher.suggest("c")
    assert isinstance(first, dict) and isinstance(again, dict)
    assert {**again, "timeout_s": None} == first != second
    assert searcher.suggest("d") is None
    assert not searcher.process_died("c", "killed", "no reason given")
    assert searcher.suggest("d") == Searcher.FINISHED
    assert [t.state.name for t in searcher.database.trials()] == ["FAIL", "COMPLETE"]


def test_processes_that_went_down_with_their_machines_are_not_held_against_a_trial(make_study: MakeStudy) -> None:
    config, folder = make_study()
    gone = {f"10.0.0.{index}" for index in range(100)}
    searcher = searcher_of(open_database(folder, config), total=2, is_gone=gone.__contains__)
    searcher.suggest("0")
    for index in range(MACHINES):
        assert searcher.process_died(str(index), "killed", "Socket closed", address=f"10.0.0.{index}")
        assert isinstance(searcher.suggest(str(index + 1)), dict)
    assert not searcher.process_died(str(MACHINES), "killed", "Socket closed", address="10.0.0.99"), (
        "as if it killed them"
    )

    searcher.suggest("a")
    for index, (address, again) in enumerate([("10.0.0.1", True), ("10.1.0.1", True), ("10.1.0.2", False)]):
        assert searcher.process_died("abc"[index], "killed", "Socket closed", address=address) is again
        if again:
            searcher.suggest("abc"[index + 1])
    assert state_counts(searcher.database) == {"FAIL": 2}


def test_a_process_that_ended_itself_for_its_time_is_not_begun_again(make_study: MakeStudy) -> None:
    config, folder = make_study(timeout_minutes=1e-9)
    searcher = searcher_of(open_database(folder, config))
    told = searcher.suggest("a")
    assert isinstance(told, dict) and told["timeout_s"] == pytest.approx(6e-8)
    assert not searcher.process_died("a", "killed", "no reason given")
    assert {r.cause for r in folder.results()} == {"timeout"} and state_counts(searcher.database) == {"FAIL": 1}


def test_the_time_of_a_trial_follows_the_median(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), total=5)

    def run(name: str, seconds: float) -> float | None:
        told = searcher.suggest(name)
        assert isinstance(told, dict)
        record = record_of(searcher.database, searcher.live[name], seconds=seconds)
        searcher.database.write_result(record)
        searcher.on_trial_complete(name, {"record": [record]})
        return told["timeout_s"]

    assert run("a", 2.0) is None
    assert run("b", 998.0) == 600, "ten minutes at least"
    assert run("c", 998.0) == 10 * (2.0 + 998.0) / 2
    known = open_database(folder, config)
    assert known.usual_seconds() == 998.0
    told = searcher_of(known, total=5).suggest("d")
    assert isinstance(told, dict) and told["timeout_s"] == 9980.0


def test_a_trial_whose_process_died_after_its_last_word_is_not_repeated(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), total=1)
    searcher.suggest("a")
    searcher.database.write_result(record_of(searcher.database, searcher.live["a"]))
    assert not searcher.process_died("a", "killed", "no reason given")
    assert searcher.suggest("b") == Searcher.FINISHED
    assert state_counts(searcher.database) == {"COMPLETE": 1}


def test_a_second_try_that_time_does_not_allow_is_left_to_the_next_run(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), deadline=time.monotonic() + 1000)
    searcher.suggest("a")
    assert searcher.process_died("a", "killed", "no reason given")
    searcher.deadline = time.monotonic()
    assert searcher.suggest("b") == Searcher.FINISHED
    assert searcher.database.settle("interrupted", "the run was stopped") == [0]
    assert searcher.database.requeue() == [0]


def test_five_failures_in_a_row_of_one_cause_stop_the_search(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config), total=100)
    causes = ["nan", "nan", "nan", "nan", "exception", "nan", "nan", "nan", "nan", None] + ["nan"] * 5
    for index, cause in enumerate(causes):
        assert searcher.error is None, index
        assert isinstance(searcher.suggest(str(index)), dict)
        finish(searcher, str(index)) if cause is None else fail(searcher, str(index), cause)
    assert FAILURES_IN_A_ROW == 5
    assert "5 failures in a row (nan)" in str(searcher.error) and "trial 14" in str(searcher.error)
    assert searcher.suggest("x") == Searcher.FINISHED
    with pytest.raises(SearchStopped):
        StudyCallback(searcher, print).on_step_begin(0, [])


def test_no_trial_starts_that_would_end_after_the_deadline(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    searcher = searcher_of(database, deadline=time.monotonic() + 60)
    searcher.suggest("a")
    finish(searcher, "a", seconds=59.0)
    assert isinstance(searcher.suggest("b"), dict)
    finish(searcher, "b", seconds=67.0)
    assert searcher.suggest("c") == Searcher.FINISHED and searcher.out_of_time, "the median, 63 s, is too long"
    assert state_counts(database) == {"COMPLETE": 2}


def test_an_interruption_ends_tunes_loop(make_study: MakeStudy) -> None:
    config, folder = make_study()
    asked_to_stop: list[int] = []
    searcher = searcher_of(open_database(folder, config), interrupted=lambda: bool(asked_to_stop))
    callback = StudyCallback(searcher, print)
    callback.on_step_begin(0, [])
    asked_to_stop.append(1)
    assert searcher.suggest("a") == Searcher.FINISHED
    with pytest.raises(SearchStopped):
        callback.on_step_begin(1, [])


def test_a_broken_sampler_ends_the_search_with_one_line(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))

    def broken() -> Any:
        raise RuntimeError("no such distribution")

    monkeypatch.setattr(searcher.database.study, "ask", broken)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert isinstance(searcher.error, GsSearchError) and "no such distribution" in str(searcher.error)


def test_nan_cannot_enter_the_database(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")
    asked = searcher.live["a"]
    record = record_of(searcher.database, asked, objectives={"fid": math.nan, "gflops": 1.0, "size_mb": 1.0})
    searcher.on_trial_complete("a", {"record": [record]})
    assert searcher.error is not None
    database = open_database(RunFolder(folder.path), config)
    database.settle("killed", "died")
    assert state_counts(database) == {"FAIL": 1}

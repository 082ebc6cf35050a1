"""A short search without Ray, the faults that it may meet, and what the next run has to make of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from engine_studies import record_of, state_counts
from ray.tune.search import Searcher

from gs_search.engine.searcher import StudySearcher
from gs_search.results.run_folder import RunFolder
from gs_search.search.optuna_adapter import database_of, storage_of
from gs_search.search.storage import close_study
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.config import StudyConfig
from gs_search.system.files import write_json


def searcher_of(database: StudyDatabase, total: int = 4) -> StudySearcher:
    return StudySearcher(database, total=total, deadline=None, interrupted=lambda: False, on_finish=lambda record: None)


def short_search(config: StudyConfig, folder: RunFolder, at: Callable[[StudyDatabase], None]) -> StudySearcher:
    """Four trials of two workers, one of which dies at the first: what Tune asks and tells. ``at`` may arm a fault."""
    database = open_database(folder, config)
    searcher = searcher_of(database)
    at(database)
    live = {name: searcher.suggest(name) for name in "ab"}
    searcher.on_trial_complete("a", error=True)
    searcher.process_died("a", "killed", "no reason given")
    del live["a"]
    for name in "cdefgh":
        for other, told in list(live.items()):
            if isinstance(told, dict):
                asked = searcher.live[other]
                record = record_of(database, asked)
                # Of the worker, whose disk is another matter.
                write_json(folder.trial(asked.number) / "result.json", record.to_json())
                searcher.on_trial_complete(other, {"record": [record.to_json()], "done": True})
            del live[other]
        live[name] = searcher.suggest(name)
        if searcher.error is not None or live[name] == Searcher.FINISHED:
            break
    return searcher


def assert_whole_after_the_next_run(config: StudyConfig, folder: RunFolder) -> None:
    """What the beginning of the next run, and its end, make of it."""
    database = open_database(folder, config)
    database.settle("killed", "the run that it belonged to died")
    database.requeue()
    assert not database.running()
    for record in folder.results():
        assert database.trials()[record.number].state.name == record.state
    searcher = searcher_of(database)
    while isinstance(searcher.suggest("x"), dict):
        record = record_of(database, searcher.live["x"])
        database.write_result(record)
        searcher.on_trial_complete("x", {"record": [record.to_json()], "done": True})
    assert searcher.error is None
    states = state_counts(database)
    assert states["COMPLETE"] == 4 and states.keys() <= {"COMPLETE", "FAIL"}
    close_study(database.study)


@contextmanager
def failing_statements(database: StudyDatabase, first: int, last: float) -> Iterator[list[int]]:
    """Have the database fail from its ``first`` statement from now on to its ``last``; the count is yielded."""
    seen = [0]

    def fail(*arguments: Any) -> None:
        seen[0] += 1
        if first <= seen[0] <= last:
            raise sqlalchemy.exc.OperationalError("statement", {}, sqlite3.OperationalError("disk I/O error"))

    engine = database_of(storage_of(database.study)).engine  # type: ignore[union-attr]
    sqlalchemy.event.listen(engine, "before_cursor_execute", fail)
    sqlalchemy.event.listen(engine, "commit", fail)
    try:
        yield seen
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", fail)
        sqlalchemy.event.remove(engine, "commit", fail)


def raiser(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    return fail

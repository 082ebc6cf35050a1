"""The database and the disk fail at every statement and every write of a short search, one after the other.

One clear line or the search goes on, nothing running, nothing lost. With a real Ray: ``test_chaos_surroundings``.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import optuna
import pytest
from engine_studies import MakeStudy, record_of, state_counts
from ray.tune.search import Searcher
from short_search import assert_whole_after_the_next_run, failing_statements, raiser, searcher_of, short_search

from gs_search.engine.console import Progress
from gs_search.engine.runner import run_study
from gs_search.engine.searcher import SearchStopped, StudyCallback, StudySearcher
from gs_search.errors import GsSearchError
from gs_search.results.record import Rung
from gs_search.results.run_folder import RunFolder
from gs_search.search import storage
from gs_search.search.stopping import Verdict
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.config import StudyConfig

# Of some 100 statements two; all of them with `-m chaos`.
SOME = [pytest.param((25, 45), id="some")]
ALL = [pytest.param((start, 8), id=f"from {start}", marks=pytest.mark.chaos) for start in range(1, 9)]


def faults(
    config: StudyConfig, folder: RunFolder, first: int, step: int, length: float
) -> Iterator[tuple[int, StudySearcher]]:
    """Short searches whose database fails at statement ``first``, then at a later one, and so on through all.

    Args:
        length: statements that fail, from that one on.
    """
    for number in count(first, step):
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.create(config)
        with ExitStack() as stack:
            counts: list[list[int]] = []

            def arm(database: StudyDatabase) -> None:
                fault = failing_statements(database, number, number + length)  # noqa: B023
                counts.append(stack.enter_context(fault))  # noqa: B023

            searcher = short_search(config, folder, arm)
        if counts[0][0] < number:
            assert number > 80, "there are more statements than that"
            return
        yield number, searcher


@pytest.mark.parametrize("points", [*SOME, *ALL])
def test_a_hiccup_of_the_database_costs_nothing(
    points: tuple[int, int], make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    config, folder = make_study()
    for number, searcher in faults(config, folder, *points, length=0):
        assert searcher.error is None or "StorageInternalError" in str(searcher.error), number
        if searcher.error is None:
            states = state_counts(searcher.database)
            assert states.pop("COMPLETE") == 4 and searcher.database.counted() == 4, "what was cut off does not count"
            assert states.keys() <= {"FAIL"}
        assert_whole_after_the_next_run(config, folder)


@pytest.mark.parametrize("points", [*SOME, *ALL])
def test_a_database_that_is_lost_ends_the_search_with_one_line(
    points: tuple[int, int], make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    config, folder = make_study()
    for number, searcher in faults(config, folder, *points, length=math.inf):
        said = str(searcher.error)
        assert "could not be reached" in said or "StorageInternalError" in said, number
        assert len(said) < 600 and "\n" not in said
        with pytest.raises(SearchStopped):
            StudyCallback(searcher, print).on_step_begin(0, [])
        assert_whole_after_the_next_run(config, folder)


RUNG = Rung(step=0, psnr_to_teacher=20.0, gflops=1.0, size_mb=1.0, seconds=1.0)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("ending", "error"), [("death", FULL), ("left", DENIED), ("no record", FULL), ("duplicate", DENIED)]
)
def test_a_result_that_cannot_be_written_ends_the_search_with_one_line(
    ending: str, error: OSError, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    searcher = searcher_of(database)
    if ending == "duplicate":
        asked = database.ask()
        database.write_result(record := record_of(database, asked))
        database.tell(record)
        database.enqueue({name: asked.point[name] for name in ("target_gflops_ratio", "weight_bits")})
    with monkeypatch.context() as fault:
        fault.setattr("gs_search.search.study_database.write_record", raiser(error))
        searcher.suggest("a")
        if ending == "death":
            searcher.process_died("a", "killed", "no reason given")
            searcher.suggest("b")
            searcher.process_died("b", "killed", "no reason given")
        elif ending == "left":
            searcher.verdicts["a"] = Verdict(0, 0, 1.0)
            searcher.on_trial_complete("a", {"rung": [RUNG.to_json()]})
        elif ending == "no record":
            searcher.on_trial_complete("a", {})
        assert error.strerror in str(searcher.error) and "\n" not in str(searcher.error)
        assert searcher.suggest("c") == Searcher.FINISHED
    assert_whole_after_the_next_run(config, folder)


def test_a_result_that_cannot_be_read_is_no_result(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")
    searcher.database.write_result(record_of(searcher.database, searcher.live["a"]))
    with monkeypatch.context() as fault:
        fault.setattr(Path, "read_text", raiser(DENIED))
        assert searcher.process_died("a", "killed", "no reason given"), "it runs again"
    assert_whole_after_the_next_run(config, folder)


@pytest.mark.parametrize("step", ["create", "results", "lock"])
def test_a_folder_that_cannot_be_used_ends_a_run_with_one_line(
    step: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    monkeypatch.setattr(RunFolder, step, raiser(FULL))
    with pytest.raises(GsSearchError, match="No space left on device.*the same command goes on") as caught:
        run_study(config, folder, progress=Progress(quiet=True))
    assert "\n" not in str(caught.value) and str(folder.path) in str(caught.value)


def test_a_database_that_cannot_be_read_ends_a_run_with_one_line(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    monkeypatch.setattr(StudyDatabase, "counted", raiser(optuna.exceptions.StorageInternalError("a\nb")))
    with pytest.raises(GsSearchError, match="StorageInternalError: a b; finished results are safe"):
        run_study(config, folder, progress=Progress(quiet=True))

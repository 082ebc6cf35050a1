"""What ``status`` says, without a run and after one was cut off."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "driving"))

from engine_studies import record_of, write_study  # noqa: E402

from gs_search.errors import BadInput  # noqa: E402
from gs_search.monitor.status import StatusReader, study_status  # noqa: E402
from gs_search.results.record import Rung
from gs_search.results.run_folder import RunFolder  # noqa: E402
from gs_search.search.study_database import StudyDatabase, open_database  # noqa: E402
from gs_search.study.config import load_study  # noqa: E402
from gs_search.system.files import write_json, write_text
from gs_search.terminal.status import render_status  # noqa: E402
from tests.engine.conftest import empty_database, quick_disk  # noqa: E402, F401


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder in which nothing has run."""
    folder = RunFolder(tmp_path / "run")
    folder.create(load_study(write_study(tmp_path / "study")))
    return folder


def text_of(document: dict[str, Any]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render_status(document))
    return capture.get()


def test_before_the_first_run(folder: RunFolder) -> None:
    document = study_status(folder)
    assert (document["finished"], document["total"], document["running"], document["front"]) == (0, 6, False, [])
    assert (document["phase"], document["advice"], document["history"]) == ("not_begun", [], [])
    assert not folder.database.exists(), "looking makes nothing"
    assert "engine: not running\n0 of 6 trials finished (none yet)" in text_of(document)


def test_a_study_that_was_cut_off(folder: RunFolder) -> None:
    write_json(folder.baselines, REFERENCE | {"input": {"fid": 300.0}})
    database = open_database(folder, folder.config())
    for _ in range(2):
        asked = database.ask()
        database.tell(record_of(database, asked, seconds=120.0))
    database.fail(database.ask(), "nan", "fid is nan")
    cut = database.ask()
    write_json(folder.trial(cut.number) / "progress.json", {"step": 40, "steps": 100, "seconds": 3.0})

    document = study_status(folder)
    assert document["states"] == {"COMPLETE": 2, "PRUNED": 0, "FAIL": 1, "RUNNING": 1, "WAITING": 0}
    assert document["finished"] == 3 and document["causes"] == {"nan": 1}
    assert document["seconds_a_trial"] == 120.0 and document["seconds_left"] is None
    (live,) = document["live"]
    assert 0 <= live.pop("running_for") < 60
    assert live == {"number": 3, "point": cut.point, "step": 40, "steps": 100, "seconds": 3.0}
    assert 0 < document["hypervolume"] < 1 and set(document["front"]) <= {0, 1}
    text = text_of(document)
    assert "failures: 1 nan" in text and "trial 3: cut off; the next run repeats it" in text
    assert "a trial takes 2 min" in text

    with folder.lock():
        document = study_status(folder)
    assert document["running"] and document["seconds_left"] == pytest.approx(360.0, abs=30)
    assert "trial 3: step 40 of 100" in text_of(document)


def test_a_damaged_database_is_said_to_be_one(folder: RunFolder) -> None:
    open_database(folder, folder.config()).ask()
    folder.database.write_bytes(folder.database.read_bytes()[:5000])
    with pytest.raises(BadInput, match="damaged"):
        study_status(folder)


REFERENCE = {
    "input": {"fid": 200.0},
    "teacher": {"fid": 50.0, "gflops": 1.0, "size_mb": 1.0},
    "protocol": {"id": "p"},
    "noise": {},
}


def end(database: StudyDatabase, fid: float, gflops: float, **changes: Any) -> int:
    """Have one trial end, its result on disk first, as the engine does."""
    asked = database.ask()
    objectives = {"fid": fid, "gflops": gflops, "size_mb": 0.5}
    record = record_of(database, asked, **{"objectives": objectives, "seconds": 10.0, **changes})
    database.write_result(record)
    database.tell(record)
    return asked.number


def test_what_it_says_of_a_running_study(folder: RunFolder) -> None:
    write_json(folder.baselines, REFERENCE)
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    end(database, 240.0, 0.25, seconds=30.0)
    rung = Rung(step=0, psnr_to_teacher=20.0, gflops=0.5, size_mb=0.5, seconds=4.0)
    stopped = database.ask()
    database.leave(stopped, "worse", rung)
    end(database, 150.0, 0.5)  # the first one again: no gain, and not the best of anything
    database.fail(database.ask(), "nan", "fid is nan")
    killed = database.ask()
    write_json(folder.trial(killed.number) / "progress.json", {"step": 4, "steps": 100, "seconds": 7.0})
    database.fail(killed, "killed", "its process died twice", requeue=True)
    live = database.ask()
    ends = time.time() + 1000
    with folder.lock():
        told = {"total": 50, "workers": 2, "pid": os.getpid(), "ends": ends}
        database.study.set_user_attr("run", told)
        document = study_status(folder)

    assert document["phase"] == "running"
    assert document["states"] == {"COMPLETE": 3, "PRUNED": 1, "FAIL": 2, "RUNNING": 1, "WAITING": 0}
    assert (document["finished"], document["total"], document["workers"]) == (5, 50, 2)
    assert document["best"] == {
        "fid": {"value": 150.0, "trial": 0},
        "gflops": {"value": 0.25, "trial": 1},
        "size_mb": {"value": 0.5, "trial": 0},
    }
    # Of a box of 300 x 1 x 1: 150 x 0.5 x 0.5, and beside it 60 x 0.25 x 0.5.
    steps = [(0, 10.0, 0.125), (1, 40.0, 0.15), (2, 44.0, 0.15), (3, 54.0, 0.15), (4, 54.0, 0.15), (5, 61.0, 0.15)]
    names = ("trial", "seconds", "hypervolume")
    assert document["history"] == [pytest.approx(dict(zip(names, step, strict=True))) for step in steps]
    assert document["hypervolume"] == pytest.approx(0.15) and document["seconds_spent"] == 61.0
    # 45 to go, one of which has just begun, at (10 + 30 + 4 + 10) / 4 seconds each with two workers.
    assert document["seconds_left"] == pytest.approx(22.5 * 13.5, abs=14) and document["limit"] == "trials"
    assert [trial["number"] for trial in document["live"]] == [live.number]
    last, first = document["failures"]
    assert (last["number"], last["cause"], last["message"]) == (5, "killed", "its process died twice")
    assert (first["number"], first["cause"]) == (4, "nan") and 0 <= last["seconds_ago"] <= first["seconds_ago"] < 60
    assert document["stopped"] == {"0": 1} and document["seconds_saved"] == 6.0
    assert json.loads(json.dumps(document, allow_nan=False)) == document

    text = text_of(document)
    assert "engine: running (process" in text and "1 of 2 workers busy" in text
    assert "best of each: FID 150.00 (trial 0), 0.25 GFLOPs (trial 1), 0.5 MB (trial 0)" in text
    assert "last gains: trial 1 +0.025" in text and "before time is up at" in text
    assert "trial 5, 0 s ago: killed: its process died twice" in text


def test_time_that_is_up_before_the_trials_are_done(folder: RunFolder) -> None:
    write_json(folder.baselines, REFERENCE)
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    with folder.lock():
        told = {"total": 50, "workers": 2, "pid": os.getpid(), "ends": time.time() + 100.5}
        database.study.set_user_attr("run", told)
        document = study_status(folder)
        assert (document["limit"], document["finished_then"]) == ("hours", 21)
        assert document["seconds_left"] == pytest.approx(100, abs=10)
        assert "with about 21 trials" in text_of(document)
        database.study.set_user_attr("run", {**told, "pid": -1})
        document = study_status(folder)
        assert (document["phase"], document["ends"]) == ("preparing", None), "what another run has told is not of this"
    assert study_status(folder)["phase"] == "stopped"
    database.study.set_user_attr("run", {"total": 1, "workers": 2})
    assert study_status(folder)["phase"] == "finished"


def test_advice_after_fifteen_trials_without_a_gain(folder: RunFolder) -> None:
    write_json(folder.baselines, REFERENCE)
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    for _ in range(14):
        end(database, 160.0, 0.5)
    assert study_status(folder)["advice"] == []
    end(database, 160.0, 0.5)
    document = study_status(folder)
    assert document["advice"][0]["kind"] == "stalled" and document["advice"][-1]["kind"] == "stop"
    text = text_of(document)
    assert "the last 15 finished trials added nothing to the hypervolume since trial 0:" in text
    assert "try sampler: nsga2" in text


def test_looking_again_reads_only_what_has_changed(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(folder.baselines, REFERENCE)
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    end(database, 160.0, 0.25)
    read: list[int] = []
    whole = StudyDatabase.read_result
    monkeypatch.setattr(
        StudyDatabase, "read_result", lambda self, number: (read.append(number), whole(self, number))[1]
    )
    reader = StatusReader(folder)
    first = reader.read()
    assert reader.read()["history"] == first["history"] and read == [0, 1]
    end(database, 140.0, 0.125)
    document = reader.read()
    assert read == [0, 1, 2] and document["finished"] == 3
    fresh = study_status(folder)
    assert {**document, "failures": []} == {**fresh, "failures": []}
    reader.close()


def test_a_database_that_was_made_anew_and_a_total_that_was_raised(folder: RunFolder) -> None:
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    end(database, 160.0, 0.25)
    reader = StatusReader(folder)
    assert (reader.read()["finished"], reader.read()["total"]) == (2, 6)
    folder.database.rename(folder.path / "old.db")
    assert reader.read()["finished"] == 0
    (folder.path / "old.db").replace(folder.database)
    assert reader.read()["finished"] == 2
    text = folder.resolved_yaml.read_text()
    write_text(folder.resolved_yaml, text.replace("trials: 6", "trials: 60"))
    assert reader.read()["total"] == 60
    reader.close()


def test_a_moment_in_which_nothing_can_be_read_passes(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(folder, folder.config())
    end(database, 150.0, 0.5)
    monkeypatch.setattr("gs_search.monitor.status.PAUSE_S", 0.0)
    errors: list[Exception] = [StorageInternalError("database is locked"), BadInput("torn"), OSError("stale handle")]
    trials = StudyDatabase.trials

    def busy(self: StudyDatabase) -> Any:
        if errors:
            raise errors.pop(0)
        return trials(self)

    monkeypatch.setattr(StudyDatabase, "trials", busy)
    errors[2:] = []
    assert study_status(folder)["finished"] == 1 and errors == []
    errors[:] = [StorageInternalError("database is locked")] * 9
    with pytest.raises(BadInput, match="cannot be read .StorageInternalError"):
        study_status(folder)
    errors[:] = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        study_status(folder)

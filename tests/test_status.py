"""What ``status`` says, without a run and after one was cut off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "search"))

from engine_studies import record_of, write_study  # noqa: E402

from gs_search.config import load_study  # noqa: E402
from gs_search.errors import BadInput  # noqa: E402
from gs_search.runfolder import RunFolder  # noqa: E402
from gs_search.search.database import open_database  # noqa: E402
from gs_search.status import render_status, study_status  # noqa: E402


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
    assert (document["finished"], document["total"], document["running"], document["front"]) == (
        0,
        6,
        False,
        [],
    )
    assert not folder.database.exists(), "looking makes nothing"
    assert "engine: not running\n0 of 6 trials finished (none yet)" in text_of(document)


def test_a_study_that_was_cut_off(folder: RunFolder) -> None:
    folder.write_json(folder.baselines, {"input": {"fid": 300.0}, "teacher": {"gflops": 1.0, "size_mb": 1.0}})
    database = open_database(folder, folder.config())
    for _ in range(2):
        asked = database.ask()
        database.tell(record_of(database, asked, seconds=120.0))
    database.fail(database.ask(), "nan", "fid is nan")
    cut = database.ask()
    folder.write_json(folder.trial(cut.number) / "progress.json", {"step": 40, "steps": 100, "seconds": 3.0})

    document = study_status(folder)
    assert document["states"] == {"COMPLETE": 2, "PRUNED": 0, "FAIL": 1, "RUNNING": 1, "WAITING": 0}
    assert document["finished"] == 3 and document["causes"] == {"nan": 1}
    assert document["seconds_a_trial"] == 120.0 and document["seconds_left"] is None
    assert document["live"] == [{"number": 3, "point": cut.point, "step": 40, "steps": 100, "seconds": 3.0}]
    assert 0 < document["hypervolume"] < 1 and set(document["front"]) <= {0, 1}
    text = text_of(document)
    assert "failures: 1 nan" in text and "trial 3: cut off; the next run repeats it" in text
    assert "a trial takes 2 min" in text

    with folder.lock():
        document = study_status(folder)
    assert document["running"] and document["seconds_left"] == 360.0
    assert "trial 3: step 40 of 100" in text_of(document)


def test_a_damaged_database_is_said_to_be_one(folder: RunFolder) -> None:
    open_database(folder, folder.config()).ask()
    folder.database.write_bytes(folder.database.read_bytes()[:5000])
    with pytest.raises(BadInput, match="damaged"):
        study_status(folder)

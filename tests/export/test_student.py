"""Which student is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gs_search.cli import main
from gs_search.errors import BadInput
from gs_search.export.student import find_student, notes
from gs_search.results.pick import Wish, pick_document, save_pick
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import write_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished study whose trials have (empty) students."""
    folder = write_run(tmp_path / "run", trials=8)
    for number in range(8):
        (folder.trial(number) / "student.safetensors").touch()
    return folder


FULL = {"schedule": {"steps": 400}, "best_step": 400, "short": {"objectives": {"fid": 1.0}}}


def retrain(folder: RunFolder, number: int) -> Path:
    place = folder.path / "retrain" / str(number)
    write_json(place / "result.json", {**read_json(folder.trial(number) / "result.json"), **FULL})
    (place / "student.safetensors").touch()
    return place


def test_a_trial_by_its_number(folder: RunFolder) -> None:
    chosen = find_student(folder, trial=3)
    assert (chosen.number, chosen.kind, chosen.label) == (3, "trial", "trial 3")
    assert chosen.file == folder.trial(3) / "student.safetensors"
    retrain(folder, 3)
    assert find_student(folder, trial=3).kind == "trial"


def test_the_recorded_choice_prefers_the_full_training(folder: RunFolder) -> None:
    save_pick(folder, pick_document(folder, Wish(trial=2)))
    assert find_student(folder).label == find_student(folder, saved=True).label == "trial 2"
    place = retrain(folder, 2)
    chosen = find_student(folder, saved=True)
    assert (chosen.label, chosen.file) == ("trial 2, retrained", place / "student.safetensors")
    assert find_student(folder, retrained=2) == chosen


def test_what_is_not_there(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="which student"):
        find_student(folder)
    with pytest.raises(BadInput, match="nothing has been picked"):
        find_student(folder, saved=True)
    with pytest.raises(BadInput, match="has no trial 99"):
        find_student(folder, trial=99)
    with pytest.raises(BadInput, match="has not been retrained"):
        find_student(folder, retrained=3)
    with pytest.raises(BadInput, match=r"left no student \(FAIL, nan\)"):
        find_student(folder, trial=5)
    with pytest.raises(BadInput, match="give one of them"):
        find_student(folder, trial=3, saved=True)
    assert main(["export", str(folder.path), "--trial", "99"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_a_file_says_of_itself(folder: RunFolder) -> None:
    told = notes(folder, find_student(folder, trial=3), None)
    assert told["study"] == "quickstart" and told["student"] == "trial 3"
    assert json.loads(told["point"]) == read_json(folder.trial(3) / "result.json")["point"]
    assert json.loads(told["protocol"]) == read_json(folder.baselines)["protocol"]
    assert told["teacher_licence"].startswith("MIT")
    assert notes(folder, find_student(folder, trial=3), "CC BY 4.0")["teacher_licence"] == "CC BY 4.0"
    assert all(str(folder.path) not in value for value in told.values())

"""Run folders that earlier versions made open unchanged, in every verb that reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gs_search.cli import main
from gs_search.results.run_folder import RunFolder

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "fixtures" / "run_folders").glob("*/*") if path.is_dir())


@pytest.fixture(params=FOLDERS, ids=lambda path: "/".join(path.parts[-2:]))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, for verbs write reports and caches beside what is there."""
    return shutil.copytree(request.param, tmp_path / "run")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    read: dict[str, object] = json.loads(capsys.readouterr().out)
    return read


def test_what_lies_there_is_read(folder: Path) -> None:
    results = RunFolder.find(folder).results()
    assert [result.number for result in results] == list(range(len(results))) and len(results) >= 3
    config = RunFolder.find(folder).config()
    assert config.settings["precision"] == "float32" and config.image_px == 32


def test_status_and_front(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {result.number: result for result in RunFolder.find(folder).results()}
    status = document(capsys, "status", str(folder))
    assert status["finished"] == len(results)
    front = document(capsys, "front", str(folder))
    members = front["front"]
    assert members and isinstance(members, list)
    for member in members:
        stored = results[member["number"]].objectives
        assert member["objectives"] == stored
        others = [result.values for result in results.values() if result.is_complete]
        assert not any(all(other[k] < stored[k] for k in stored) for other in others)


def test_pick_and_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picked = document(capsys, "pick", str(folder))
    assert isinstance(picked["trial"], int)
    written = document(capsys, "report", str(folder))
    html = Path(str(written["report"])).read_text(encoding="utf-8")
    assert "</html>" in html
    if (folder / "retrain" / "0" / "result.json").is_file():
        assert "retrained" in html


def test_the_database_is_rebuilt_from_the_trials(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "study.db").unlink()
    rebuilt = document(capsys, "rebuild", str(folder))
    assert rebuilt["finished"] == len(RunFolder.find(folder).results())

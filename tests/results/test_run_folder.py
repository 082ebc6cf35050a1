"""Run folders: what makes one, atomic writes, torn files, and who may continue it."""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import load_study
from gs_search.system.files import write_json
from tests.conftest import SPACE, STUDY

Write = Callable[..., Path]


@pytest.fixture
def folder(write_study: Write, tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs" / "small")
    made.create(load_study(write_study()))
    return made


def test_layout(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    names = ("study_yaml", "resolved_yaml", "database", "teacher", "trials", "exports", "report_html")
    assert [getattr(folder, name).relative_to(tmp_path).name for name in names] == [
        "study.yaml", "resolved.yaml", "study.db", "teacher", "trials", "exports", "report.html",
    ]  # fmt: skip
    assert folder.trial(12) == tmp_path / "trials" / "12"
    assert os.fspath(folder) == str(tmp_path)


def test_create(folder: RunFolder) -> None:
    assert sorted(entry.name for entry in folder.path.iterdir()) == [
        "resolved.yaml", "search_space.yaml", "study.yaml",
    ]  # fmt: skip
    assert folder.study_yaml.read_text() == STUDY
    assert folder.space_yaml.read_text() == SPACE
    resolved = yaml.safe_load(folder.resolved_yaml.read_text())
    assert resolved["schema"] == 1
    assert resolved["study"]["settings"]["learning_rate"] == 1e-4
    assert {"gs-search", "python", "torch", "ray", "optuna"} <= resolved["provenance"]["versions"].keys()
    hashes = resolved["provenance"]["hashes"]
    assert len(hashes["study"]) == len(hashes["space"]) == 64 and hashes["teacher"] is None
    assert "&id" not in folder.resolved_yaml.read_text(), "no aliases: people read this file"


def test_continue_with_more_trials(folder: RunFolder, write_study: Write) -> None:
    created = folder.provenance()["created"]
    config = load_study(write_study(STUDY.replace("trials: 3", "trials: 9\nhours: 2\nworkers: 1")))
    folder.check(config)
    folder.create(config)
    assert folder.config() == config
    assert folder.provenance()["created"] == created
    assert "trials: 9" in folder.study_yaml.read_text()


@pytest.mark.parametrize(
    ("study", "space", "keys"),
    [
        (STUDY.replace("seed: 7", "seed: 8"), SPACE, "different in seed;"),
        (STUDY.replace("batch_size: 2", "batch_size: 3"), SPACE, "different in settings.batch_size;"),
        (STUDY, SPACE.replace("high: 0.9", "high: 0.8"), "space.parameters.target_gflops_ratio.high;"),
        (
            STUDY.replace("image_px: 32", "image_px: 64").replace("val: 8", "val: 9"),
            SPACE,
            "data.val, image_px;",
        ),
        (STUDY, SPACE.replace("0.5", "0.6"), "different in space.start_points;"),
        (
            STUDY.replace(
                "batch_size: 2", "batch_size: 3, steps: 1, revive: true, prune: inner, precision: float32"
            ).replace("seed: 7", "seed: 8"),
            SPACE,
            "and 1 more;",
        ),
    ],
)
def test_another_study_is_refused(folder: RunFolder, write_study: Write, study: str, space: str, keys: str) -> None:
    before = folder.resolved_yaml.read_bytes()
    config = load_study(write_study(study, space))
    for refuse in (folder.check, folder.create):
        with pytest.raises(BadInput, match="holds another study, different in") as caught:
            refuse(config)
        assert keys in str(caught.value) and "--out" in str(caught.value)
    assert folder.resolved_yaml.read_bytes() == before


def test_what_is_left_to_the_machine_stays_what_it_was(folder: RunFolder, write_study: Write) -> None:
    """A folder of a version whose default was bf16 goes on in it; one that had decided notes what."""
    auto = load_study(write_study(STUDY))
    assert auto.settings["precision"] == "auto"
    folder.decided({"precision": "float32"})
    assert yaml.safe_load(folder.resolved_yaml.read_text())["decided"] == {"precision": "float32"}
    assert folder.config() == auto

    text = folder.resolved_yaml.read_text()
    folder.resolved_yaml.write_text(text.replace("precision: auto", "precision: bf16"))
    folder.check(auto)
    folder.create(auto)
    assert folder.config().settings["precision"] == "bf16"
    named = load_study(write_study(STUDY.replace("batch_size: 2", "batch_size: 2, precision: float32")))
    with pytest.raises(BadInput, match="different in settings.precision;"):
        folder.check(named)


def test_another_checkpoint_under_the_same_name_is_refused(write_study: Write, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"old")
    config = load_study(write_study(STUDY.replace("shipped", "checkpoint, path: weights.pth")))
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    folder.create(config)
    weights.write_bytes(b"new")
    with pytest.raises(BadInput, match=r"different in teacher.path \(the content of the file\)"):
        folder.create(config)


def test_other_peoples_folders_are_left_alone(write_study: Write, tmp_path: Path) -> None:
    config = load_study(write_study())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(BadInput, match=r"holds other files \(chapter.tex\); give --out a new or empty folder"):
        RunFolder(tmp_path / "thesis").create(config)
    assert [entry.name for entry in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    with pytest.raises(BadInput, match="is a file; give a folder as --out"):
        RunFolder(tmp_path / "small.yaml").create(config)
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").create(config)


def test_find(folder: RunFolder, tmp_path: Path) -> None:
    assert RunFolder.find(folder.path).config().study == "small"
    with pytest.raises(BadInput, match="no such folder; `gs-search run STUDY.yaml` makes run folders"):
        RunFolder.find(tmp_path / "gone")
    with pytest.raises(BadInput, match="not a run folder"):
        RunFolder.find(tmp_path)


def test_write_json(folder: RunFolder) -> None:
    path = folder.trial(0) / "result.json"
    write_json(path, {"a": math.nan, "b": [1, -math.inf], "c": (2.5,), 3: None})
    assert json.loads(path.read_text()) == {"a": None, "b": [1, None], "c": [2.5], "3": None}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "note.json"
    write_json(path, {"old": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert not list(folder.path.glob(".note*"))
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}


def test_readers_never_see_half_a_file(folder: RunFolder) -> None:
    path = folder.path / "note.json"
    write_json(path, ["x"] * 1000)
    enough = threading.Event()

    def write() -> None:
        for length in itertools.count(1000):
            write_json(path, ["x"] * length)
            if enough.is_set():
                break

    writer = threading.Thread(target=write)
    writer.start()
    seen = set[int]()
    try:
        while len(seen) < 30:
            seen.add(len(json.loads(path.read_text())))
    finally:
        enough.set()
        writer.join()
    assert min(seen) >= 1000


def write_result(folder: RunFolder, number: int, **fields: Any) -> Path:
    path = folder.trial(number) / "result.json"
    write_json(path, {"number": number, "state": "COMPLETE", **fields})
    return path


def test_results_by_number(folder: RunFolder) -> None:
    assert folder.results() == []
    for number in (10, 2, 0):
        write_result(folder, number)
    folder.trial(3).mkdir()  # running
    (folder.trials / "notes").mkdir()
    assert [result.number for result in folder.results()] == [0, 2, 10]


@pytest.mark.parametrize("content", ["", '{"number": 1, "sta', "[1]", '{"number": 2, "state": "FAIL"}', "{}", "\x00"])
def test_torn_results_are_named(folder: RunFolder, content: str) -> None:
    write_result(folder, 0)
    path = write_result(folder, 1)
    path.write_text(content)
    with pytest.raises(BadInput, match=r"trials/1/result\.json") as caught:
        folder.results()
    assert "\n" not in str(caught.value)

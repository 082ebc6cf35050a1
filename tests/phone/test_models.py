"""Which file is taken: the newest, of a trial, a named one, in floats; the teacher's; what is said without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gs_search.errors import BadInput
from gs_search.phone.models import find_student_file, find_teacher_file
from gs_search.results.run_folder import RunFolder
from tests.phone.conftest import export_by_hand


def test_the_newest_of_a_kind_and_trial(folder: RunFolder) -> None:
    export_by_hand(folder, 0, when=30)
    older = export_by_hand(folder, 1, when=10)
    floats = export_by_hand(folder, 1, "onnx-float", when=40)
    newest = export_by_hand(folder, 2, when=50)
    found = find_student_file(folder)
    assert (found.file, found.label, found.kind, found.fid) == (newest, "trial 2", "whole numbers", 102.0)
    assert (found.gflops, found.multiple, found.mb) == (0.0144, 8, 14e-6)
    assert find_student_file(folder, trial=1).file == older
    assert find_student_file(folder, trial=1, floats=True).file == floats
    newest.unlink()
    assert find_student_file(folder).trial == 0, "a JSON without its file is none"
    for told in (Path(older.name), older, folder.exports / older.name):
        assert find_student_file(folder, file=told).trial == 1


def test_a_retrained_one_says_so(folder: RunFolder) -> None:
    export_by_hand(folder, 1, student={"trial": 1, "kind": "retrained"})
    assert find_student_file(folder).label == "trial 1, retrained"


def test_a_file_of_which_nothing_is_told(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"x")
    found = find_student_file(folder, file=tmp_path / "mine.onnx")
    assert (found.label, found.kind, found.fid, found.trial, found.multiple) == ("mine", "", None, None, 4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, r"exports: no exported student in whole numbers; `gs-search export \S+run` writes one; its float file"),
        ({"trial": 1}, r"of trial 1 in whole numbers; `gs-search export \S+ --trial 1` writes one; its float file is"),
        ({"trial": 2}, r"of trial 2 in whole numbers; `gs-search export \S+ --trial 2` writes one$"),
        ({"trial": 2, "floats": True}, r"of trial 2 in floats; .* writes one$"),
        ({"file": Path("none.onnx")}, r"--file none.onnx: no such file, here or in \S+exports$"),
        ({"file": Path("teacher.txt")}, r"runs .onnx files"),
        ({"file": Path("x.onnx"), "trial": 1}, "leave out --trial and --float"),
        ({"file": Path("x.onnx"), "floats": True}, "leave out --trial and --float"),
    ],
)
def test_one_line_where_there_is_none(folder: RunFolder, options: dict[str, Any], line: str) -> None:
    export_by_hand(folder, 1, "onnx-float")
    (folder.exports / "teacher.txt").write_text("")
    with pytest.raises(BadInput, match=line) as error:
        find_student_file(folder, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [{"files": []}, {"student": None}, {"files": 3}])
def test_a_json_that_is_not_ours(folder: RunFolder, damage: dict[str, Any]) -> None:
    export_by_hand(folder, 1, **damage)
    with pytest.raises(BadInput, match=r"\.onnx\.json: is not what `gs-search export` writes"):
        find_student_file(folder)


def test_the_teacher_beside_the_student_or_in_the_run_folder(folder: RunFolder, tmp_path: Path) -> None:
    student = find_student_file(folder, file=export_by_hand(folder, 1))
    beside = folder.exports / "teacher.onnx"
    beside.write_bytes(b"teacher")
    found = find_teacher_file(folder, student)
    assert (found.file, found.label, found.fid, found.gflops) == (beside, "teacher", 61.4, 0.4181)
    (tmp_path / "mine.onnx").write_bytes(b"x")
    elsewhere = find_student_file(folder, file=tmp_path / "mine.onnx")
    assert find_teacher_file(folder, elsewhere).file == beside
    (tmp_path / "teacher.onnx").write_bytes(b"teacher")
    assert find_teacher_file(folder, elsewhere).file == tmp_path / "teacher.onnx"


def test_a_teacher_that_has_to_be_written(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the export's own code, which its own tests hold; here: that it is asked for the right one."""
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    from gs_search.export import export as exporting
    from gs_search.trial.assets import TrialAssets

    (folder.trial(1) / "student.safetensors").write_bytes(b"")
    written: list[Any] = []

    def teacher_file(*arguments: Any) -> Path:
        written.append(arguments)
        path = folder.exports / "teacher.onnx"
        path.write_bytes(b"teacher")
        return path

    monkeypatch.setattr(TrialAssets, "of", lambda *arguments: "ground")
    monkeypatch.setattr(exporting, "teacher_file", teacher_file)
    student = find_student_file(folder, file=export_by_hand(folder, 1))
    assert find_teacher_file(folder, student).file == folder.exports / "teacher.onnx"
    ((run, ground, place, texts),) = written
    assert (run, ground, place) == (folder, "ground", folder.exports) and texts["study"] == "quickstart"

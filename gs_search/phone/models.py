"""Which exported file the page runs, and what is told of it: found by the JSON that ``export`` leaves beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json

__all__ = ["Model", "find_student_file", "find_teacher_file"]

KINDS = {"onnx": "whole numbers", "onnx-float": "floats"}

TEACHER = "teacher.onnx"


@dataclass(frozen=True)
class Model:
    """A file that the page runs.

    Attributes:
        label: what people call it.
        kind: ``whole numbers``, ``floats``, or nothing where no JSON tells.
        fid, gflops: None where nothing tells.
        multiple: divides the sides of every picture that it takes.
    """

    file: Path
    label: str
    kind: str = ""
    trial: int | None = None
    fid: float | None = None
    gflops: float | None = None
    multiple: int = 4

    @property
    def mb(self) -> float:
        """Bytes on disk, in 10^6."""
        return self.file.stat().st_size / 1e6

    def to_json(self) -> dict[str, Any]:
        """What the page tells of it."""
        return {"label": self.label, "kind": self.kind, "mb": self.mb, "fid": self.fid, "gflops": self.gflops}


def find_student_file(
    folder: RunFolder, *, trial: int | None = None, file: Path | None = None, floats: bool = False
) -> Model:
    """The file that was exported last: in whole numbers, or in floats where that is asked for.

    Args:
        trial: only of this trial.
        file: this one; a path, or a name in ``exports/``.

    Raises:
        BadInput: there is no such file; the message has the command that writes it.
    """
    if file is not None:
        if trial is not None or floats:
            raise BadInput("--file names the file: leave out --trial and --float")
        return _given(folder, file)
    format = "onnx-float" if floats else "onnx"
    found: list[tuple[int, Model]] = []
    others = False
    for described in folder.exports.glob("*.onnx.json"):
        path = described.with_suffix("")
        if path.is_file() and (model := _described(folder, path)) is not None and trial in (None, model[1].trial):
            if model[0] == format:
                found.append((path.stat().st_mtime_ns, model[1]))
            others |= model[0] != format
    if found:
        return max(found, key=lambda pair: (pair[0], pair[1].file.name))[1]
    whose = "exported student" if trial is None else f"exported student of trial {trial}"
    kind = KINDS[format]
    option = "" if trial is None else f" --trial {trial}"
    hint = "; its float file is there: --float takes it" if others and not floats else ""
    raise BadInput(f"{folder.exports}: no {whose} in {kind}; `gs-search export {folder}{option}` writes one{hint}")


def find_teacher_file(folder: RunFolder, student: Model, log: Callable[[str], None] = lambda line: None) -> Model:
    """The teacher's float file: as ``export`` left it beside the student's or in the run folder, else written now.

    Args:
        log: gets a line before it is written.

    Raises:
        BadInput: it has to be written, and the extra ``export`` or what the study prepared is missing.
    """
    places = (student.file.with_name(TEACHER), folder.exports / TEACHER)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        log("writing the teacher's file")
        path = _write_teacher(folder, student)
    teacher = folder.measured().teacher if folder.baselines.is_file() else None
    fid, gflops = (None, None) if teacher is None else (teacher.fid, teacher.gflops)
    return Model(path, "teacher", KINDS["onnx-float"], fid=fid, gflops=gflops)


def _given(folder: RunFolder, file: Path) -> Model:
    path = next((place for place in (file, folder.exports / file.name) if place.is_file()), None)
    if path is None:
        raise BadInput(f"--file {file}: no such file, here or in {folder.exports}")
    if path.suffix != ".onnx":
        raise BadInput(f"--file {file}: the page runs .onnx files; `gs-search export {folder}` writes them")
    described = _described(folder, path)
    return described[1] if described is not None else Model(path, path.stem)


def _described(folder: RunFolder, path: Path) -> tuple[str, Model] | None:
    """A file's format and what its JSON tells; None where there is no JSON of this package."""
    text = path.with_name(f"{path.name}.json")
    if not text.is_file():
        return None
    document = read_json(text)
    try:
        (entry,) = (entry for entry in document["files"] if entry["file"] == path.name)
        number, kind = int(document["student"]["trial"]), document["student"]["kind"]
        model = Model(
            path,
            f"trial {number}" + (", retrained" if kind == "retrained" else ""),
            KINDS.get(entry["format"], ""),
            number,
            entry.get("fid"),
            document.get("gflops"),
            int(document.get("picture_multiple", 4)),
        )
        return str(entry["format"]), model
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{text}: is not what `gs-search export` writes; export again, or move it away") from None


def _write_teacher(folder: RunFolder, student: Model) -> Path:
    from gs_search.export.onnx.float_graph import import_onnx

    import_onnx()
    from gs_search.export.export import teacher_file
    from gs_search.export.student import find_student, notes
    from gs_search.trial.assets import TrialAssets

    if not folder.baselines.is_file():
        raise BadInput(f"{folder}: this study has not been prepared; `gs-search run` does it")
    numbers = [student.trial] if student.trial is not None else [record.number for record in folder.results()]
    if not numbers:
        raise BadInput(f"{folder}: no trial has ended, so that nothing tells whose teacher this is")
    texts = notes(folder, find_student(folder, trial=numbers[0]), None)
    folder.exports.mkdir(parents=True, exist_ok=True)
    return teacher_file(folder, TrialAssets.of(folder, folder.config()), folder.exports, texts)

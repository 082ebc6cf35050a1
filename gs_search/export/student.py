"""Which student is exported, and what is known of it: its file, its result, where it and its teacher come from."""

from __future__ import annotations

import functools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gs_search import __version__
from gs_search.errors import BadInput
from gs_search.results.pick import PICK_FILE, read_pick
from gs_search.results.record import TrialRecord, read_full, read_trial
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.system.user_code import function_name

__all__ = ["Chosen", "find_student", "notes"]

SHIPPED_LICENCE = "MIT, as this package"
UNKNOWN_LICENCE = "not given; ask whoever trained it"


@dataclass(frozen=True)
class Chosen:
    """A student of a run folder.

    Attributes:
        number: its trial.
        kind: ``trial``, the short training, or ``retrained``, the full one.
        file: its ``student.safetensors``.
        result: how its training ended.
    """

    number: int
    kind: Literal["trial", "retrained"]
    file: Path
    result: TrialRecord

    @property
    def label(self) -> str:
        """As people call it."""
        return f"trial {self.number}" + (", retrained" if self.kind == "retrained" else "")


def find_student(
    folder: RunFolder, *, trial: int | None = None, retrained: int | None = None, saved: bool = False
) -> Chosen:
    """Find the student that was asked for; without a wish, the one that `pick --save` recorded.

    A recorded choice means the retrained student where there is one, else the trial's own.

    Raises:
        BadInput: there is no such student, or nothing says which.
    """
    if (trial is not None) + (retrained is not None) + saved > 1:
        raise BadInput("--trial, --retrained and --saved each name a student: give one of them")
    if retrained is not None:
        return _read(folder, folder.retrained(retrained), retrained, "retrained")
    if trial is not None:
        return _read(folder, folder.trial(trial), trial, "trial")
    if not saved and not (folder.path / PICK_FILE).is_file():
        raise BadInput(
            f"{folder.path}: which student? Give --trial N (`gs-search front {folder.path}` lists them), or choose "
            f"with `gs-search pick {folder.path} --save`"
        )
    number = int(read_pick(folder)["trial"])
    full = folder.retrained(number)
    if (full / RESULT).is_file() and (full / "student.safetensors").is_file():
        return _read(folder, full, number, "retrained")
    return _read(folder, folder.trial(number), number, "trial")


def notes(folder: RunFolder, chosen: Chosen, licence: str | None) -> dict[str, str]:
    """What an exported file says of itself, as text by name."""
    config = folder.config()
    teacher = {
        "kind": config.teacher.kind,
        "file": config.teacher.weights.name if config.teacher.weights is not None else None,
        "sha256": folder.provenance().get("hashes", {}).get("teacher"),
    }
    if config.teacher.factory is not None:
        teacher["factory"] = function_name(config.teacher.factory)
    if licence is None:
        licence = SHIPPED_LICENCE if config.teacher.kind == "shipped" else UNKNOWN_LICENCE
    return {
        "study": config.study,
        "student": chosen.label,
        "point": json.dumps(chosen.result.point, sort_keys=True),
        "protocol": json.dumps(folder.measured().protocol.to_json(), sort_keys=True),
        "teacher": json.dumps(teacher, sort_keys=True),
        "teacher_licence": licence,
        "gs_search": __version__,
        "commit": commit() or "unknown",
        "input": "N x 3 x height x width, float32, RGB, bytes / 127.5 - 1",
        "output": "as the input; clip to [-1, 1], then (value + 1) * 127.5",
    }


@functools.cache
def commit() -> str | None:
    """The commit of this package's own checkout, with ``+`` where files have changed; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _read(folder: RunFolder, place: Path, number: int, kind: Literal["trial", "retrained"]) -> Chosen:
    file, path = place / "student.safetensors", place / RESULT
    if not path.is_file():
        if kind == "retrained":
            raise BadInput(f"{folder.path}: trial {number} has not been retrained; --trial {number} takes it as it is")
        raise BadInput(f"{folder.path}: has no trial {number} that ended; `gs-search front {folder.path}` lists trials")
    result = folder.read(path, read_trial if kind == "trial" else read_full)
    if not result.is_complete or not file.is_file():
        raise BadInput(f"{file}: trial {number} left no student ({result.state}, {result.cause})")
    return Chosen(number, kind, file, result)

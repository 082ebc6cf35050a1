"""How notes, pictures and figures stand in a study, so that optuna-dashboard finds them.

A study's notes and figures are system attributes of the study, cut into pieces because some databases hold no longer
ones; a picture is a system attribute of its trial that names a file of an artifact store. These names are in people's
databases, so they do not change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gs_search.results.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore

__all__ = [
    "METRIC_NAMES", "METRIC_NAMES_KEY", "UPLOADS", "Note", "Pictures", "figure_attributes",
    "is_figure", "is_note", "note_attributes", "note_owner", "read_notes",
]  # fmt: skip

METRIC_NAMES_KEY = "study:metric_names"
METRIC_NAMES = ["FID", "GFLOPs", "size (MB)"]
"""What people read instead of ``pareto.OBJECTIVES``: with units, where there are any."""

PIECE = 2045
"""Characters of one attribute, as optuna-dashboard cuts them."""

NOTE = re.compile(r"dashboard:(?:(\d+):)?note_(ver|str:(\d+))")
FIGURE = "dashboard:plot_data:"

UPLOADS = "artifacts"
"""Folder in the run folder: what people upload, and the published pictures for ``optuna-dashboard --artifact-dir``."""


@dataclass(frozen=True)
class Note:
    """A note and how often it was saved; a browser that saves an older version is told of the conflict."""

    version: int = 0
    body: str = ""


def read_notes(attributes: Mapping[str, Any]) -> dict[int | None, Note]:
    """Find the notes among a study's system attributes: by the id of the trial, that of the study under None."""
    versions: dict[int | None, int] = {}
    pieces: dict[int | None, dict[int, str]] = {}
    for key, value in attributes.items():
        if key.startswith("dashboard:") and (found := NOTE.fullmatch(key)):
            trial_id = int(found[1]) if found[1] else None
            if found[2] == "ver":
                versions[trial_id] = int(value)
            else:
                pieces.setdefault(trial_id, {})[int(found[3])] = str(value)
    bodies = {trial_id: "".join(text for _, text in sorted(parts.items())) for trial_id, parts in pieces.items()}
    return {trial_id: Note(version, bodies.get(trial_id, "")) for trial_id, version in versions.items()}


def note_attributes(trial_id: int | None, note: Note) -> dict[str, Any]:
    """System attributes of the study that hold a note."""
    place = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    return {f"{place}note_ver": note.version, **_pieces(f"{place}note_str:", note.body)}


def is_note(key: str) -> bool:
    """Whether a system attribute of the study is a piece of a note, its own or a trial's."""
    return key.startswith("dashboard:") and NOTE.fullmatch(key) is not None


def note_owner(key: str) -> int | None:
    """Id of the trial that a piece of a note belongs to, None for the study's; raises ValueError for other keys."""
    found = NOTE.fullmatch(key)
    if found is None:
        raise ValueError(f"{key}: no piece of a note")
    return int(found[1]) if found[1] else None


def figure_attributes(name: str, figure: str) -> dict[str, Any]:
    """System attributes of the study that hold a figure, which is Plotly's JSON.

    Args:
        name: letters, digits, ``-``, ``_``, ``:`` and ``.``; it becomes a part of an HTML id.
    """
    return _pieces(f"{FIGURE}{name}:", figure)


def is_figure(key: str, name: str) -> bool:
    """Whether a system attribute of the study is a piece of that figure."""
    return key.startswith(f"{FIGURE}{name}:") and key.rpartition(":")[2].isdecimal()


def _pieces(prefix: str, text: str) -> dict[str, Any]:
    return {f"{prefix}{start // PIECE}": text[start : start + PIECE] for start in range(0, len(text), PIECE)}


class Pictures:
    """The sample grids of a run folder as artifacts; also the artifact store in which the dashboard finds them.

    The id of a picture is made of the study and the trial's number, so that it is the same whoever asks, and nothing
    but the trials' own ``samples.png`` can be asked for. Other ids are files of ``artifacts/``: what people upload.
    """

    FILE = "samples.png"
    PREFIX = "artifacts:"

    def __init__(self, folder: RunFolder, study: str) -> None:
        self._folder = folder
        self._uploaded = folder.path / UPLOADS
        # Another one for each study: a database may hold several.
        self._mark = f"{hashlib.sha256(study.encode()).hexdigest()[:8]}-7361-4d70-8c65-"

    def artifact_id(self, number: int) -> str:
        """Id of a trial's picture: hexadecimal digits and hyphens."""
        return f"{self._mark}{number:012x}"

    def path(self, number: int) -> Path:
        """Where a trial's picture lies, if it has one."""
        return self._folder.trial(number) / self.FILE

    def key(self, number: int) -> str:
        """Name of the trial's system attribute."""
        return self.PREFIX + self.artifact_id(number)

    def meta(self, number: int) -> str:
        """Value of the trial's system attribute."""
        return json.dumps(
            {
                "artifact_id": self.artifact_id(number),
                "filename": f"trial-{number}-input-teacher-student.png",
                "mimetype": "image/png",
                "encoding": None,
            }
        )

    def attribute(self, number: int) -> dict[str, str]:
        """System attribute of a trial that shows its picture; none where it has no picture."""
        return {self.key(number): self.meta(number)} if self.path(number).is_file() else {}

    # --- what optuna.artifacts asks of a store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact; raises optuna's ArtifactNotFound."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        number = artifact_id.removeprefix(self._mark)
        if not artifact_id.startswith(self._mark) or not re.fullmatch("[0-9a-f]{12}", number):
            return self._uploads().open_reader(artifact_id)
        try:
            return self.path(int(number, 16)).open("rb")
        except OSError:
            raise ArtifactNotFound(f"trial {int(number, 16)} has no picture") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep what somebody uploads."""
        self._uploaded.mkdir(exist_ok=True)
        self._uploads().write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove an upload; raises optuna's ArtifactNotFound, also for the trials' own pictures: they stay."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        if artifact_id.startswith(self._mark):
            raise ArtifactNotFound("the pictures of a trial stay with it")
        self._uploads().remove(artifact_id)

    def _uploads(self) -> FileSystemArtifactStore:
        from optuna.artifacts import FileSystemArtifactStore

        return FileSystemArtifactStore(self._uploaded)

"""How the local copy of a run folder and its objects come together before a run begins: nothing of either is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from gs_search.errors import BadInput
from gs_search.remote.mirror import BACKUP, DATABASE, LOCK, Mirror, is_light, is_private
from gs_search.remote.store import Stamp

__all__ = ["RESOLVED", "join", "look", "meet"]

RESOLVED = "resolved.yaml"

LEFT = "left"
"""Beside the copy: what an earlier study of the same URI had left in it. The last one of these is kept."""


def look(mirror: Mirror, *, whole: bool) -> None:
    """Bring a copy up to date that is looked at, and not worked in.

    Args:
        whole: weights and the groundwork too.

    Raises:
        BadInput: there is no such bucket, or it may not be read.
    """
    if not _same_study(mirror):
        _need_bucket(mirror)
        return
    mirror.refresh(lambda name: name != LOCK and (whole or is_light(name)))


def meet(mirror: Mirror) -> None:
    """Have the study that the store has, if it has one, in the copy: just what it is, and none of its results."""
    if _same_study(mirror):
        mirror.fetch(RESOLVED)
    else:
        _need_bucket(mirror)


def _need_bucket(mirror: Mirror) -> None:
    if not mirror.store.has_bucket():
        raise BadInput(f"{mirror.store.uri}: there is no such bucket; make it, or mend the name")


def _same_study(mirror: Mirror) -> bool:
    """Whether the store has a study; a copy of another one, which had the same URI before, is put aside."""
    content = mirror.store.read(RESOLVED)
    here = mirror.folder / RESOLVED
    mine = _identity(here.read_bytes()) if here.is_file() else None
    if here.is_file() and (content is None or mine != _identity(content)):
        _put_aside(mirror.folder)
    return content is not None


def join(mirror: Mirror, *, database: bool) -> None:
    """Make copy and store the same; only whoever runs the study may.

    Of a file that is here and there the newer one stays; a run of this machine may have ended while the store was away.
    The database that is here stays if nobody else has sent one since, for it knows more than what was sent of it.

    Args:
        database: the study is kept in the folder, and not by a server.
    """
    if not _same_study(mirror):
        return
    there = mirror.store.entries()
    here = mirror.files()
    if database and not mirror.owns_database(there):
        for name in (DATABASE, BACKUP, *(f"{DATABASE}{ending}" for ending in ("-journal", "-wal", "-shm"))):
            (mirror.folder / name).unlink(missing_ok=True)
        mirror.fetch(DATABASE)
        if (fetched := mirror.folder / DATABASE).is_file():
            _remember(fetched, mirror.folder / BACKUP)
    theirs: list[str] = []
    ours: list[str] = []
    for name in {*there, *here} - {DATABASE, LOCK}:
        if not is_light(name) or is_private(name):
            continue
        mine, other = here.get(name), there.get(name)
        if mine != other:
            (ours if _is_newer(mine, other) else theirs).append(name)
    mirror.fetch_all(theirs)
    mirror.send(*(mirror.folder / name for name in ours))


def _is_newer(mine: Stamp | None, other: Stamp | None) -> bool:
    return mine is not None and (other is None or mine.mtime_ns > other.mtime_ns)


def _remember(database: Path, backup: Path) -> None:
    """Have the copy of the database say whose the database is that was fetched."""
    shutil.copy2(database, backup)


def _put_aside(folder: Path) -> None:
    entries = [entry for entry in folder.iterdir() if entry.name != LOCK and not entry.name.startswith(".")]
    if not entries:
        return
    left = folder.with_name(f"{folder.name}.{LEFT}")
    shutil.rmtree(left, ignore_errors=True)
    left.mkdir()
    for entry in entries:
        os.rename(entry, left / entry.name)


def _identity(content: bytes) -> Any:
    try:
        return yaml.safe_load(content)["provenance"]["id"]
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        return content

"""The copy of a study's SQLite database that is kept while it runs, and what to do once the database is damaged.

The copy lies beside ``study.db`` as ``study.db.backup``. It is whole at any moment, because it is written under
another name first, and it is never replaced by a copy of a damaged database.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gs_search.errors import BadInput
from gs_search.search.storage import close_study, damage, is_counted, open_study
from gs_search.system.text import duration

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder

__all__ = ["COMPANIONS", "RollingCopy", "copy_file", "finished_in", "remove_file", "ways_out"]

# A copy takes some ten milliseconds, a trial takes seconds to hours; what the copy lacks is in trials/ anyway.
EVERY_TRIALS = 10
EVERY_S = 300.0

COMPANIONS = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps beside a database. Left beside another file, they would damage it."""


class RollingCopy:
    """Keeps the copy fresh; only the process that runs the study may, and it calls ``told`` after each trial.

    A copy that cannot be made is noted and costs the search nothing.
    """

    def __init__(self, folder: RunFolder, note: Callable[[str], None]) -> None:
        self._source = folder.database
        self._target = folder.backup
        self._note = note
        self._told = 0
        self._made_at: float | None = None
        self._noted = ""

    def told(self) -> None:
        """Count a trial; copy after the first of a run, and after so many, or so much time, from then on."""
        self._told += 1
        late = self._made_at is None or time.monotonic() - self._made_at >= EVERY_S
        if late or self._told >= EVERY_TRIALS:
            self.make()

    def make(self) -> None:
        """Copy now. Raises nothing."""
        self._told, self._made_at = 0, time.monotonic()
        try:
            copy_file(self._source, self._target)
        except (OSError, sqlite3.Error, BadInput) as error:
            line = f"no new copy of {self._source.name}: {error}"
            if line != self._noted:
                self._note(line)
            self._noted = line


def copy_file(source: Path, target: Path) -> None:
    """Copy a SQLite file, which others may be writing, and put the copy in place whole.

    Raises:
        BadInput: what came out is damaged, so the source is; the older copy stays.
        OSError, sqlite3.Error: the source cannot be read, or the copy not written.
    """
    draft = target.with_name(f".{target.name}.draft")
    remove_file(draft)  # of a run that died while it copied
    try:
        with closing(sqlite3.connect(source, timeout=60)) as live, closing(sqlite3.connect(draft)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")  # nobody needs half a draft back
            live.backup(copy)
        if problem := damage(draft):
            raise BadInput(f"{source} is damaged ({problem}); {target.name} stays as it is")
        os.replace(draft, target)
    finally:
        remove_file(draft)


def remove_file(path: Path) -> None:
    """Remove a SQLite file and what belongs to it, whatever of it is there."""
    for ending in (*COMPANIONS, ""):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def finished_in(path: Path, study: str) -> int | None:
    """Count the finished trials of a database file; None where there is none, or it cannot be used."""
    try:
        if not path.is_file() or path.stat().st_size == 0 or damage(path):
            return None
        found = open_study(study, path, read_only=True)
        try:
            return sum(map(is_counted, found.get_trials(deepcopy=False)))
        finally:
            close_study(found)
    except (OSError, sqlite3.Error, BadInput, ValueError, LookupError):  # the latter two: nonsense in whole pages
        return None


def ways_out(folder: RunFolder, study: str) -> str:
    """Say, as the second half of an error's line, how to come by a sound database again."""
    place = shlex.quote(str(folder.path))
    line = f"`gs-search rebuild {place}` makes it anew from trials/"
    finished = finished_in(folder.backup, study)
    if finished is None:
        there = folder.backup.exists()
        return f"{line} ({'its copy study.db.backup is damaged too' if there else 'there is no copy of it'})"
    old = duration(time.time() - folder.backup.stat().st_mtime)
    source, target = shlex.quote(str(folder.backup)), shlex.quote(str(folder.database))
    # What is left of a commit that was cut off would be undone in the copy, and damage that.
    stale = [shlex.quote(f"{folder.database}{ending}") for ending in COMPANIONS if _beside(folder.database, ending)]
    first = f"rm {' '.join(stale)} && " if stale else ""
    return f"{line}, or take its copy, {old} old, with {finished} finished trials: `{first}cp {source} {target}`"


def _beside(path: Path, ending: str) -> bool:
    return path.with_name(path.name + ending).exists()

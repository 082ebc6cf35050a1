"""The local copy of a run folder in an object store, and what passes between the two.

A file and its object are the same where size and time are: a file that was sent or fetched has the time that the store
gave it, as with rsync. So nothing has to be remembered, and processes that share a copy need not agree.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from gs_search.errors import BadInput
from gs_search.remote.store import Stamp, Store

__all__ = ["BACKUP", "DATABASE", "LAST", "LOCK", "Mirror", "is_light", "is_private"]

LOCK, DATABASE, BACKUP = "lock", "study.db", "study.db.backup"

VIEWS = "retrain/views.bin"
"""The file of ``trial.lessons.fresh_lessons``."""

LAST = ("result.json", "baselines.json", "resolved.yaml")
"""Names of files that vouch for those beside them: they are sent last, and fetched last."""

AT_ONCE = 8
"""Objects that are fetched at the same time."""

RACY_S, SETTLED_S = 2.0, 3600.0
"""Stores tell time in seconds: what was written just before the newest object may have been written once more in the
same second. What is older than an hour has not."""


class Mirror:
    """A folder and its objects.

    Args:
        folder: the local copy; it need not exist.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._seen: dict[str, Stamp] = {}
        """Stamps of local files after the last refresh."""
        self._there: dict[str, Stamp] = {}
        """Objects at the last refresh."""
        self.was_refreshed = False

    # --- from the store

    def refresh(self, wanted: Callable[[str], bool], *, racy: bool = True) -> dict[str, Stamp]:
        """Fetch what is wanted and is not here as it is there; return all that is there.

        Args:
            wanted: gets the names of objects.
            racy: fetch again what may have changed within a second.
        """
        there = self._there = self.store.entries()
        newest, now = max((stamp.mtime_ns for stamp in there.values()), default=0), time.time_ns()

        def differs(name: str, stamp: Stamp) -> bool:
            if self.stamp(name) != stamp:
                return True
            young = stamp.mtime_ns > newest - RACY_S * 1e9 and stamp.mtime_ns > now - SETTLED_S * 1e9
            return racy and young

        self.fetch_all([name for name, stamp in there.items() if wanted(name) and differs(name, stamp)])
        self._seen, self.was_refreshed = self.files(), True
        return there

    def fetch(self, *names: str) -> None:
        """Fetch objects that are not here, or other than there; those that are not there are left."""
        for name in names:
            stamp = self.store.stamp(name)
            if stamp is not None and self.stamp(name) != stamp:
                self.store.fetch(name, self._path(name))

    def fetch_below(self, top: str) -> None:
        """Fetch a whole part, as ``teacher``; one process of this machine does, and the others wait for it."""
        with self._alone(f".{top}.fetching"):
            there = self.store.entries(top)
            self.fetch_all([name for name, stamp in there.items() if self.stamp(name) != stamp])

    def fetch_trials(self) -> None:
        """Fetch what trials have left that every look may want."""
        there = self.store.entries("trials")
        self.fetch_all([name for name, stamp in there.items() if is_light(name) and self.stamp(name) != stamp])

    def fetch_all(self, names: Iterable[str]) -> None:
        """Fetch objects, several at once, and those that vouch for others last."""
        early: list[str] = []
        late: list[str] = []
        for name in names:
            (late if PurePosixPath(name).name in LAST else early).append(name)
        for batch in (early, late):
            if batch:
                with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
                    list(pool.map(lambda name: self.store.fetch(name, self._path(name)), batch))

    # --- to the store

    def send(self, *paths: Path) -> None:
        """Send files of the folder in this order, those that vouch for others last; what is gone is left."""
        for path in sorted(paths, key=lambda path: path.name in LAST):
            self.store.send(path, self._name(path))

    def send_below(self, path: Path, *, but: Iterable[str] = ()) -> None:
        """Send all that has changed below a folder.

        Args:
            but: names of files that stay here.
        """
        there = self.store.entries(self._name(path))
        files = [file for file in path.rglob("*") if file.is_file() and not is_private(self._name(file))]
        self.send(*(f for f in files if f.name not in but and self.stamp(self._name(f)) != there.get(self._name(f))))

    def send_backup(self) -> None:
        """Send the copy of the study's database as the database; its time then says whose the database there is."""
        self.store.send(self.folder / BACKUP, DATABASE)

    def owns_database(self, there: dict[str, Stamp]) -> bool:
        """Whether the database there is what this copy has sent, so that the one here is as new or newer."""
        return DATABASE in there and self.stamp(BACKUP) == there[DATABASE]

    def changed(self) -> list[Path]:
        """Files that are other than at the last refresh, or that the store lacks."""
        now = self.files()
        names = [name for name, stamp in now.items() if self._seen.get(name) != stamp or name not in self._there]
        return [self._path(name) for name in names if self._there.get(name) != now[name]]

    def forget_files(self, *paths: Path) -> None:
        """Delete the objects of files, and not the files."""
        self.store.delete([self._name(path) for path in paths])

    def forget_below(self, top: str) -> None:
        """Delete all objects of a part."""
        self.store.delete(self.store.entries(top))

    def impatient(self) -> Mirror:
        """The same, of somebody who does not wait for a store that is away."""
        return Mirror(Store(self.store.uri), self.folder)

    # --- the folder

    def stamp_of(self, path: Path) -> Stamp | None:
        """Of a file; None where there is none."""
        return self.stamp(self._name(path))

    def stamp(self, name: str) -> Stamp | None:
        """Of a file; None where there is none."""
        try:
            found = self._path(name).stat()
        except OSError:
            return None
        return Stamp(found.st_size, found.st_mtime_ns)

    def files(self) -> dict[str, Stamp]:
        """All files of the folder that are not of this copy alone, by name."""
        found = {}
        for root, _, files in os.walk(self.folder):
            for file in files:
                name = self._name(Path(root, file))
                stamp = None if is_private(name) else self.stamp(name)
                if stamp is not None:
                    found[name] = stamp
        return found

    def _path(self, name: str) -> Path:
        pieces = PurePosixPath(name).parts
        if ".." in pieces or name.startswith("/"):  # an object may be called so
            raise BadInput(f"{self.store.uri}: has an object that no file can be called like: {name!r}")
        return self.folder.joinpath(*pieces)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def is_light(name: str) -> bool:
    """Whether an object is one that every look at a study may want: no weights, no pictures of the assets."""
    top, _, rest = name.partition("/")
    if top in ("checkpoints", "artifacts") or name.endswith(".safetensors"):
        return False
    return top != "teacher" or rest == "baselines.json"


def is_private(name: str) -> bool:
    """Whether a file is of this copy alone: drafts, SQLite's companions, the lock, what a trial says of the moment, and
    the views of full trainings, which are many and soon painted anew."""
    last = name.rpartition("/")[2]
    own = name in (LOCK, VIEWS) or last == "progress.json" or last.startswith(".")
    return own or name.startswith((BACKUP, f"{DATABASE}-"))

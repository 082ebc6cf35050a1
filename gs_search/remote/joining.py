"""How the local copy of a run folder and its objects come together before a run begins: nothing of either is lost."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from gs_search.errors import BadInput, GsSearchError
from gs_search.remote.lease import holder_there
from gs_search.remote.location import checked, copy_of
from gs_search.remote.mirror import BACKUP, DATABASE, LOCK, Mirror, is_light, is_private
from gs_search.remote.store import Stamp, Store

__all__ = [
    "EVERY_S",
    "RESOLVED",
    "following",
    "guest_problem",
    "join",
    "look",
    "meet",
    "mirror_of",
    "probed",
    "send_back",
]

RESOLVED = "resolved.yaml"

LEFT = "left"
"""Beside the copy: what an earlier study of the same URI had left in it. The last one of these is kept."""


def look(mirror: Mirror, *, whole: bool) -> None:
    """Bring a copy up to date that is looked at, and not worked in.

    Args:
        whole: weights and the assets too.

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


_opened: dict[tuple[str, Path], Mirror] = {}


def mirror_of(uri: str, *, at_work: bool = False) -> Mirror:
    """The copy of a run folder; nothing is asked of the store yet.

    Args:
        at_work: of a process that runs the study, or a trial of it.

    Raises:
        BadInput: the URI will not do.
    """
    uri = checked(uri)
    place = copy_of(uri, at_work=at_work)
    return _opened.setdefault((uri, place), Mirror(Store(uri), place))


def send_back() -> list[str]:
    """Send what has changed in copies that were looked at; return the names.

    Raises:
        BadInput: the store refuses it, or a run that lives elsewhere has the database; the copy here has it.
    """
    sent = []
    for mirror in _opened.values():
        changed = mirror.changed() if mirror.was_refreshed else []
        names = [path.relative_to(mirror.folder).as_posix() for path in changed]
        if DATABASE in names and (holder := holder_there(mirror.store)):
            raise BadInput(
                f"{mirror.store.uri}: process {holder['pid']} on {holder['host']} runs this study, and its {DATABASE} "
                "cannot be changed from here; have the study in a database server (GS_SEARCH_STORAGE), or wait"
            )
        mirror.send(*changed)
        sent += names
    return sent


PATIENCE_S = 60.0
"""How long a node waits for the store; the driver waits twice as long for its answer."""


@contextmanager
def probed(uri: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Put an object with a word that nobody else knows below a URI; yields its name and the word.

    Args:
        prefix: of its name.
    """
    store, word = mirror_of(uri, at_work=True).store, secrets.token_hex(16)
    name = f"{prefix}{word[:8]}"
    store.write(name, word.encode())
    try:
        yield name, word
    finally:
        with suppress(GsSearchError):
            store.delete([other for other in store.entries() if other.startswith(prefix)])


def guest_problem(uri: str, probe: str, word: str, mark: str) -> str | None:
    """What speaks against a node, or None.

    Args:
        probe: name of an object that the driver has written, with ``word`` in it.
        mark: the node writes an object of this ending; empty where it shall not.
    """
    store = Store(uri, patience_s=PATIENCE_S)
    try:
        if store.read(probe) != word.encode():
            return f"sees other objects at {uri}, and not those of this machine"
        if mark:
            store.write(f"{probe}.{mark}", word.encode())
            store.delete([f"{probe}.{mark}"])
    except GsSearchError as error:
        return f"cannot use the run folder {error}; it needs credentials of its own, where Ray is started"
    return None


EVERY_S = 10.0
"""Between two looks."""

_LAST_LOOK_S = 10.0
"""How long the end waits for a look that has begun: a store that does not answer keeps nobody longer."""


@contextmanager
def following(refresh: Callable[[], None], every: float = EVERY_S) -> Iterator[None]:
    """Refresh in a thread while the context lasts.

    Args:
        refresh: brings the copy up to date; a store that is away is asked again.
        every: seconds between two looks.
    """
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every):
            with suppress(GsSearchError):
                refresh()

    thread = threading.Thread(target=follow, name="following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=_LAST_LOOK_S)

"""The copies of run folders that this process has opened, each once; what a verb has written goes back when it ends."""

from __future__ import annotations

from pathlib import Path

from gs_search.errors import BadInput
from gs_search.remote.lease import holder_there
from gs_search.remote.location import checked, copy_of
from gs_search.remote.mirror import DATABASE, Mirror
from gs_search.remote.store import Store

__all__ = ["mirror_of", "send_back"]

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

"""What a node of a cluster shows before it may run trials: that it can read and write the objects of a run folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gs_search.errors import GsSearchError
from gs_search.remote.opened import mirror_of
from gs_search.remote.store import Store

__all__ = ["guest_problem", "probed"]

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

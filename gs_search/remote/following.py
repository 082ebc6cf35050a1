"""Following a run folder in an object store: its local copy is brought up to date again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from gs_search.errors import GsSearchError

__all__ = ["EVERY_S", "following"]

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

"""A copy that follows what happens in the store."""

from __future__ import annotations

import threading
import time

from gs_search.errors import GsSearchError
from gs_search.remote.joining import following


def test_it_looks_again_also_after_the_store_was_away() -> None:
    looks, seen = [], threading.Event()

    def refresh() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise GsSearchError("away")
        seen.set()

    with following(refresh, 0.001):
        assert seen.wait(20)
    assert not [t for t in threading.enumerate() if t.name == "following"]


def test_the_end_waits_for_a_look_that_has_begun() -> None:
    begun, done = threading.Event(), []

    def refresh() -> None:
        begun.set()
        time.sleep(0.2)
        done.append(1)

    with following(refresh, 0.001):
        assert begun.wait(20)
    assert done

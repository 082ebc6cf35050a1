"""A copy that follows what happens in the store."""

from __future__ import annotations

import threading

from gs_search.errors import GsSearchError
from gs_search.remote.following import following


def test_it_looks_again_also_after_the_store_was_away() -> None:
    looks, seen = [], threading.Event()

    def refresh() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise GsSearchError("away")
        seen.set()

    with following(refresh, 0.001):
        assert seen.wait(20)
    count = len(looks)
    assert not [t for t in threading.enumerate() if t.name == "following"] and len(looks) == count

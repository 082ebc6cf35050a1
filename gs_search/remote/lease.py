"""Who runs a study whose folder is in an object store: an object that its holder writes again and again.

Stores of all makers can put an object in place and read it back; only some can refuse the second of two writers, and
pyarrow asks none of them to. So a holder writes, waits, and reads whether it is still the one; and reads again before
every later write: of two that began in the same instant the later one stays, and the other ends within a beat. A holder
on this machine lives as long as its process does; one elsewhere as long as its object changes, watched for ``LIFE_S``:
no two clocks are compared.
"""

from __future__ import annotations

import json
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gs_search.errors import GsSearchError, StudyBusy
from gs_search.remote.mirror import LOCK
from gs_search.remote.store import Store
from gs_search.system.lock import HOLDER, alive, myself, same

__all__ = ["BEAT_S", "LIFE_S", "Lease", "holder_there"]

BEAT_S = 10.0
"""Between two writes of a holder."""

LIFE_S = 45.0
"""A holder elsewhere whose object did not change for so long is gone, or cut off, and has noticed."""

SETTLE_S = 1.0
"""Between writing and looking whether somebody else has, too."""

LATE_S = 3600.0
"""Clocks of machines whose requests a store accepts differ by minutes; what is older than this needs no watching."""


class Lease:
    """The right to run the study of a store.

    Args:
        note: is told of a wait.
    """

    def __init__(self, store: Store, note: Callable[[str], None] = lambda line: None) -> None:
        self._store, self._note = store, note
        self._me = myself() | {"token": secrets.token_hex(8)}
        self._ended = threading.Event()
        self._taken_by: dict[str, Any] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it while the context lasts; raises StudyBusy naming who has it. The same process may enter again."""
        found = self._read()
        if found is not None and same(found, self._me):
            yield
            return
        self._take(found)
        beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._ended.set()
            beating.join(timeout=2 * BEAT_S)  # it may be at a store that hangs
            with suppress(GsSearchError):
                if self._is_mine(self._read()):
                    self._store.delete([LOCK])

    def check(self) -> None:
        """Raise StudyBusy if somebody else has taken the study while this process could not say that it lives."""
        if self._taken_by is not None:
            raise StudyBusy(_refusal(self._store.uri, self._taken_by))

    def _take(self, found: dict[str, Any] | None) -> None:
        if found is not None and self._lives(found):
            raise StudyBusy(_refusal(self._store.uri, found))
        self._write(0)
        time.sleep(SETTLE_S)
        found = self._read()
        if not self._is_mine(found):
            raise StudyBusy(_refusal(self._store.uri, found or {"pid": "?", "host": "?", "since": "now"}))

    def _lives(self, found: dict[str, Any]) -> bool:
        if found["host"] == platform.node():
            return alive(found)
        stamp = self._store.stamp(LOCK)
        if stamp is None or abs(time.time() - stamp.mtime_ns / 1e9) > LATE_S:
            return False
        self._note(
            f"process {found['pid']} on {found['host']} ran this study a moment ago; looking for {LIFE_S:.0f} s "
            "whether it lives"
        )
        until = time.monotonic() + LIFE_S
        while time.monotonic() < until:
            time.sleep(min(2.0, BEAT_S / 5))
            now = self._read()
            if now is None:
                return False
            if now != found:
                return True
        return False

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_S):
            count += 1
            with suppress(GsSearchError):  # whoever needs the store says that it is lost
                found = self._read()
                if found is not None and not self._is_mine(found):
                    self._taken_by = found
                    return
                if not self._ended.is_set():
                    self._write(count)

    def _is_mine(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("token") == self._me["token"]

    def _write(self, count: int) -> None:
        self._store.write(LOCK, json.dumps(self._me | {"beat": count}).encode())

    def _read(self) -> dict[str, Any] | None:
        return _holder(self._store.read(LOCK))


def holder_there(store: Store) -> dict[str, Any] | None:
    """Say who runs the study (``pid``, ``host``, ``since``), as far as one look tells; None where nobody seems to."""
    found, stamp = _holder(store.read(LOCK)), store.stamp(LOCK)
    if found is None or stamp is None:
        return None
    here = found["host"] == platform.node()
    if not (alive(found) if here else abs(time.time() - stamp.mtime_ns / 1e9) < LIFE_S + BEAT_S):
        return None
    return {name: found.get(name) for name in ("pid", "host", "since")}


def _holder(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content or b"")
        return found if found.keys() >= HOLDER else None
    except (ValueError, AttributeError):
        return None


def _refusal(uri: str, found: dict[str, Any]) -> str:
    text = f"{uri}: process {found['pid']} on {found['host']} runs this study since {found['since']}"
    if found["host"] != platform.node():
        return f"{text}; wait for it, or stop it there"
    return f"{text}; wait for it, or stop it with `kill -INT {found['pid']}`"

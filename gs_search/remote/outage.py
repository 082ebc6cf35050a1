"""A store that does not answer: it is said once that it is away, and once that it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Outage"]

TOLD_AFTER_S = 8.0
"""An absence that is shorter is no news; pyarrow itself tries for six seconds before it gives up."""


class Outage:
    """Whether a store answers, as all threads of this process find. Threads may share it.

    Args:
        name: of the store, for people.
    """

    def __init__(self, name: str) -> None:
        self.note: Callable[[str], None] | None = None
        """Is told; None where nobody listens."""
        self._name = name
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around one question to the store: a server that hangs, and says nothing, is told of too."""
        begun = time.monotonic()
        timer = None
        if self.note is not None:
            timer = threading.Timer(TOLD_AFTER_S, self.goes_on, ("it does not answer", begun))
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def goes_on(self, reason: str, since: float) -> None:
        """A question has no answer yet, or a bad one.

        Args:
            since: when it was first asked, of the monotonic clock.
        """
        with self._lock:
            self._since = since if self._since is None else min(self._since, since)
            if self._told or time.monotonic() - self._since < TOLD_AFTER_S:
                return
            self._told = True
        self._say(f"{self._name}: cannot be reached ({reason}); trying again, and trials go on meanwhile")

    def seconds(self) -> float:
        """How long it has lasted; 0 while the store answers."""
        with self._lock:
            return 0.0 if self._since is None else time.monotonic() - self._since

    def is_over(self) -> None:
        """A question was answered."""
        with self._lock:
            told, since = self._told, self._since
            self._told, self._since = False, None
        if told and since is not None:
            self._say(f"{self._name}: is back after {time.monotonic() - since:.0f} s")

    def _say(self, line: str) -> None:
        if self.note is not None:
            self.note(line)

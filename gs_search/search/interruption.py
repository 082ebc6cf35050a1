"""Ctrl-C and SIGTERM while a study runs: a request to stop, which is answered at the next quiet moment."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gs_search.search.progress import Progress

__all__ = ["Interruption", "interruption"]


class Interruption:
    """Turns SIGINT and SIGTERM into a request, and one that comes much later into KeyboardInterrupt."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    # Stopping takes two seconds; an impatient second Ctrl-C must not cut that short, only a stop that hangs.
    PATIENCE_S = 5.0

    def __init__(self, progress: Progress) -> None:
        self._asked_at: float | None = None
        self._progress = progress

    def __call__(self) -> bool:
        return self._asked_at is not None

    def listen(self) -> None:
        """Install the handlers; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._progress.note("stopping; what is finished is kept")
        elif time.monotonic() - self._asked_at > self.PATIENCE_S:
            raise KeyboardInterrupt


@contextmanager
def interruption(progress: Progress) -> Iterator[Interruption]:
    """Listen while the context lasts; the handlers of before come back."""
    asked = Interruption(progress)
    before = {number: signal.getsignal(number) for number in asked.SIGNALS}
    asked.listen()
    try:
        yield asked
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)

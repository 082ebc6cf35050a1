"""Ctrl-C and SIGTERM as a request: the step is finished, a checkpoint written, and the same command goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "stop_request"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE_S = 5.0
"""A second signal sooner than this is impatience; later, it ends a step that takes too long."""


class StopRequest:
    """Says whether somebody has asked to stop."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note, self._asked_at = note, 0.0

    def __call__(self) -> bool:
        return self._asked_at > 0

    def listen(self) -> None:
        """Install the handlers, again where somebody has put others; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._asked_at:
            self._asked_at = now
            self._note("stopping after this step")
        elif now - self._asked_at > PATIENCE_S:
            raise KeyboardInterrupt


@contextmanager
def stop_request(note: Callable[[str], None]) -> Iterator[StopRequest]:
    """Listen while the context lasts."""
    request = StopRequest(note)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    request.listen()
    try:
        yield request
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)

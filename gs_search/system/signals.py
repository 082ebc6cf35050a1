"""Ctrl-C and SIGTERM as a request to stop, answered at the next quiet moment: between steps, between trials."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "interruption"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE_S = 5.0
"""A second signal sooner than this is impatience; one that comes later ends what takes too long to stop."""


class Interruption:
    """Says whether somebody has asked to stop; a signal that comes much later raises KeyboardInterrupt.

    Args:
        note: is called with ``message`` at the first signal.
    """

    def __init__(self, note: Callable[[str], None], message: str) -> None:
        self._note, self._message = note, message
        self._asked_at: float | None = None

    def __call__(self) -> bool:
        return self._asked_at is not None

    def listen(self) -> None:
        """Install the handlers, again where somebody (Ray does) has put others; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._note(self._message)
        elif time.monotonic() - self._asked_at > PATIENCE_S:
            raise KeyboardInterrupt


@contextmanager
def interruption(note: Callable[[str], None], message: str) -> Iterator[Interruption]:
    """Listen while the context lasts; the handlers of before come back."""
    asked = Interruption(note, message)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    asked.listen()
    try:
        yield asked
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)

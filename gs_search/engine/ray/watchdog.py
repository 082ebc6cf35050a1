"""The head of a Ray cluster, watched from the run and from its workers: whether it still answers.

Ray tells neither that it has died. The next question to it blocks whoever asks, and after a minute Ray aborts the whole
process. So a thread knocks at its door: a run ends with a line, and workers end themselves, lest they finish a trial
that the next run, on a new cluster, has begun anew. No Ray at import.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["GRACE_S", "SILENT_S", "Head", "answers", "end_without", "last_words", "lost_head", "watched_head"]

EVERY_S = 1.0
"""Between two knocks of a run, and of all while nobody answers."""

WORKERS_EVERY_S = 5.0
"""Of a worker, for there may be a thousand of them."""

TOLD_AFTER_S = 5.0
"""An absence that is shorter is no news."""

SILENT_S = 20.0
"""A head that cannot be reached for so long is lost; one that Kubernetes restarts, with its state in Redis, is back."""

GRACE_S = 15.0
"""What a run then has to end by itself; together with ``SILENT_S`` less than the minute after which Ray ends it."""

ANSWER_S = 3.0


class Head:
    """How long the head of an address has been silent.

    Args:
        address: ``HOST:PORT``.
        note: is told that it is silent, and that it is back.
    """

    def __init__(self, address: str, note: Callable[[str], None] = lambda line: None) -> None:
        self.address, self._note = address, note
        self._heard = time.monotonic()
        self._silent = self._told = False

    @property
    def silent_s(self) -> float:
        """Seconds since its last answer; 0 while it answers."""
        return time.monotonic() - self._heard if self._silent else 0.0

    @property
    def is_lost(self) -> bool:
        """Whether nobody needs to wait for it any more."""
        return self.silent_s > SILENT_S

    def look(self) -> None:
        """Knock once."""
        if answers(self.address):
            if self._told:
                self._note(f"the head of the cluster at {self.address} answers again")
            self._heard, self._silent, self._told = time.monotonic(), False, False
            return
        self._silent = True
        if not self._told and self.silent_s > TOLD_AFTER_S:
            self._told = True
            self._note(
                f"the head of the cluster at {self.address} does not answer; waiting for it for {SILENT_S:.0f} s"
            )

    def __str__(self) -> str:
        return f"the head of the cluster at {self.address}, which has not answered for {self.silent_s:.0f} s"


def answers(address: str) -> bool:
    """Whether somebody listens at ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def last_words(dead: str) -> str:
    """What a run says that ends because a part of Ray has died."""
    return f"a process of Ray has died: {dead}; what is finished is kept, and the same command goes on from there"


_watched: Head | None = None


def lost_head() -> str | None:
    """Say that the head of the cluster that this run uses has died, or return None."""
    return str(_watched) if _watched is not None and _watched.is_lost else None


@contextmanager
def watched_head(address: str, note: Callable[[str], None]) -> Iterator[None]:
    """Have ``lost_head`` know while the context lasts.

    A run that is stuck in a question to a lost head is ended after ``GRACE_S``: what it leaves is what a run leaves
    that was killed, and the next one puts it right.
    """
    global _watched
    done, _watched = threading.Event(), Head(address, note)

    def watch(head: Head) -> None:
        while not done.wait(EVERY_S):
            head.look()
            if head.silent_s > SILENT_S + GRACE_S:
                print(f"error: {last_words(str(head))}", file=sys.stderr, flush=True)
                os._exit(1)

    thread = threading.Thread(target=watch, args=(_watched,), name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _watched = None


def end_without(address: str) -> None:
    """Have this process, a worker, end when the head is lost."""

    def watch() -> None:
        head = Head(address)
        while not head.is_lost:
            time.sleep(EVERY_S if head.silent_s else WORKERS_EVERY_S)
            head.look()
        os._exit(1)

    threading.Thread(target=watch, name="head", daemon=True).start()

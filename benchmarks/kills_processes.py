"""The processes of a run, so that they can be killed and seen to be gone. Linux only: it reads ``/proc``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["below", "command", "is_alive", "named", "trial_workers", "wait_until_gone"]

TRIAL_WORKERS = (b"ray::TrialWorker", b"ray::ImplicitFunc")
"""How Ray calls a process that is at a trial, of gs_search or of a function of Ray Tune."""


def below(pid: int) -> list[int]:
    """Every live process below ``pid``: its children, theirs, and so on."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        state, parent = _state(int(folder.name))
        if state not in ("", "Z"):
            parents[int(folder.name)] = parent
    found, frontier = list[int](), [pid]
    while frontier:
        above = frontier.pop()
        children = [child for child, parent in parents.items() if parent == above]
        found += children
        frontier += children
    return found


def named(pid: int, *names: bytes) -> list[int]:
    """Processes below ``pid`` whose command line has one of ``names`` in it."""
    return [child for child in below(pid) if any(name in command(child) for name in names)]


def trial_workers(pid: int) -> list[int]:
    """Processes below ``pid`` that are at trials."""
    return [child for child in below(pid) if command(child).startswith(TRIAL_WORKERS)]


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that is dead and not buried yet does not count."""
    return _state(pid)[0] not in ("", "Z")


def wait_until_gone(pids: Iterable[int], seconds: float) -> list[str]:
    """Wait for processes to end; return the command lines of those that have not after ``seconds``."""
    deadline = time.monotonic() + seconds
    left = list(pids)
    while left := [pid for pid in left if is_alive(pid)]:
        if time.monotonic() > deadline:
            return [command(pid)[:80].decode(errors="replace") for pid in left]
        time.sleep(0.1)
    return []


def command(pid: int) -> bytes:
    """Command line of a process; nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> tuple[str, int]:
    """State and parent of a process; an empty state where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])

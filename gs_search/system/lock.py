"""The lock of a run folder: which process runs the study, and whether it still lives.

The lock is a small JSON file. A holder counts as alive while its process id, with the same start time and the
same boot of the machine, is there; so a killed run, or a reboot, never blocks a study, and a recycled process
id is not mistaken for it. Reading and taking over happen under a file lock of the system.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from gs_search.errors import StudyBusy

__all__ = ["HOLDER", "alive", "hold", "live_holder", "myself", "same"]

HOLDER = {"pid", "host", "since", "boot", "started"}
"""What a lock says of who has it."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock ``path`` while the context lasts; raises StudyBusy if another live process has it.

    The same process may enter again; the outermost context lets go.
    """
    me = myself()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as stream:
        found = _read(stream)
        again = found is not None and same(found, me)
        if found is not None and not again and alive(found):
            raise StudyBusy(_refusal(path, found))
        if not again:
            _write(stream, json.dumps(me))
    try:
        yield
    finally:
        if not again:
            # The folder may be gone, or its disk full: the lock is stale then, and taken over.
            with suppress(OSError), _opened(path) as stream:
                found = _read(stream)
                if found is not None and same(found, me):
                    path.unlink()


def live_holder(path: Path) -> dict[str, Any] | None:
    """Say who holds the lock (``pid``, ``host``, ``since``), or None where no live process does."""
    try:
        with path.open("r", encoding="utf-8") as stream:
            found = _read(stream)
    except OSError:
        return None
    if found is None or not alive(found):
        return None
    return {name: found.get(name) for name in ("pid", "host", "since")}


def _refusal(path: Path, found: dict[str, Any]) -> str:
    text = f"{path.parent}: process {found['pid']} on {found['host']} runs this study since {found['since']}"
    if found["host"] != platform.node():
        return f"{text}; if that machine is gone, delete {path}"
    return f"{text}; wait for it, or stop it with `kill -INT {found['pid']}`"


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open the file, alone: other processes wait here."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with open(descriptor, "r+", encoding="utf-8") as stream:
            # Some network file systems know no such locks; then the file alone has to do.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
            if _is_at(stream, path):
                yield stream
                return


def _is_at(stream: TextIO, path: Path) -> bool:
    """Tell whether the open file still has its name: whoever held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(stream: TextIO) -> dict[str, Any] | None:
    """Return the holder written in the file; a file that no run could have written names none."""
    try:
        found = json.loads(stream.read(10_000))
        return found if found.keys() >= HOLDER else None
    except (ValueError, AttributeError):
        return None


def _write(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()
    os.fsync(stream.fileno())


def myself() -> dict[str, Any]:
    """What this process writes into a lock."""
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "boot": _boot(),
        "started": _started(os.getpid()),
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two holders are one process."""
    return all(a[name] == b[name] for name in ("pid", "host", "boot", "started"))


def alive(holder: dict[str, Any]) -> bool:
    """Tell whether a holder lives; one on another machine cannot be asked, and counts as alive."""
    if holder["host"] != platform.node():
        return True
    if holder["boot"] != _boot() or not isinstance(holder["pid"], int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return holder["started"] is None or _started(holder["pid"]) == holder["started"]


def _boot() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _started(pid: int) -> int | None:
    """Start time of a process, in clock ticks since the boot.

    None where the system does not tell, or where no process has that id, or only a zombie.
    """
    with suppress(OSError, ValueError, IndexError):
        # The second field is the program's name in parentheses, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None

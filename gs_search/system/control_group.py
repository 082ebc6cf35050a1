"""What the control groups of Linux leave this process: memory and processor time, in version 1 and version 2.

A container's limits stand there and nowhere else: ``/proc/meminfo`` and the affinity are the host's. A limit may stand
in the process's own group or in any above it, so all of them are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MemoryLimit", "core_quota", "memory_limits"]

UNLIMITED = 2**60
"""Version 1 writes "no limit" as a number of bytes near 2^63."""


@dataclass(frozen=True)
class MemoryLimit:
    """One group's limit, in bytes."""

    limit: int
    used: int
    """Without the cache of files that the kernel gives back when someone needs the memory."""

    @property
    def available(self) -> int:
        """What the group may still take."""
        return max(0, self.limit - self.used)


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """The limits that hold for this process, innermost first.

    Args:
        root: in which ``proc`` and the control groups are looked for.
    """
    found = []
    for folder, version in _groups(root, "memory"):
        if version == 2:
            names = ["memory.max", "memory.high"]
            used = _number(folder / "memory.current")
        else:
            names = ["memory.limit_in_bytes"]
            used = _number(folder / "memory.usage_in_bytes")
        limits = [limit for name in names if (limit := _number(folder / name)) is not None]
        limit = min(limits, default=UNLIMITED)
        if limit < UNLIMITED:
            found.append(MemoryLimit(limit, max(0, (used or 0) - _reclaimable(folder, version))))
    return found


def core_quota(root: Path = Path("/")) -> float | None:
    """Processor cores of whose time this process may use all, a fraction included; None where nothing limits it."""
    found = []
    for folder, version in _groups(root, "cpu"):
        if version == 2:
            words = _text(folder / "cpu.max").split()
            quota, period = (words + ["", ""])[:2]
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):  # "max" and -1 stand for none
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of the groups of this process that have a controller, innermost first, each with the version."""
    paths = _paths(_text(root / "proc/self/cgroup"))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        version = {"cgroup": 1, "cgroup2": 2}.get(kind[0])
        if version is None or version == 1 and controller not in kind[2].split(","):
            continue
        path = paths.get(controller if version == 1 else "")
        if path is not None:
            mounted = root / _unescaped(fields[4]).lstrip("/")
            yield from ((folder, version) for folder in _upwards(mounted, _unescaped(fields[3]), path))


def _paths(text: str) -> Mapping[str, str]:
    """Of each controller of version 1, and of version 2 under the name "", the group of this process."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _upwards(mounted: Path, mount_root: str, path: str) -> Iterator[Path]:
    """From the group's folder to the one that is mounted.

    In a container ``path`` may be the host's, of which only the part below ``mount_root`` is to be seen, or nothing:
    then the mounted folder is the container's own group.
    """
    inside = path.removeprefix("/" if mount_root == "/" else mount_root).strip("/")
    folder = mounted / inside
    if ".." in folder.parts or not folder.is_dir():
        folder = mounted
    yield folder
    while folder != mounted:
        folder = folder.parent
        yield folder


def _reclaimable(folder: Path, version: int) -> int:
    """Bytes of the files' cache, as ``MemAvailable`` counts them; memory that is shared in RAM is not among them."""
    names = ("inactive_file", "active_file") if version == 2 else ("total_inactive_file", "total_active_file")
    pairs = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names and pair[1].isdigit())


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _unescaped(field: str) -> str:
    """A path as ``mountinfo`` writes it, where a blank is ``\\040``."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")

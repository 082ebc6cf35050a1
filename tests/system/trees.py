"""Small copies of what Linux shows of memory and control groups under ``/proc`` and ``/sys/fs/cgroup``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GIB = 2**30


def plant(root: Path, files: Mapping[str, str | int]) -> Path:
    """Write files with their contents below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def meminfo(total: int, available: int) -> dict[str, str | int]:
    """``/proc/meminfo`` of a machine; bytes."""
    text = f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\nHugePages_Total: 0"
    return {"proc/meminfo": text}


def mounted(kind: str, at: str, controllers: str = "", root: str = "/") -> str:
    """A line of ``mountinfo``."""
    return f"31 23 0:28 {root} {at} rw,relatime shared:9 - {kind} cgroup rw,{controllers}"


def version_2(path: str, groups: Mapping[str, Mapping[str, str | int]], root: str = "/") -> dict[str, str | int]:
    """Unified groups, the process in ``path``; groups are named by where they stand below the mount."""
    files = {f"sys/fs/cgroup/{group}/{name}": text for group, held in groups.items() for name, text in held.items()}
    mount = mounted("cgroup2", "/sys/fs/cgroup", root=root)
    return {"proc/self/cgroup": f"0::{path}", "proc/self/mountinfo": mount, **files}


def version_1(path: str, groups: Mapping[str, Mapping[str, str | int]]) -> dict[str, str | int]:
    """A hierarchy for each controller, and an empty unified one beside them."""
    files = {f"sys/fs/cgroup/{group}/{name}": text for group, held in groups.items() for name, text in held.items()}
    mounts = [mounted("cgroup", f"/sys/fs/cgroup/{names}", names) for names in ("memory", "cpu,cpuacct")]
    mounts.append(mounted("cgroup2", "/sys/fs/cgroup/unified"))
    member = f"4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/"
    return {"proc/self/cgroup": member, "proc/self/mountinfo": "\n".join(mounts), **files}

"""What this machine is: the processor and its instructions, cores and memory for this process, GPUs. Without torch."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gs_search.system.control_group import core_quota, memory_limits

__all__ = [
    "INSTRUCTIONS", "VNNI", "Gpu", "Memory", "cores", "forget_peak", "gpus", "instructions", "memory", "native_bf16",
    "peak_own_mb", "peak_resident_mb", "processor_name", "shared_memory_mb",
]  # fmt: skip

INSTRUCTIONS = (
    "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni", "asimddp", "bf16", "i8mm",
)  # fmt: skip
"""Instructions on which speed or integer results depend, by Linux's names; those of ARM are the last three."""

VNNI = ("avx512_vnni", "avx_vnni")
"""Of x86: either adds products of 8-bit numbers in 32 bits; without them pairs of them are added in 16."""

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")

_OF_APPLE = {"hw.optional.arm.FEAT_BF16": "bf16", "hw.optional.arm.FEAT_DotProd": "asimddp"} | {
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Those of ``INSTRUCTIONS`` that the processor lists, in their order; none where it does not tell."""
    if sys.platform == "darwin":
        listed = {name for key, name in _OF_APPLE.items() if _sysctl(key) == "1"}
    else:
        listed = set()
        for name, value in _entries(cpuinfo):
            if name in ("flags", "Features"):
                listed = set(value.split())
                break
    return tuple(name for name in INSTRUCTIONS if name in listed)


def native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor lists instructions that multiply in bfloat16."""
    return any(name in NATIVE_BF16 for name in instructions(cpuinfo))


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself; its architecture where it does not."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    named = (value for name, value in _entries(cpuinfo) if name in ("model name", "Processor") and value)
    return next(named, platform.machine())


def cores(root: Path = Path("/")) -> int:
    """Processor cores that this process may use: what its affinity and its control groups leave it, at least one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = core_quota(root)
    return count if quota is None else max(1, min(count, int(quota)))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of this machine, for this process; in 10^6 bytes, swap left out."""

    total_mb: float
    """Of the machine, or the limit of the control group where that is less."""
    available_mb: float
    """What can still be taken before the machine swaps or the control group kills; what other processes hold is off."""
    limit_mb: float | None
    """The lowest limit of a control group; None where none is below the machine's memory."""


def memory(root: Path = Path("/")) -> Memory | None:
    """The memory that there is and that is free now; None where the system does not tell.

    Args:
        root: in which ``proc`` and the control groups are looked for.
    """
    if sys.platform == "darwin":
        return _memory_of_darwin()
    sizes = {
        name: int(value.split()[0]) * 1024 for name, value in _entries(root / "proc/meminfo") if value[:1].isdigit()
    }
    if "MemTotal" not in sizes:
        return None
    total = sizes["MemTotal"]
    limits = [limit for limit in memory_limits(root) if limit.limit < total]
    available = sizes.get("MemAvailable", sizes.get("MemFree", total))
    return Memory(
        total_mb=min([total, *(limit.limit for limit in limits)]) / 1e6,
        available_mb=min([available, *(limit.available for limit in limits)]) / 1e6,
        limit_mb=min((limit.limit for limit in limits), default=0) / 1e6 or None,
    )


def shared_memory_mb(folder: Path = Path("/dev/shm")) -> float | None:
    """Free room in ``/dev/shm``, in 10^6 bytes; None where there is none that can be written to."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize / 1e6 if os.access(folder, os.W_OK) else None


def peak_resident_mb() -> float:
    """What this process has had in memory at most, in 10^6 bytes, pages of files that it has mapped included."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_own_mb(proc: Path = Path("/proc")) -> float:
    """As ``peak_resident_mb``, without the pages of files, which processes share and the kernel can take back."""
    sizes = {name: value.split()[0] for name, value in _entries(proc / "self/status") if value.endswith(" kB")}
    if "VmHWM" not in sizes:
        return peak_resident_mb()
    return (int(sizes["VmHWM"]) - int(sizes.get("RssFile", 0))) * 1024 / 1e6


def forget_peak(proc: Path = Path("/proc")) -> None:
    """Have ``peak_own_mb`` begin anew with what is in memory now, where the system can."""
    with suppress(OSError):
        (proc / "self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Gpu:
    """One of NVIDIA."""

    name: str
    memory_mb: float
    """10^6 bytes."""
    driver: str
    capability: str
    """Compute capability, such as ``9.0``; empty where the driver does not tell."""


def gpus() -> tuple[Gpu, ...]:
    """GPUs that the driver shows; whether PyTorch can use them is another question."""
    said = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"])
    found = []
    for line in said.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and (size := re.match(r"\d+", fields[1])):
            found.append(Gpu(fields[0], int(size[0]) * 2**20 / 1e6, fields[2], fields[3]))
    return tuple(found)


def _memory_of_darwin(run: Callable[[list[str]], str] | None = None) -> Memory | None:
    """From ``sysctl`` and ``vm_stat``; inactive and speculative pages are given back when someone needs them."""
    said = (run or _output)(["vm_stat"])
    total = (run or _output)(["sysctl", "-n", "hw.memsize"]).strip()
    page = re.search(r"page size of (\d+) bytes", said)
    if page is None or not total.isdigit():
        return None
    names = "free|inactive|speculative|purgeable"
    pages = sum(int(count) for count in re.findall(rf"^Pages (?:{names}):\s+(\d+)", said, re.MULTILINE))
    available = min(int(total), pages * int(page[1]))
    return Memory(total_mb=int(total) / 1e6, available_mb=available / 1e6, limit_mb=None)


def _entries(cpuinfo: Path) -> list[tuple[str, str]]:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


@functools.cache
def _sysctl(key: str) -> str:
    return _output(["sysctl", "-n", key]).strip()


def _output(command: list[str]) -> str:
    """What a command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""

"""What this machine is: the processor and its instructions, the cores that this process may use. Without torch."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["INSTRUCTIONS", "cores", "instructions", "native_bf16", "processor_name"]

INSTRUCTIONS = (
    "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni", "asimddp", "bf16", "i8mm",
)  # fmt: skip
"""Instructions on which speed or integer results depend, by Linux's names; those of ARM are the last three."""

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


def cores() -> int:
    """Processor cores that this process may use: of its affinity, where the system knows one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _entries(cpuinfo: Path) -> list[tuple[str, str]]:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


@functools.cache
def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

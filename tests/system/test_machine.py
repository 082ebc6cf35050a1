"""What a processor tells of itself, read from files of three kinds of machine and of none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gs_search.system import machine

ZEN5 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 avx_vnni\n"
ZEN2 = "processor\t: 0\nmodel name\t: AMD Ryzen 7\nflags\t\t: fpu sse2 avx avx2 f16c\n"
ARM = "processor\t: 0\nBogoMIPS\t: 243\nFeatures\t: fp asimd asimddp i8mm bf16\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no /proc/cpuinfo")
@pytest.mark.parametrize(
    ("text", "found", "bf16"),
    [
        (ZEN5 + ZEN5, ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni"), True),
        (ZEN2, ("avx2",), False),
        (ARM, ("asimddp", "bf16", "i8mm"), True),
        ("", (), False),
    ],
)
def test_instructions(tmp_path: Path, text: str, found: tuple[str, ...], bf16: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert machine.instructions(cpuinfo) == found
    assert machine.native_bf16(cpuinfo) is bf16
    assert machine.processor_name(cpuinfo)
    assert machine.instructions(tmp_path / "nowhere") == ()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no /proc/cpuinfo")
def test_names(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(ZEN2)
    assert machine.processor_name(tmp_path / "cpuinfo") == "AMD Ryzen 7"


def test_cores_are_those_of_this_process() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinities")
    whole = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(whole)})
        assert machine.cores() == 1
    finally:
        os.sched_setaffinity(0, whole)
    assert machine.cores() == len(whole)

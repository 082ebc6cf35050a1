"""What a processor tells of itself, read from files of three kinds of machine and of none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gs_search.system import machine
from tests.system.trees import GIB, meminfo, plant, version_2

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


def test_a_quota_is_no_more_than_its_whole_cores(tmp_path: Path) -> None:
    for quota, expected in (("100000 100000", 1), ("50000 100000", 1), ("100000000 100000", machine.cores())):
        plant(tmp_path, version_2("/", {"": {"cpu.max": quota}}))
        assert machine.cores(tmp_path) == expected


def test_memory_is_what_the_machine_and_the_groups_leave(tmp_path: Path) -> None:
    """Of 24 GiB others hold 12: a group with room for 16 may take 12, one with room for 2 may take 2."""
    plant(tmp_path, meminfo(24 * GIB, 12 * GIB))
    assert machine.memory(tmp_path) == machine.Memory(
        total_mb=24 * GIB / 1e6, available_mb=12 * GIB / 1e6, limit_mb=None
    )
    for limit, used, available in ((17, 1, 12), (3, 1, 2), (32, 1, 12)):
        group = {"memory.max": limit * GIB, "memory.current": used * GIB}
        found = machine.memory(plant(tmp_path, version_2("/", {"": group})))
        assert found is not None and found.available_mb == available * GIB / 1e6
        assert found.limit_mb == (limit * GIB / 1e6 if limit < 24 else None)
        assert found.total_mb == min(limit, 24) * GIB / 1e6
    assert machine.memory(tmp_path / "nowhere") is None


def test_memory_of_this_machine_is_that_which_the_system_call_knows() -> None:
    found = machine.memory()
    assert found is not None
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert found.total_mb <= physical * 1.001 and 0 < found.available_mb <= found.total_mb
    assert found.limit_mb is not None or found.total_mb == pytest.approx(physical, rel=1e-3)


def test_memory_of_darwin() -> None:
    said = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free: 100.\nPages active: 900.\n"
        "Pages inactive: 50.\nPages speculative: 10.\nPages wired down: 400.\nPages purgeable: 5.\n"
    )
    answers = {"vm_stat": said, "sysctl": f"{16 * GIB}\n"}
    found = machine._memory_of_darwin(lambda command: answers[command[0]])
    assert found == machine.Memory(total_mb=16 * GIB / 1e6, available_mb=165 * 16384 / 1e6, limit_mb=None)
    assert machine._memory_of_darwin(lambda command: "") is None


def test_gpus_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.1, 9.0'\necho 'Quadro, [N/A], 1, 2'\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.gpus() == ()
    driver.chmod(0o755)
    assert machine.gpus() == (machine.Gpu("NVIDIA H200", 143771 * 2**20 / 1e6, "580.1", "9.0"),)
    driver.write_text("#!/bin/sh\necho 'has failed because it could not communicate'\nexit 9\n")
    assert machine.gpus() == ()


def test_peak_resident_and_shared_memory(tmp_path: Path) -> None:
    before = machine.peak_resident_mb()
    held = bytearray(os.urandom(1)) * 200_000_000
    assert machine.peak_resident_mb() >= max(before, len(held) / 1e6)
    assert machine.shared_memory_mb(tmp_path / "nowhere") is None
    assert (machine.shared_memory_mb(tmp_path) or 0.0) > 0

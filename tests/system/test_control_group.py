"""Limits of memory and processor time, read from trees as containers, services and batch systems show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_search.system.control_group import MemoryLimit, core_quota, memory_limits
from tests.system.trees import GIB, plant, version_1, version_2


def _used(group: int, *, limit: int | str = "max", cache: int = 0) -> dict[str, str | int]:
    stat = f"anon {group - cache}\ninactive_file {cache // 2}\nactive_file {cache // 2}\nshmem 7"
    return {"memory.max": limit, "memory.current": group, "memory.stat": stat}


def test_a_container_of_version_2(tmp_path: Path) -> None:
    """With a namespace of its own, the container's group is the root of what it sees."""
    plant(tmp_path, version_2("/", {"": {**_used(3 * GIB, limit=4 * GIB, cache=2 * GIB), "cpu.max": "150000 100000"}}))
    assert memory_limits(tmp_path) == [MemoryLimit(4 * GIB, GIB)]
    assert memory_limits(tmp_path)[0].available == 3 * GIB
    assert core_quota(tmp_path) == 1.5


def test_a_limit_above_the_own_group_holds_too(tmp_path: Path) -> None:
    groups = {
        "": {},
        "user.slice": {**_used(5 * GIB, limit=6 * GIB), "cpu.max": "200000 100000"},
        "user.slice/app": {**_used(GIB), "cpu.max": "max 100000"},
        "other": _used(GIB, limit=GIB),
    }
    plant(tmp_path, version_2("/user.slice/app", groups))
    assert memory_limits(tmp_path) == [MemoryLimit(6 * GIB, 5 * GIB)]
    assert core_quota(tmp_path) == 2.0


def test_a_group_is_slowed_down_before_it_is_killed(tmp_path: Path) -> None:
    plant(tmp_path, version_2("/", {"": {**_used(GIB, limit=8 * GIB), "memory.high": 3 * GIB}}))
    assert memory_limits(tmp_path) == [MemoryLimit(3 * GIB, GIB)]


def test_version_1(tmp_path: Path) -> None:
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 0"
    job = {"memory.limit_in_bytes": 8 * GIB, "memory.usage_in_bytes": 3 * GIB, "memory.stat": stat}
    groups = {
        "memory": {"memory.limit_in_bytes": 2**63 - 4096, "memory.usage_in_bytes": 20 * GIB},
        "memory/slurm/job_7": job,
        "cpu,cpuacct/slurm/job_7": {"cpu.cfs_quota_us": 300000, "cpu.cfs_period_us": 100000},
        "cpu,cpuacct": {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000},
    }
    plant(tmp_path, version_1("/slurm/job_7", groups))
    assert memory_limits(tmp_path) == [MemoryLimit(8 * GIB, 2 * GIB)]
    assert core_quota(tmp_path) == 3.0


@pytest.mark.parametrize("root", ["/", "/docker/ab12"])
def test_the_path_of_a_host_is_not_to_be_seen_in_a_container(tmp_path: Path, root: str) -> None:
    """Without a namespace of its own the path is the host's; what is mounted there is the container's group."""
    plant(tmp_path, version_2("/docker/ab12", {"": _used(GIB, limit=2 * GIB)}, root=root))
    assert memory_limits(tmp_path) == [MemoryLimit(2 * GIB, GIB)]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/../up", "proc/self/mountinfo": "nonsense - \n"},
        version_2("/", {"": {"memory.max": "max", "cpu.max": "max 100000"}}),
        version_2("/", {"": {"memory.max": "??", "cpu.max": "1"}}),
    ],
    ids=["no Linux", "nonsense", "unlimited", "unreadable"],
)
def test_no_limit(tmp_path: Path, files: dict[str, str | int]) -> None:
    plant(tmp_path, files)
    assert memory_limits(tmp_path) == [] and core_quota(tmp_path) is None


def test_more_is_used_than_the_limit_after_it_was_lowered() -> None:
    assert MemoryLimit(GIB, 2 * GIB).available == 0

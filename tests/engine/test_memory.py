"""How many trials main memory has room for."""

from __future__ import annotations

import sys

import pytest

from gs_search.engine import memory as room
from gs_search.engine.memory import LEAST_MB, fitted, fitted_to_nodes, killed_by_memory, require_memory
from gs_search.engine.ray.local import Plan
from gs_search.errors import BadInput
from gs_search.system.machine import Memory


def _free(available: float, *, limit: float | None = None, total: float = 24_000.0) -> Memory:
    return Memory(total_mb=total, available_mb=available, limit_mb=limit)


@pytest.mark.parametrize(
    ("workers", "trial_mb", "available_mb", "expected"),
    [
        (2, 4_000.0, 24_000.0, 2),
        (8, 4_000.0, 24_000.0, 5),  # (24 - 0.5) / 4.45
        (2, 6_000.0, 12_000.0, 1),
        (2, 6_000.0, 6_100.0, 1),  # one goes although nothing is left for the reserve
        (1, 100.0, 600.0, 1),
    ],
)
def test_workers_are_as_many_as_fit(workers: int, trial_mb: float, available_mb: float, expected: int) -> None:
    plan = Plan(workers, "cpu", 1, auto=True)
    found, line = fitted(plan, {"trial_mb": trial_mb, "preparation_mb": 0.0}, _free(available_mb))
    assert found.workers == expected and found.resources == plan.resources and found.auto
    assert (line is None) == (expected == workers)
    if line is not None:
        assert f"memory for {expected} of {workers} workers" in line and "\n" not in line


def test_workers_on_a_gpu_keep_their_part_of_it() -> None:
    plan = Plan(4, "cuda", 1, auto=True)
    found, _ = fitted(plan, {"trial_mb": 5_000.0}, _free(12_000.0))
    assert found.workers == 2 and found.resources == {"cpu": 1.0, "gpu": 0.25}


def test_no_room_for_one_trial_is_an_error_with_a_remedy() -> None:
    said = r"a trial takes about 6\.0 GB, and 3\.0 GB are free, of the control group's 4\.0"
    with pytest.raises(BadInput, match=said):
        fitted(Plan(2, "cpu", 1), {"trial_mb": 6_000.0}, _free(3_000.0, limit=4_000.0))


def test_folders_of_earlier_versions_and_systems_that_do_not_tell() -> None:
    plan = Plan(64, "cpu", 1)
    assert fitted(plan, None, _free(10.0)) == (plan, None)
    assert fitted(plan, {"trial_mb": 1e9}, None) == (plan, None)
    assert fitted_to_nodes(plan, None, []) == (plan, None)


def _node(cores: float, gigabytes: float) -> dict[str, dict[str, float]]:
    return {"Resources": {"CPU": cores, "memory": gigabytes * 1e9}}


def test_trials_ask_a_cluster_for_their_memory() -> None:
    """Eight cores each, and room for three trials and for one."""
    needed, nodes = {"trial_mb": 3_550.0}, [_node(8, 13.0), _node(8, 7.9)]
    found, line = fitted_to_nodes(Plan(16, "cpu", 1, auto=True), needed, nodes)
    assert found.workers == 4 and found.resources == {"cpu": 1.0, "memory": 4.0e9}
    assert line is not None and "4 of 16" in line
    asked_for, line = fitted_to_nodes(Plan(16, "cpu", 1), needed, nodes)
    assert asked_for.workers == 16 and line is not None and "wait for nodes" in line
    assert fitted_to_nodes(Plan(4, "cpu", 1, auto=True), needed, nodes)[1] is None
    with pytest.raises(BadInput, match="the node with the most memory has 1.0 GB for Ray"):
        fitted_to_nodes(Plan(2, "cpu", 1, auto=True), needed, [_node(8, 1.0)])


def test_too_little_for_any_study() -> None:
    require_memory(_free(LEAST_MB))
    with pytest.raises(BadInput, match="container's limit"):
        require_memory(_free(LEAST_MB - 1, limit=1_000.0))


def test_a_killed_process_is_told_of_with_what_is_free() -> None:
    assert "0.2 GB are free" in killed_by_memory(_free(200.0))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
def test_no_memory_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "shared_memory_mb", lambda: None)
    with pytest.raises(BadInput, match="mount a tmpfs there"):
        require_memory(_free(8_000.0))

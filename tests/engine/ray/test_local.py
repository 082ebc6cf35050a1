"""How many workers, and where Ray's files go."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from gs_search.engine.ray import local as cluster
from gs_search.engine.ray.local import plan_workers, scratch_folder
from gs_search.system.machine import cores


@pytest.mark.parametrize(
    ("workers", "device", "gpus", "expected"),
    [
        ("auto", "cpu", 0, (2, "cpu", {"cpu": 1.0})),
        ("auto", "cpu", 4, (2, "cpu", {"cpu": 1.0})),
        ("auto", "auto", 0, (2, "cpu", {"cpu": 1.0})),
        ("auto", "auto", 4, (4, "cuda", {"cpu": 1.0, "gpu": 1.0})),
        ("auto", "cuda", 1, (1, "cuda", {"cpu": 1.0, "gpu": 1.0})),
        (4, "cuda", 1, (4, "cuda", {"cpu": 1.0, "gpu": 0.25})),
        (3, "cuda", 2, (3, "cuda", {"cpu": 1.0, "gpu": 0.5})),
        (2, "cuda", 8, (2, "cuda", {"cpu": 1.0, "gpu": 1.0})),
        (5, "cpu", 0, (5, "cpu", {"cpu": 1.0})),
    ],
)
def test_plan_workers(
    workers: int | str, device: str, gpus: int, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    plan = plan_workers(workers, device, gpus)
    assert (plan.workers, plan.device, plan.resources) == expected


@pytest.mark.parametrize(
    ("workers", "gpus", "trial_mb", "expected"),
    [
        ("auto", 1, 5_000, (8, {"cpu": 1.0, "gpu": 1 / 8})),  # 0.9 x 80 GB would hold 12; there are 8 cores
        ("auto", 1, 20_000, (3, {"cpu": 1.0, "gpu": 1 / 3})),  # 72 / 20.6
        ("auto", 2, 5_000, (8, {"cpu": 1.0, "gpu": 1 / 4})),
        ("auto", 1, 100_000, (1, {"cpu": 1.0, "gpu": 1.0})),
        ("auto", 1, None, (1, {"cpu": 1.0, "gpu": 1.0})),
        (2, 1, 5_000, (2, {"cpu": 1.0, "gpu": 0.5})),
    ],
)
def test_trials_share_a_gpu_as_its_memory_allows(
    workers: int | str, gpus: int, trial_mb: float | None, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 8)
    memory = None if trial_mb is None else {"trial_mb": trial_mb, "total_mb": 80_000.0}
    plan = plan_workers(workers, "cuda", gpus).packed(memory)
    assert (plan.workers, plan.resources) == expected
    assert plan_workers(workers, "cpu", 0).packed(memory).device == "cpu"


def test_cores_respect_the_affinity_of_the_process() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_the_scratch_folder_goes_away_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "LONGEST_SCRATCH", 1000)
    with pytest.raises(KeyboardInterrupt), scratch_folder() as scratch:
        (scratch / "ray").mkdir()
        assert scratch.parent == tmp_path
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_swept_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "LONGEST_SCRATCH", 1000)
    dead, live, foreign = tmp_path / "gs-search-dead", tmp_path / "gs-search-live", tmp_path / "gs-search-x"
    for folder in (dead, live, foreign):
        folder.mkdir()
    (dead / "lock").touch()
    with (live / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch_folder():
            assert not dead.exists() and live.exists()
    assert foreign.exists(), "no lock in it: not known to be ours"


def test_ray_gets_a_short_path_where_the_temporary_folder_is_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with scratch_folder() as scratch:
        assert len(str(scratch)) < 40


def test_ray_tmpdir_is_followed_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /tmp is full."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "LONGEST_SCRATCH", 1000)
    for wanted, root in ((tmp_path / "ray", tmp_path / "ray"), (tmp_path / "nowhere", tmp_path)):
        monkeypatch.setenv("RAY_TMPDIR", str(wanted))
        with scratch_folder() as scratch:
            assert scratch.parent == root

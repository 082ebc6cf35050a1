"""Drivers and workers are killed at random moments; nothing may be lost, repeated or left running.

``python -m pytest -m chaos`` runs these; each asserts that its killer did kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver, StartDriver, check, left_alive, marks
from engine_studies import SPACE, state_counts, write_study

from benchmarks.kills_processes import command, named
from gs_search.engine.runner import WORKERS_DIE_S
from gs_search.results.run_folder import RunFolder
from gs_search.search.study_database import open_database
from gs_search.study.config import load_study

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

RUNGS: dict[str, Any] = {**SPACE, "sparsity_multiplier": {"type": "float", "low": 0.0, "high": 1.0}}
"""A space of which some points are left at the first rung of ``stand_ins.resumable``, and some at the second."""

PREPARATION = b"gs_search.engine.preparation"


@pytest.fixture(name="families", scope="module")
def families_fixture() -> Iterator[list[int]]:
    """Processes of drivers that were killed, all gone in the end: Ray's agents take a minute, waited for once."""
    pids = list[int]()
    yield pids
    assert not left_alive(pids)


def calm(study: Path, root: Path, drive: StartDriver, total: int) -> list[tuple[str, str]]:
    """What the study proposes, and how it ends, where nobody disturbs it."""
    root.mkdir()
    assert drive(study, root / "R", "resumable").end()[0] == 0
    expected = check(study, root / "R", total)
    left = [state for _, state in expected].count("PRUNED")
    assert total / 10 < left < total * 2 / 3, "stopping is at work"
    return expected


def kill(driver: Driver) -> list[int]:
    """Kill a driver, and wait until its workers have noticed; return all processes that it had."""
    assert driver.process.poll() is None, "the killer came too late"
    family, busy = driver.family(), driver.workers()
    driver.process.kill()
    assert driver.end() == (-signal.SIGKILL, None)
    assert not left_alive(busy, WORKERS_DIE_S + 1), "before a new run touches what they were at"
    return family


def at_a_trial(driver: Driver) -> Any:
    """Wait until a worker has begun a trial in this run."""
    return driver.wait_until(lambda: driver.begun().keys() & set(driver.workers()))


def in_a_trial(driver: Driver) -> Any:
    """Wait until a trial has made one of its steps: the others take a while yet."""

    def one_done(path: Path) -> bool:
        try:
            return bool(json.loads(path.read_text())["done"] == 1)
        except FileNotFoundError:  # it has just ended
            return False

    return driver.wait_until(lambda: any(map(one_done, driver.out.glob("checkpoints/*.ckpt"))))


def fair_game(driver: Driver, pid: int) -> str:
    """What a worker is at, if it may be killed: a trial survives one death in the middle of it, not two."""
    if b"__init__" in command(pid):
        return "start"
    at = driver.begun()
    begins = Counter(number for what, number, *_ in marks(driver.out) if what == "begin")
    if pid not in at or begins[at[pid]] > 1 or at[pid] in driver.died():
        return ""

    def ended(number: int) -> bool:
        return (driver.out / f"trials/{number}/result.json").exists()

    if not ended(at[pid]):
        return "trial"
    # It waits for the next one, which may be one that has died once.
    return "" if any(begins[number] == 1 and not ended(number) for number in driver.died()) else "between"


def running(study: Path, out: Path) -> int:
    """Trials that the database calls running."""
    return len(open_database(RunFolder(out), load_study(study), read_only=True).running())


def test_a_driver_killed_ten_times_ends_with_the_trials_of_an_undisturbed_one(
    tmp_path: Path, scratch: Path, drive: StartDriver, families: list[int]
) -> None:
    total, chance = 40, random.Random(1)
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 400.0}, trials=total, workers=1)
    expected = calm(study, tmp_path / "calm", drive, total)

    (tmp_path / "wild").mkdir()
    out, kills = tmp_path / "wild" / "R", 0
    for turn in range(10):
        driver = drive(study, out, "resumable")
        # A point whose run died three times is not tried again, so every other run gets beyond its first one.
        driver.wait_for(driver.finished() + turn % 2)
        at_a_trial(driver)
        time.sleep(chance.uniform(0, 0.8))
        families += kill(driver)
        kills += running(study, out)
    assert 8 <= kills <= 10, "nearly every kill hit a trial"
    code, summary = drive(study, out, "resumable").end()
    assert code == 0 and summary is not None and summary["finished"] == total
    assert check(study, out, total) == expected
    begins = [step for what, _, _, step, _ in marks(out) if what == "begin"]
    assert len([step for step in begins if step]) >= 3, "some went on from a checkpoint"
    assert list(scratch.iterdir()) == [], "what the killed ones left is swept"
    assert not (tmp_path / "wild" / "home").exists()


def test_a_driver_killed_at_odd_moments_ends_with_the_trials_of_an_undisturbed_one(
    tmp_path: Path, scratch: Path, drive: StartDriver, families: list[int]
) -> None:
    total, chance = 45, random.Random(2)
    space = {**RUNGS, "distill_weight": 200.0}
    study = write_study(tmp_path / "study", space, trials=total, workers=1, sampler="nsga2")
    expected = calm(study, tmp_path / "calm", drive, total)

    (tmp_path / "wild").mkdir()
    out, folder = tmp_path / "wild" / "R", RunFolder(tmp_path / "wild" / "R")

    def begin(prepare: str = "prepare") -> Driver:
        return drive(study, out, "resumable", prepare)

    driver = begin()  # while it imports
    time.sleep(chance.uniform(0.05, 0.25))
    assert driver.family() == [] and not marks(out)
    kill(driver)

    driver = begin("prepare_slowly")  # while it prepares, before Ray is up
    driver.wait_until(lambda: named(driver.pid, PREPARATION))
    assert not driver.workers() and not marks(out)
    families += kill(driver)

    driver = begin("prepare_slowly")  # while Ray starts
    driver.wait_until(lambda: named(driver.pid, b"gcs_server"))
    assert named(driver.pid, PREPARATION) and not driver.workers()
    families += kill(driver)

    driver = begin()  # in the middle of a trial, after some
    driver.wait_for(12)
    in_a_trial(driver)
    families += kill(driver)
    assert running(study, out) == 1

    driver = begin()  # while it waits for the workers of the one before, and while it queues again
    driver.wait_until(lambda: (folder.holder() or {}).get("pid") == driver.pid)
    time.sleep(chance.uniform(0.5, WORKERS_DIE_S - 1))
    assert driver.family() == [] and running(study, out) == 1
    kill(driver)

    driver = begin()  # as soon as it is seen to have set things right
    driver.wait_until(lambda: not running(study, out))
    kill(driver)

    driver = begin()  # once the last trial is on disk
    driver.wait_for(total)
    families += kill(driver)

    code, summary = begin().end()
    assert code == 0 and summary is not None and summary["finished"] == total
    assert check(study, out, total) == expected
    assert list(scratch.iterdir()) == []


def test_workers_killed_twenty_times_lose_no_trial(tmp_path: Path, scratch: Path, drive: StartDriver) -> None:
    total, wanted, chance = 150, 20, random.Random(3)
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 500.0}, trials=total, workers=2)
    driver = drive(study, tmp_path / "R", "resumable")
    at_a_trial(driver)
    kills: Counter[str] = Counter()
    while kills.total() < wanted:
        assert driver.process.poll() is None, driver.said()
        time.sleep(chance.uniform(0, 0.5))
        victims = [(pid, at) for pid in driver.workers() if (at := fair_game(driver, pid))]
        if kills["start"] >= wanted // 4:
            victims = [(pid, at) for pid, at in victims if at != "start"]
        if victims:
            pid, at = chance.choice(victims)
            os.kill(pid, signal.SIGKILL)
            kills[at] += 1
    family = driver.family()
    code, summary = driver.end()
    assert code == 0 and summary is not None, driver.said()
    noted = driver.said().count("its process died")
    assert kills.total() == wanted and noted >= wanted * 3 // 4, f"{noted} of {kills} were noticed"
    assert kills["trial"] >= wanted // 3 and len(driver.died()) >= kills["trial"] // 2, f"{driver.died()} of {kills}"
    failed = [record for record in RunFolder(driver.out).results() if record.state == "FAIL"]
    assert not failed
    check(study, driver.out, total)
    assert list(scratch.iterdir()) == []
    assert not left_alive(family)


@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-c twice", "sigterm"])
def test_a_signal_ends_a_run_its_processes_and_its_files(
    how: str, tmp_path: Path, scratch: Path, drive: StartDriver
) -> None:
    study = write_study(tmp_path / "study", {**SPACE, "distill_weight": 9000.0}, trials=4)
    driver = drive(study, tmp_path / "R", "slow")
    driver.wait_until(lambda: len(driver.workers()) == 2)
    time.sleep(1)
    family = driver.family()
    start = time.monotonic()
    send: Callable[[], None] = driver.process.terminate
    if how != "sigterm":
        # A terminal sends it to the whole process group.
        send = lambda: os.killpg(driver.pid, signal.SIGINT)  # noqa: E731
    send()
    if how == "ctrl-c twice":
        time.sleep(0.1)
        send()
    code, summary = driver.end()
    assert time.monotonic() - start < 15
    assert not left_alive(family)
    assert list(scratch.iterdir()) == []
    config, folder = load_study(study), RunFolder(tmp_path / "R")
    assert code == 130 and summary is not None and summary["states"]["RUNNING"] == 0
    assert {r.cause for r in folder.results()} == {"interrupted"}
    assert driver.said().splitlines()[2:] == ["stopping; what is finished is kept"]
    database = open_database(folder, config)
    assert len(database.requeue()) == 2
    assert "RUNNING" not in state_counts(database)

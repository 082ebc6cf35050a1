"""Processes are killed, as whole runs and one by one; nothing may be lost, repeated or left running.

``python -m pytest -m chaos tests/search`` runs these; each asserts that its killer did kill.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engine_studies import SPACE, state_counts, write_study

from gs_search.config import load_study
from gs_search.runfolder import RunFolder
from gs_search.search.database import open_database
from gs_search.search.runner import WORKERS_DIE_S

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

HERE = Path(__file__).parent


class Driver:
    """A run in a process group of its own."""

    def __init__(self, study: Path, out: Path, function: str = "trial") -> None:
        self.out = out
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
        environment["HOME"] = str(out.parent / "home")
        self.log = out.parent / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "drive.py"), str(study), str(out), function],
                env=environment, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip

    def finished(self) -> int:
        """Complete trials by now."""
        results = self.out.glob("trials/*/result.json")
        return sum('"state": "COMPLETE"' in path.read_text() for path in results)

    def died(self) -> list[int]:
        """Trials that lost their process, as often as they did."""
        return [int(number) for number in re.findall(r"trial (\d+): its process died", self.log.read_text())]

    def wait_for(self, trials: int) -> None:
        """Wait until so many trials are complete."""
        deadline = time.monotonic() + 90
        while self.finished() < trials:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self) -> tuple[int, dict[str, Any] | None]:
        """Wait for the end; the exit code and the summary, if there is one."""
        out, _ = self.process.communicate(timeout=120)
        assert out.count(b"\n") <= 1, out
        return self.process.returncode, json.loads(out) if out else None


def children(pid: int) -> list[int]:
    """Every process below ``pid``."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found, frontier = [], [pid]
    while frontier:
        parent = frontier.pop()
        below = [child for child, above in parents.items() if above == parent]
        found += below
        frontier += below
    return found


def workers(pid: int) -> list[int]:
    """Worker processes of a driver that are running trials."""
    found = []
    for child in children(pid):
        try:
            if b"ray::TrialWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


def assert_gone(pids: list[int], seconds: float = 90) -> None:
    """Assert that processes end. Ray's agents take a minute to notice that their parent is gone."""
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _zombie(pid)]:
        names = [Path(f"/proc/{pid}/cmdline").read_bytes()[:80] for pid in alive]
        assert time.monotonic() < deadline, f"still alive: {names}"
        time.sleep(0.1)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Start drivers; none outlives its test."""
    started: list[Driver] = []

    def start(*arguments: Any) -> Driver:
        started.append(Driver(*arguments))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()
        driver.process.communicate()


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary folder of the test's own, so that leftovers show."""
    with tempfile.TemporaryDirectory(prefix="gsc-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def check(study: Path, out: Path, total: int) -> list[str]:
    """Assert that a study is whole; return the keys of its trials in their order."""
    folder, config = RunFolder(out), load_study(study)
    database = open_database(folder, config)
    states = state_counts(database)
    assert states["COMPLETE"] == total and "RUNNING" not in states and "WAITING" not in states, states
    complete = [r for r in folder.results() if r["state"] == "COMPLETE"]
    keys = [r["key"] for r in complete]
    assert len(complete) == total and len(set(keys)) == total
    for result in complete:
        trial = database.trials()[result["number"]]
        assert trial.values == list(result["objectives"].values())
    for trial in database.trials():
        assert trial.state.name == "COMPLETE" or trial.user_attrs["requeue"]
    return keys


def test_a_driver_killed_again_and_again_ends_with_the_trials_of_an_undisturbed_one(
    tmp_path: Path, scratch: Path, drive: Callable[..., Driver]
) -> None:
    total, chance = 16, random.Random(1)
    parameters = {**SPACE, "distill_weight": 150.0}
    study = write_study(tmp_path / "study", parameters, trials=total, workers=1)
    (tmp_path / "calm").mkdir()
    assert drive(study, tmp_path / "calm" / "R").end()[0] == 0

    (tmp_path / "wild").mkdir()
    out, kills, family = tmp_path / "wild" / "R", 0, list[int]()
    while True:
        driver = drive(study, out)
        if kills < 4:
            driver.wait_for(driver.finished() + chance.randint(1, 3))
            time.sleep(chance.uniform(0, 0.3))
            family += children(driver.process.pid)
            busy = workers(driver.process.pid)
            driver.process.kill()
            kills += 1
            # Before a new run touches what they were at.
            assert_gone(busy, seconds=WORKERS_DIE_S + 1)
        code, summary = driver.end()
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert kills == 4 and summary is not None and summary["finished"] == total
    assert check(study, out, total) == check(study, tmp_path / "calm" / "R", total)
    assert list(scratch.iterdir()) == [], "what the killed ones left is swept"
    assert not (tmp_path / "wild" / "home").exists()
    assert_gone(family)


def test_workers_killed_at_random_moments_lose_no_trial(
    tmp_path: Path, scratch: Path, drive: Callable[..., Driver]
) -> None:
    total, chance = 40, random.Random(2)
    study = write_study(tmp_path / "study", {**SPACE, "distill_weight": 400.0}, trials=total, workers=2)
    driver = drive(study, tmp_path / "R")
    driver.wait_for(1)
    kills = 0
    while driver.process.poll() is None and kills < 4:
        candidates = workers(driver.process.pid)
        time.sleep(chance.uniform(0, 0.4))
        if not candidates:
            continue
        with suppress(ProcessLookupError):
            os.kill(chance.choice(candidates), signal.SIGKILL)
            kills += 1
        # A trial survives one death, not two: let what was killed finish before the next one.
        deadline = time.monotonic() + 60
        while driver.process.poll() is None and time.monotonic() < deadline:
            died = driver.died()
            if len(died) == kills and all((driver.out / f"trials/{n}/result.json").exists() for n in died):
                break
            time.sleep(0.02)
    code, summary = driver.end()
    assert code == 0 and summary is not None, driver.log.read_text()
    assert kills >= 3
    assert "its process died; trying once more" in driver.log.read_text()
    check(study, tmp_path / "R", total)


@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-c twice", "sigterm"])
def test_a_signal_ends_a_run_its_processes_and_its_files(
    how: str, tmp_path: Path, scratch: Path, drive: Callable[..., Driver]
) -> None:
    study = write_study(tmp_path / "study", {**SPACE, "distill_weight": 9000.0}, trials=4)
    driver = drive(study, tmp_path / "R", "slow")
    deadline = time.monotonic() + 90
    while len(workers(driver.process.pid)) < 2:
        assert time.monotonic() < deadline and driver.process.poll() is None, driver.log.read_text()
        time.sleep(0.1)
    time.sleep(1)
    family = children(driver.process.pid)
    start = time.monotonic()
    if how == "sigterm":
        driver.process.terminate()
    else:
        # A terminal sends it to the whole process group.
        os.killpg(driver.process.pid, signal.SIGINT)
        if how == "ctrl-c twice":
            time.sleep(0.1)
            os.killpg(driver.process.pid, signal.SIGINT)
    code, summary = driver.end()
    assert time.monotonic() - start < 15
    assert_gone(family)
    assert list(scratch.iterdir()) == []
    config, folder = load_study(study), RunFolder(tmp_path / "R")
    assert code == 130 and summary is not None and summary["states"]["RUNNING"] == 0
    assert {r["cause"] for r in folder.results()} == {"interrupted"}
    assert driver.log.read_text().splitlines()[2:] == ["stopping; what is finished is kept"]
    database = open_database(folder, config)
    assert len(database.requeue()) == 2
    assert "RUNNING" not in state_counts(database)

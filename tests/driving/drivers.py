"""Runs in processes of their own, to be killed at any moment, and what has to be true of a study afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_studies import state_counts

from benchmarks.kills_processes import below, trial_workers, wait_until_gone
from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import close_study
from gs_search.search.study_database import open_database
from gs_search.study.config import load_study
from gs_search.study.database_url import database_url

__all__ = ["AGENTS_S", "Driver", "StartDriver", "check", "drive_fixture", "left_alive", "marks", "scratch_fixture"]

HERE = Path(__file__).parent

AGENTS_S = 120.0
"""Seconds in which the last processes of a run are gone; Ray's agents take a minute to miss a killed parent."""


class Driver:
    """A run in a process group of its own; what it says is in ``log.txt`` beside its folder.

    Args:
        function, prepare: names in ``stand_ins``.
        patience_s: seconds for which an unreachable database is waited for.
        log: where it says things to instead, as of ``Popen``.
    """

    def __init__(
        self,
        study: Path,
        out: Path,
        function: str = "trial",
        prepare: str = "prepare",
        patience_s: float = 60.0,
        log: int | None = None,
    ) -> None:
        self.out = out
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
        environment["HOME"] = str(out.parent / "home")
        self.log = out.parent / "log.txt"
        with self.log.open("ab") as file:
            self.begins_at = file.tell()
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "drive.py"), str(study), str(out), function, prepare, str(patience_s)],
                env=environment, stdout=subprocess.PIPE, stderr=file if log is None else log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """What this run has said so far."""
        return self.log.read_bytes()[self.begins_at :].decode(errors="replace")

    def finished(self) -> int:
        """Trials that are complete, or were left at a rung, by now."""
        results = self.out.glob("trials/*/result.json")
        return sum('"state": "FAIL"' not in path.read_text() for path in results)

    def died(self) -> list[int]:
        """Trials that lost the process that was at them, as often as they did."""
        return [int(number) for number in re.findall(r"trial (\d+): its process died; trying once more", self.said())]

    def begun(self) -> dict[int, int]:
        """Process to the trial that it has begun last, of ``stand_ins.resumable``."""
        return {pid: number for what, number, _, _, pid in marks(self.out) if what == "begin"}

    def wait_until(self, condition: Callable[[], Any], seconds: float = 90) -> Any:
        """Wait until something is true, and return it; the run has to go on meanwhile."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)
        return found

    def wait_for(self, trials: int) -> None:
        """Wait until so many trials are finished."""
        self.wait_until(lambda: self.finished() >= trials)

    def workers(self) -> list[int]:
        return trial_workers(self.pid)

    def family(self) -> list[int]:
        """Every process below it."""
        return below(self.pid)

    def end(self, seconds: float = 200) -> tuple[int, dict[str, Any] | None]:
        """Wait for the end; the exit code and the summary, if there is one."""
        out, said = self.process.communicate(timeout=seconds)
        if said:  # through a pipe
            self.log.write_bytes(self.log.read_bytes() + said)
        assert out.count(b"\n") <= 1, out
        return self.process.returncode, json.loads(out) if out else None


StartDriver = Callable[..., Driver]


@pytest.fixture(name="drive")
def drive_fixture() -> Iterator[StartDriver]:
    """Start drivers; none outlives its test."""
    started: list[Driver] = []

    def start(*arguments: Any, **options: Any) -> Driver:
        started.append(Driver(*arguments, **options))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()
        driver.process.communicate()


@pytest.fixture(name="scratch")
def scratch_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary folder of the test's own, so that leftovers show."""
    with tempfile.TemporaryDirectory(prefix="gsc-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def left_alive(pids: list[int], seconds: float = AGENTS_S) -> list[str]:
    """Processes that are still there after a while; none, if all is well."""
    return wait_until_gone(pids, seconds)


def marks(out: Path) -> list[list[Any]]:
    """What ``stand_ins.resumable`` has noted: what, number, key, step, process."""
    path = out / "marks.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(study: Path, out: Path, total: int) -> list[tuple[str, str]]:
    """Assert that a study is whole: nothing lost, running, or done twice.

    Returns:
        key and state of each trial that counts, in the order in which they were proposed.
    """
    folder, config = RunFolder(out), load_study(study)
    database = open_database(folder, config, url=database_url(config.storage))
    states = state_counts(database)
    assert states.keys() <= {"COMPLETE", "PRUNED", "FAIL"}, states
    results = {record.number: record for record in folder.results()}
    trials = database.trials()
    counted, again = [], []
    for trial in trials:
        record = results[trial.number]
        assert (record.state, record.point) == (trial.state.name, {**record.point, **trial.params})
        if trial.state.name == "FAIL":
            assert trial.user_attrs["requeue"], f"{trial.number} failed for good: {record['message']}"
        else:
            counted.append((record.key, record.state))
        if trial.state.name == "COMPLETE":
            assert trial.values == list(record.objectives.values())
        if "retry_of" in trial.user_attrs:
            again.append(trial.user_attrs["retry_of"])
    assert len(counted) == total
    trained = [t.user_attrs["key"] for t in trials if t.state.name == "COMPLETE" and "duplicate_of" not in t.user_attrs]
    assert len(trained) == len(set(trained)), "each was trained once"
    failed = [trial.number for trial in trials if trial.state.name == "FAIL"]
    assert set(again) <= set(failed) and len(again) == len(set(again)), "each was queued again once"
    ends = Counter(key for what, _, key, _, _ in marks(out) if what == "end")
    complete = {key for key, state in counted if state == "COMPLETE"}
    assert set(ends) <= complete and not set(ends.values()) - {1}, "each ended once"
    close_study(database.study)
    return counted

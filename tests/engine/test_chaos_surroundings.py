"""What a run stands on fails: Ray's own processes, the disk, the database, the reader of its lines, its hooks.

``python -m pytest -m chaos`` runs these. A run ends with one clear line or goes on, and the next one finishes it.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import stand_ins
from drivers import Driver, StartDriver, check, left_alive
from engine_studies import SPACE, write_study

from benchmarks.kills_processes import named
from gs_search.results.run_folder import RunFolder
from gs_search.search.study_database import open_database
from gs_search.study.config import load_study

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

RUNGS: dict[str, Any] = {**SPACE, "sparsity_multiplier": {"type": "float", "low": 0.0, "high": 1.0}}


def error_of(driver: Driver) -> str:
    """The one line with which a run ended."""
    code, summary = driver.end()
    assert (code, summary) == (1, None), driver.said()
    lines = driver.said().splitlines()
    assert lines[-1].startswith("error: ") and not any("Traceback" in line for line in lines), driver.said()
    assert len(lines[-1]) < 900
    return lines[-1]


def goes_on(drive: StartDriver, study: Path, out: Path, total: int, function: str = "resumable") -> None:
    """Assert that the next run finishes the study."""
    driver = drive(study, out, function)
    code, summary = driver.end()
    assert code == 0 and summary is not None and summary["finished"] == total, driver.said()
    check(study, out, total)


@pytest.mark.parametrize("victim", [b"raylet/raylet", b"gcs_server"])
def test_without_one_of_rays_processes_a_run_ends_with_one_line(
    victim: bytes, tmp_path: Path, scratch: Path, drive: StartDriver
) -> None:
    total = 24
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 400.0}, trials=total)
    driver = drive(study, tmp_path / "R", "resumable")
    driver.wait_for(4)
    family = driver.family()
    (pid,) = named(driver.pid, victim)
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    driver.end()
    assert time.monotonic() - start < 75, "in the minute that Ray waits for it"
    assert driver.process.returncode == 1 and "has died" in driver.said(), driver.said()
    assert driver.finished() < total
    goes_on(drive, study, tmp_path / "R", total)
    assert list(scratch.iterdir()) == []
    assert not left_alive(family)


def test_a_database_that_others_hold_for_some_seconds_is_waited_for(
    tmp_path: Path, scratch: Path, drive: StartDriver
) -> None:
    total = 16
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 200.0}, trials=total)
    driver = drive(study, tmp_path / "R", "resumable")
    driver.wait_for(3)
    file = RunFolder(tmp_path / "R").database
    other = sqlite3.connect(file, timeout=30, isolation_level=None)
    for _ in range(3):
        other.execute("BEGIN EXCLUSIVE")
        before = driver.finished()
        time.sleep(1.5)
        # Two workers may finish what they are at.
        assert driver.finished() <= before + 2 and driver.process.poll() is None
        other.execute("COMMIT")
        driver.wait_until(lambda: driver.finished() > before)  # noqa: B023
    driver.process.kill()
    driver.end()
    other.execute("BEGIN EXCLUSIVE")  # and now while a run begins
    driver = drive(study, tmp_path / "R", "resumable")
    driver.wait_until(lambda: RunFolder(tmp_path / "R").holder())
    time.sleep(3)
    other.execute("COMMIT")
    other.close()
    code, summary = driver.end()
    assert code == 0 and summary is not None and summary["finished"] == total, driver.said()
    check(study, tmp_path / "R", total)


def limit_files(pids: list[int], size: int) -> None:
    """Have every write of these processes, and of those that they start, fail beyond ``size`` bytes of a file."""
    for pid in pids:
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        except ProcessLookupError:
            continue


def test_a_disk_that_is_full_for_some_seconds_is_waited_for(tmp_path: Path, scratch: Path, drive: StartDriver) -> None:
    total = 24
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 200.0}, trials=total, workers=1)
    driver = drive(study, tmp_path / "R", "resumable")
    driver.wait_for(4)
    # Only the driver's: a worker that cannot write makes its trial fail, as it should.
    limit_files([driver.pid], 0)
    time.sleep(4)
    stuck = driver.finished()
    time.sleep(1)
    assert driver.finished() == stuck < total and driver.process.poll() is None
    limit_files([driver.pid], resource.RLIM_INFINITY)
    code, summary = driver.end()
    assert code == 0 and summary is not None and summary["finished"] == total, driver.said()
    check(study, tmp_path / "R", total)


def test_a_disk_that_stays_full_ends_a_run_with_one_line(tmp_path: Path, scratch: Path, drive: StartDriver) -> None:
    total = 16
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 400.0}, trials=total)
    # A log would be a file, too.
    driver = drive(study, tmp_path / "R", "resumable", patience_s=3.0, log=subprocess.PIPE)
    driver.wait_for(4)
    # Not Ray's own processes: its gcs_server dies of that, which is another test.
    limit_files([driver.pid, *driver.workers()], 0)
    line = error_of(driver)
    assert "could not be reached" in line or "File too large" in line, "which is what it says at this limit"
    assert 4 <= driver.finished() < total
    goes_on(drive, study, tmp_path / "R", total)


def test_a_run_goes_on_when_the_reader_of_its_lines_has_gone(tmp_path: Path, scratch: Path, drive: StartDriver) -> None:
    total = 8
    study = write_study(tmp_path / "study", {**RUNGS, "distill_weight": 50.0}, trials=total)
    driver = drive(study, tmp_path / "R", "resumable", log=subprocess.PIPE)
    assert driver.process.stderr is not None
    assert driver.process.stderr.readline()
    driver.process.stderr.close()
    driver.process.stderr = None
    code, summary = driver.end()
    assert code == 0 and summary is not None and summary["finished"] == total
    check(study, tmp_path / "R", total)


def test_a_preparation_that_is_killed_ends_a_run_with_one_line(
    tmp_path: Path, scratch: Path, drive: StartDriver
) -> None:
    study = write_study(tmp_path / "study", RUNGS, trials=3)
    driver = drive(study, tmp_path / "R", "resumable", "prepare_for_ever")
    (pid,) = driver.wait_until(lambda: named(driver.pid, b"gs_search.engine.preparation"))
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    assert "preparing the study failed: killed by SIGKILL" in error_of(driver)
    goes_on(drive, study, tmp_path / "R", 3)


def test_processes_that_cannot_begin_stop_the_search_and_cost_no_trial(
    tmp_path: Path, scratch: Path, drive: StartDriver
) -> None:
    study = write_study(tmp_path / "study", RUNGS, trials=3)
    driver = drive(study, tmp_path / "R", "resumable", "prepare_slowly")
    resolved = RunFolder(tmp_path / "R").resolved_yaml
    driver.wait_until(lambda: named(driver.pid, b"gs_search.engine.preparation") and resolved.exists())
    time.sleep(1)  # it has been read
    text = resolved.read_text()
    resolved.write_text("torn")
    line = error_of(driver)
    assert "processes died before they began trial" in line and "resolved.yaml: damaged" in line
    resolved.write_text(text)
    assert {record.cause for record in RunFolder(tmp_path / "R").results()} <= {"interrupted"}
    goes_on(drive, study, tmp_path / "R", 3)


def test_whatever_trials_raise_the_search_goes_on(tmp_path: Path, scratch: Path, drive: StartDriver) -> None:
    hows, places = list(stand_ins.RAISES), ["begin", "rung", "end", "close"]
    space = {
        "target_gflops_ratio": {"type": "float", "low": 0.05, "high": 0.9},
        "activation_bits": {"type": "choice", "choices": [2 + stand_ins.PLACES.index(place) for place in places]},
        "distill_weight": {"type": "choice", "choices": list(range(1, 2 + len(hows)))},
    }
    points = []
    for how in range(len(hows)):
        for place in space["activation_bits"]["choices"]:
            share = 0.1 + len(points) / 1000
            # Good ones between them, or five of one cause in a row would end the search.
            points.append({"target_gflops_ratio": share, "activation_bits": place, "distill_weight": 2 + how})
            if len(points) % 4 == 3:
                points.append({"target_gflops_ratio": share, "activation_bits": place, "distill_weight": 1})
    total = len(points)
    study = write_study(tmp_path / "study", space, points, trials=total)
    driver = drive(study, tmp_path / "R", "raises")
    code, summary = driver.end(400)
    assert code == 0 and summary is not None and summary["finished"] == total, driver.said()
    assert summary["states"]["RUNNING"] == summary["states"]["WAITING"] == 0
    database = open_database(RunFolder(tmp_path / "R"), load_study(study))
    assert not database.running() and database.counted() == total
    endings: dict[tuple[str, str], set[Any]] = {}
    for record in RunFolder(tmp_path / "R").results():
        how, place = record.point["distill_weight"] - 2, stand_ins.PLACES[record.point["activation_bits"] - 2]
        assert len(record.message or "") <= 500 and "\n" not in (record.message or "")
        if how < 0:
            assert record.state == "COMPLETE"
        elif place == "close":
            # It was left for another one, and what it raised then changes nothing. (Yet it does: worker.run_in_rungs
            # writes it over the result.json that the driver had written, so this asks the database.)
            assert database.trials()[record.number].state.name in ("PRUNED", "COMPLETE")
        else:
            endings.setdefault((hows[how], place), set()).add((record.state, record.cause))
    assert len(endings) == 3 * len(hows)
    for (how, _), found in endings.items():
        # The latter: what is no Exception ends the process, see test_hooks.EXCEPTIONS.
        assert found == {("FAIL", "exception")} or how not in hows[:6] and found == {("FAIL", "killed")}, (how, found)
    assert len(driver.said()) < 400 * total, "no pages of traceback"

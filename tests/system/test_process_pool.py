"""Processes that do jobs: answers, errors, deaths, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gs_search.errors import BadInput
from gs_search.system.process_pool import answers

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def do(*kinds: str, processes: int = 1, argument: str = "x") -> list[tuple[Any, Any, str]]:
    jobs = [{"kind": kind, "number": number} for number, kind in enumerate(kinds)]
    with answers("tests.job_stand_ins:work", argument, jobs, [ENVIRONMENT] * processes) as found:
        return list(found)


def test_every_job_is_answered_once_by_processes_that_stay() -> None:
    found = do(*["print"] * 8, processes=2)
    assert sorted(job["number"] for job, _, _ in found) == list(range(8))
    assert all(answer["argument"] == "x" and answer["number"] == job["number"] for job, answer, _ in found)
    assert len({answer["pid"] for _, answer, _ in found} - {os.getpid()}) <= 2


def test_an_error_is_of_its_job() -> None:
    found = [(answer and answer["number"], problem) for _, answer, problem in do("broken", "own", "print")]
    assert found == [(None, "RuntimeError: two lines"), (None, "said on purpose"), (2, "")]


def test_a_process_that_dies_is_replaced() -> None:
    found = [(answer and answer["number"], problem) for _, answer, problem in do("die", "leave", "print")]
    assert found == [(None, "killed by SIGKILL"), (None, "MemoryError: no room"), (2, "")]


def test_bad_input_is_raised_here() -> None:
    with pytest.raises(BadInput, match="^device: no GPU here$"):
        do("wrong", "print")


def test_leaving_early_leaves_no_half_written_file(tmp_path: Path) -> None:
    jobs = [{"kind": "write"}, {"kind": "print"}]
    with answers("tests.job_stand_ins:work", str(tmp_path), jobs, [ENVIRONMENT]):
        wait_for(tmp_path / "begun")
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_no_process_outlives_the_one_that_asked(tmp_path: Path) -> None:
    code = (
        "import os; from gs_search.system.process_pool import answers\n"
        f"jobs = [{{'kind': 'write'}}]; place = {str(tmp_path)!r}\n"
        "with answers('tests.job_stand_ins:work', place, jobs, [dict(os.environ)]) as found:\n"
        "    next(found)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)
    wait_for(tmp_path / "begun")
    assert list(tmp_path.glob(".half.*"))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob(".half.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""The process that prepares a study."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_studies import MakeStudy

from benchmarks.kills_processes import wait_until_gone
from gs_search.engine.preparation import Preparation
from gs_search.errors import DataError, GsSearchError


def prepare(folder: Path, function: str, lines: list[str], retrain: bool = False) -> Preparation:
    return Preparation(folder, function, retrain=retrain, note=lines.append)


@pytest.mark.parametrize(("retrain", "call"), [(False, "once\n"), (True, "again\n")])
def test_it_prepares_and_its_lines_come_back(retrain: bool, call: str, make_study: MakeStudy) -> None:
    _, folder = make_study()
    lines: list[str] = []
    preparation = prepare(folder.path, "stand_ins:prepare", lines, retrain)
    assert preparation.wait(lambda: False)
    preparation.close()
    assert lines == ["preparing"]
    assert (folder.teacher / "calls").read_text() == call


def test_an_error_comes_back_as_what_it_is(make_study: MakeStudy) -> None:
    _, folder = make_study()
    preparation = prepare(folder.path, "stand_ins:prepare_badly", [])
    with pytest.raises(DataError, match="photos/1.png: cannot be read; remove it"):
        preparation.wait(lambda: False)
    preparation.close()


def test_a_crash_comes_back_in_one_line(make_study: MakeStudy) -> None:
    _, folder = make_study()
    preparation = prepare(folder.path, "stand_ins:nothing_of_this_name", [])
    with pytest.raises(GsSearchError, match="preparing the study failed: AttributeError.*nothing_of_this_name"):
        preparation.wait(lambda: False)
    preparation.close()


def test_a_kill_is_called_one(make_study: MakeStudy) -> None:
    _, folder = make_study()
    preparation = prepare(folder.path, "stand_ins:prepare_for_ever", [])
    preparation._process.kill()
    with pytest.raises(GsSearchError, match="preparing the study failed: killed by SIGKILL"):
        preparation.wait(lambda: False)
    preparation.close()


def test_an_interruption_kills_it(make_study: MakeStudy) -> None:
    _, folder = make_study()
    preparation = prepare(folder.path, "stand_ins:prepare_for_ever", [])
    start = time.monotonic()
    assert not preparation.wait(lambda: time.monotonic() - start > 0.3)
    preparation.close()
    assert preparation._process.returncode == -9


def test_it_ends_when_the_process_that_started_it_does(make_study: MakeStudy) -> None:
    _, folder = make_study()
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from gs_search.engine.preparation import Preparation\n"
        "run = Preparation(Path(sys.argv[1]), 'stand_ins:prepare_for_ever', retrain=False, note=print)\n"
        "print(run._process.pid, flush=True)\n"
        "time.sleep(1)\n"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(folder.path)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    pid = int(done.stdout.split()[0])
    assert done.returncode == -9
    assert wait_until_gone([pid], seconds=30) == []

"""The lock of a run folder: one live process, and none that has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gs_search.errors import StudyBusy
from gs_search.system.lock import hold, live_holder, myself

HOLDER = """
import sys
from pathlib import Path
from gs_search.system.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_held_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with hold(path):
        found = live_holder(path)
        assert found is not None and found["pid"] == os.getpid() and found["host"] and found["since"]
        with hold(path):
            pass
        assert live_holder(path) is not None, "the inner context does not let go"
    assert live_holder(path) is None and not path.exists()
    with pytest.raises(KeyError), hold(path):
        raise KeyError
    assert not path.exists()


def test_a_live_process_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        with pytest.raises(StudyBusy, match=rf"process {process.pid} on \S+ runs this study since 20\S+; wait"):
            with hold(path):
                pass
        found = live_holder(path)
        assert found is not None and found["pid"] == process.pid
        process.communicate()
    with hold(path):
        pass


def test_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        # A zombie, until the next line reaps it, is as dead.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert live_holder(path) is None
        process.wait()
    assert path.exists()
    with hold(path):
        found = live_holder(path)
        assert found is not None and found["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"started": 1}, False),
        ({"boot": "another"}, False),
        ({"pid": 2**22 + 1}, False),
        ({"pid": "1"}, False),
        ({"pid": 1, "started": None}, True),
        ({"host": "elsewhere", "boot": "another"}, True),
    ],
)
def test_who_counts_as_alive(tmp_path: Path, change: dict[str, Any], alive: bool) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({**myself(), **change}))
    assert (live_holder(path) is not None) is alive
    if change and alive:
        with pytest.raises(StudyBusy), hold(path):
            pass
    else:
        with hold(path):
            pass


def test_another_machine_cannot_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({**myself(), "host": "elsewhere"}))
    with pytest.raises(StudyBusy, match="if that machine is gone, delete .*lock$"), hold(path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"pid": 1}', "\x00\x01"])
def test_a_file_that_no_run_has_written_blocks_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    with hold(path):
        assert live_holder(path) is not None


def test_many_at_once_one_wins(tmp_path: Path) -> None:
    """Twenty processes try for a lock whose holder has died; exactly one may have it at a time."""
    path = tmp_path / "lock"
    path.write_text(json.dumps({**myself(), "started": 1}))
    script = """
import sys, time
from pathlib import Path
from gs_search.errors import StudyBusy
from gs_search.system.lock import hold
wins = 0
sys.stdin.readline()
try:
    with hold(Path(sys.argv[1])):
        (Path(sys.argv[2])).mkdir()
        time.sleep(0.05)
        (Path(sys.argv[2])).rmdir()
    print("won")
except StudyBusy:
    print("busy")
"""
    arguments = [sys.executable, "-c", script, str(path), str(tmp_path / "inside")]
    processes = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = []
    for process in processes:
        output, error = process.communicate()
        assert error == "", error
        outcomes.append(output.strip())
    assert set(outcomes) <= {"won", "busy"} and "won" in outcomes
    assert not path.exists()

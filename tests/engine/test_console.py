"""The lines of a search."""

from __future__ import annotations

import io
from typing import Any

import pytest

from gs_search.engine.console import Progress
from gs_search.monitor.estimate import Standing
from gs_search.results.record import TrialRecord
from gs_search.system.text import duration

GOOD = {"number": 3, "state": "COMPLETE", "objectives": {"fid": 61.3, "gflops": 0.0412, "size_mb": 0.1104}}


def line(record: dict[str, Any], **where: Any) -> str:
    stream = io.StringIO()
    choices: dict[str, Any] = {
        "done": 4,
        "total": 24,
        "front": (3,),
        "hypervolume": 0.61234,
        "seconds_left": 610.0,
    }
    with Progress(stream) as progress:
        progress.start(3, 24)
        progress.trial(TrialRecord.from_json(record), Standing(**{**choices, **where}))
    return stream.getvalue()


def test_a_member_of_the_front() -> None:
    assert line(GOOD) == (
        "[ 4/24] trial 3   fid   61.30  gflops   0.0412  MB   0.110  front  hypervolume 0.6123  10 min left\n"
    )


def test_a_trial_behind_the_front_and_before_anything_is_known() -> None:
    text = line(GOOD, front=(1,), hypervolume=None, seconds_left=None)
    assert text == "[ 4/24] trial 3   fid   61.30  gflops   0.0412  MB   0.110\n"


def test_a_failure_says_why() -> None:
    record = {"number": 3, "state": "FAIL", "cause": "nan", "message": "fid is [nan]", "objectives": None}
    assert "trial 3   FAIL nan: fid is [nan]  hypervolume" in line(record)


def test_a_duplicate_and_a_stopped_trial_are_named() -> None:
    assert "same point as trial 1" in line({**GOOD, "duplicate_of": 1})
    record = {"number": 3, "state": "PRUNED", "objectives": None, "message": "trial 1 is nearer"}
    assert "stopped: trial 1 is nearer" in line(record)


def test_no_escape_codes_in_a_log_file() -> None:
    assert "\x1b" not in line(GOOD)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (45.4, "45 s"),
        (90, "2 min"),
        (600, "10 min"),
        (7500, "2 h 5 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text

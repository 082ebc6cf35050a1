"""One trial in a worker: every ending becomes a record that is on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from engine_studies import ENDINGS, MakeStudy

from gs_search.engine import worker
from gs_search.engine.worker import run_in_rungs, run_one
from gs_search.results.run_folder import RunFolder
from gs_search.search.outcomes import Asked, last_lines
from gs_search.study.config import StudyConfig
from gs_search.system.files import write_json

SPACE: dict[str, Any] = {
    "target_gflops_ratio": {"type": "float", "low": 0.05, "high": 0.9},
    "activation_bits": {"type": "choice", "choices": ENDINGS},
}


def run(make_study: MakeStudy, function: str, **point: Any) -> tuple[dict[str, Any], RunFolder, StudyConfig]:
    config, folder = make_study(SPACE)
    whole = {"target_gflops_ratio": 0.5, **point}
    asked = Asked(4, whole, config.space.key(whole), 7)
    return run_one(function, asked, config, folder).to_json(), folder, config


def on_disk(folder: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder.trial(4) / "result.json").read_text())
    return content


def test_a_good_trial(make_study: MakeStudy) -> None:
    record, folder, _ = run(make_study, "stand_ins:trial")
    assert record == on_disk(folder)
    assert (record["state"], record["number"], record["seed"]) == ("COMPLETE", 4, 7)


@pytest.mark.parametrize(
    ("bits", "cause", "message"),
    [
        (2, "nan", "fid is nan"),
        (3, "exception", "RuntimeError: something in the network broke"),
        (4, "collapse", "all channels were pruned"),
        (5, "out_of_memory", "MemoryError: "),
    ],
)
def test_an_ending_without_a_result(bits: int, cause: str, message: str, make_study: MakeStudy) -> None:
    record, folder, config = run(make_study, "stand_ins:by_activation_bits", activation_bits=bits)
    assert record == on_disk(folder)
    assert (record["state"], record["cause"], record["objectives"]) == ("FAIL", cause, None)
    assert record["message"].startswith(message.strip())
    assert record["key"] == config.space.key(record["point"]) and record["study"] == "engine"
    assert record["seconds"] >= 0


def test_the_traceback_of_an_exception_is_in_the_log(make_study: MakeStudy) -> None:
    _, folder, _ = run(make_study, "stand_ins:by_activation_bits", activation_bits=3)
    log = (folder.trial(4) / "log.txt").read_text()
    assert "stand_ins.py" in log and "something in the network broke" in log


def test_a_trial_function_that_cannot_be_imported_is_the_trials_failure(make_study: MakeStudy) -> None:
    record, folder, _ = run(make_study, "no_such_module:trial")
    assert record["cause"] == "exception" and "no_such_module" in record["message"]
    assert on_disk(folder) == record


def test_the_result_of_an_earlier_attempt_is_gone_before_the_next_one_begins(make_study: MakeStudy) -> None:
    config, folder = make_study(SPACE)
    write_json(folder.trial(4) / "result.json", {"number": 4, "state": "COMPLETE"})
    asked = Asked(4, {"target_gflops_ratio": 0.5}, "", 7)
    record = run_one("stand_ins:absent_result", asked, config, folder).to_json()
    assert record["message"] == "RuntimeError: no result of before"


def test_progress_is_shown_while_it_runs_and_gone_afterwards(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.0)
    record, folder, _ = run(make_study, "stand_ins:reads_its_progress")
    assert record["message"] == "RuntimeError: step 40 of 100"
    assert not (folder.trial(4) / "progress.json").exists()


def test_progress_is_written_at_most_once_a_second(make_study: MakeStudy) -> None:
    record, _, _ = run(make_study, "stand_ins:reads_its_progress")
    assert record["message"].startswith("FileNotFoundError")


def test_the_end_of_the_log_is_kept_with_a_failure(make_study: MakeStudy) -> None:
    record, _, _ = run(make_study, "stand_ins:by_activation_bits", activation_bits=3)
    assert record["log"][-1] == "RuntimeError: something in the network broke" and len(record["log"]) <= 20


def test_a_trial_that_takes_too_long_fails_at_its_next_step(make_study: MakeStudy) -> None:
    config, folder = make_study(SPACE)
    asked = Asked(4, {"target_gflops_ratio": 0.5}, "", 7)
    trial = run_in_rungs("stand_ins:slow", asked, config, folder, timeout_s=0.05)
    with pytest.raises(StopIteration) as end:
        next(trial)
    record = end.value.value.to_json()
    assert record == on_disk(folder)
    assert record["cause"] == "timeout" and record["message"].startswith("took longer than")
    assert "at step 1 of 100" in record["message"]
    assert not (folder.trial(4) / "stack.txt").exists()


def test_a_trial_that_hangs_ends_its_process_and_says_where(make_study: MakeStudy) -> None:
    config, folder = make_study(SPACE)
    code = f"""
from gs_search.study.config import load_resolved
from gs_search.results.run_folder import RunFolder
from gs_search.engine import worker
from gs_search.search.outcomes import Asked
worker.GRACE_S = 0.1
folder = RunFolder({str(folder.path)!r})
next(worker.run_in_rungs("stand_ins:hangs", Asked(4, {{}}, "", 7), load_resolved(folder.resolved_yaml), folder,
    timeout_s=0.1))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == 1
    assert not (folder.trial(4) / "result.json").exists()
    log = last_lines(folder.trial(4))
    assert log[0] == "trained up to here" and any("in hangs" in line for line in log)


def test_a_sigterm_is_no_ending_of_the_trial(make_study: MakeStudy) -> None:
    """The machine's doing: the driver sees a process die, and has the trial begun again."""
    with pytest.raises(SystemExit):
        run(make_study, "stand_ins:terminated")

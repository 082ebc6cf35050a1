"""Whatever the engine calls may raise: one clear line or the search goes on, nothing running, nothing lost.

``test_faults`` has the database and the disk, ``test_chaos_surroundings`` what needs a real Ray.
"""

from __future__ import annotations

import errno
import io
import os
import pty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stand_ins
from engine_studies import MakeStudy, record_of, state_counts
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from short_search import assert_whole_after_the_next_run, raiser, searcher_of

from gs_search.engine import worker
from gs_search.engine.console import Progress
from gs_search.engine.preparation import Preparation
from gs_search.engine.scheduler import ParetoStopping, WarmProcesses
from gs_search.engine.searcher import FAILURES_IN_A_ROW, SearchStopped, StudyCallback, StudySearcher
from gs_search.engine.worker import run_one
from gs_search.errors import GsSearchError
from gs_search.monitor.estimate import Standing
from gs_search.results.record import Rung, TrialRecord
from gs_search.search.outcomes import Asked
from gs_search.search.stopping import Rungs
from gs_search.search.study_database import open_database
from gs_search.system.files import read_json

SPACE: dict[str, Any] = {
    "target_gflops_ratio": {"type": "float", "low": 0.05, "high": 0.9},
    "activation_bits": {"type": "choice", "choices": [2, 3, 4, 5, 6]},
    "distill_weight": {"type": "choice", "choices": list(range(1, 2 + len(stand_ins.RAISES)))},
}

# What is left out of RAISES gets past worker.run_in_rungs today, and costs a trial its process and its cause:
# "unprintable" (str() of it raises), "surrogate" (log.txt cannot be written), and what is no Exception.
EXCEPTIONS = ["error", "lines", "huge", "unpicklable", "stop", "disk"]


# --- trials and the preparation


@pytest.mark.parametrize("place", ["begin", "rung", "end"])
@pytest.mark.parametrize("how", EXCEPTIONS)
def test_whatever_a_trial_raises_is_its_failure(how: str, place: str, make_study: MakeStudy) -> None:
    config, folder = make_study(SPACE)
    bits, weight = 2 + stand_ins.PLACES.index(place), 2 + list(stand_ins.RAISES).index(how)
    point = {"target_gflops_ratio": 0.5, "activation_bits": bits, "distill_weight": weight}
    asked = Asked(4, point, config.space.key(point), 7)
    record = run_one("stand_ins:raises", asked, config, folder).to_json()
    assert record == read_json(folder.trial(4) / "result.json")
    assert (record["state"], record["cause"], record["number"]) == ("FAIL", "exception", 4)
    assert len(record["message"]) <= 500 and "\n" not in record["message"]


def test_progress_that_cannot_be_written_is_the_trials_failure(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.0)
    config, folder = make_study(SPACE)
    point = {"target_gflops_ratio": 0.5, "activation_bits": 2 + stand_ins.PLACES.index("progress"), "distill_weight": 2}
    record = run_one("stand_ins:raises", Asked(4, point, "", 7), config, folder)
    assert (record.state, record.cause) == ("FAIL", "exception") and "JSON" in str(record.message)


@pytest.mark.parametrize("function", ["returns_nothing", "returns_a_part"])
def test_no_result_is_a_failure(function: str, make_study: MakeStudy) -> None:
    config, folder = make_study(SPACE)
    record = run_one(f"stand_ins:{function}", Asked(4, {}, "", 7), config, folder)
    assert (record.state, record.cause) == ("FAIL", "exception")


def test_a_preparation_that_raises_ends_in_one_line(make_study: MakeStudy) -> None:
    _, folder = make_study()
    expected = {
        "prepare_exits": "no licence for this",
        "prepare_interrupted": "KeyboardInterrupt",
        "prepare_stubbornly": "Stubborn: no Exception",
        "prepare_at_length": "RuntimeError: line 0 line 1",
        "prepare_hugely": "RuntimeError: xxx",
        "prepare_unprintably": "Unprintable",
    }
    begun = {
        name: Preparation(folder.path, f"stand_ins:{name}", retrain=False, note=lambda line: None) for name in expected
    }
    said = {}
    for name, preparation in begun.items():
        with pytest.raises(GsSearchError) as caught:
            preparation.wait(lambda: False)
        preparation.close()
        said[name] = str(caught.value)
    for name, line in said.items():
        assert line.startswith("preparing the study failed: ") and expected[name] in line
        assert len(line) < 600 and "\n" not in line, name


# --- Tune's hooks


def judging(make_study: MakeStudy, rungs: Any) -> tuple[StudySearcher, ParetoStopping, Any]:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    searcher.suggest("a")
    return searcher, ParetoStopping(rungs, searcher, WarmProcesses(1)), SimpleNamespace(trial_id="a", error_file=None)


def test_a_rung_that_cannot_be_judged_ends_the_search_with_one_line(make_study: MakeStudy) -> None:
    rungs = Rungs("pareto", 0.5)
    rungs.remember(7, [Rung(step=1, psnr_to_teacher=20.0, gflops=1.0, size_mb=1.0, seconds=1.0)])
    searcher, scheduler, trial = judging(make_study, rungs)
    for report in (None, {}, {"step": "x"}, {"step": 1, "psnr_to_teacher": "far"}):
        searcher.error = None
        assert scheduler.on_trial_result(None, trial, {"rung": [report]}) == TrialScheduler.CONTINUE
        assert str(searcher.error).startswith("judging trial 0 at its rung failed: ")
    with pytest.raises(SearchStopped):
        StudyCallback(searcher, print).on_step_begin(0, [])
    assert_whole_after_the_next_run(searcher.database.config, searcher.database.folder)


def test_rungs_of_a_result_that_cannot_be_read_end_the_search_with_one_line(make_study: MakeStudy) -> None:
    searcher, scheduler, trial = judging(make_study, Rungs("pareto", 0.5))
    scheduler.on_trial_complete(
        None, trial, {"record": [{"number": 0, "state": "COMPLETE", "rungs": [{"psnr_to_teacher": 1.0}]}]}
    )
    assert "rungs of trial 0 failed: ValueError: rungs.0.step: field required" in str(searcher.error)


def test_rungs_that_a_resumed_trial_did_not_pause_at_are_known_from_its_result(make_study: MakeStudy) -> None:
    rungs = Rungs("pareto", 0.5)
    searcher, scheduler, trial = judging(make_study, rungs)
    report = Rung(step=2, psnr_to_teacher=20.0, gflops=1.0, size_mb=1.0, seconds=1.0)
    record = TrialRecord(number=0, state="COMPLETE", rungs=(report,))
    scheduler.on_trial_complete(None, trial, {"record": [record.to_json()]})
    verdict = rungs.judge(1, report.but(psnr_to_teacher=19.0))
    assert verdict is not None and (verdict.by, verdict.step) == (0, 2) and searcher.error is None


@pytest.mark.parametrize(
    ("hook", "how"),
    [("ask", "huge"), ("refuse", "lines"), ("timeout_s", "disk"), ("tell", "lines"), ("tell", "stop")],
)
def test_whatever_a_hook_of_the_study_raises_ends_the_search_with_one_line(
    hook: str, how: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    searcher = searcher_of(open_database(folder, config))
    with monkeypatch.context() as fault:
        fault.setattr(searcher.database, hook, raiser(stand_ins.RAISES[how]()))
        if isinstance(searcher.suggest("a"), dict):
            searcher.on_trial_complete("a", {"record": [record_of(searcher.database, searcher.live["a"]).to_json()]})
        said = str(searcher.error)
        assert " trial " in said and " failed: " in said and len(said) < 600 and "\n" not in said
        assert searcher.suggest("b") == Searcher.FINISHED
    assert_whole_after_the_next_run(config, folder)


def test_a_process_that_dies_before_it_begins_costs_its_trial_nothing(make_study: MakeStudy, tmp_path: Path) -> None:
    config, folder = make_study()
    searcher, lines = searcher_of(open_database(folder, config)), list[str]()
    callback = StudyCallback(searcher, lines.append)
    reason = tmp_path / "error.txt"
    reason.write_text("page of state\nno kernel image is available\n")
    for turn in range(FAILURES_IN_A_ROW):
        assert searcher.error is None
        assert isinstance(searcher.suggest(str(turn)), dict)
        searcher.on_trial_complete(str(turn), error=True)
        callback.on_trial_error(0, [], SimpleNamespace(trial_id=str(turn), error_file=str(reason)))
    assert lines == ["trial 0: its process died before it began; trying again"] * (FAILURES_IN_A_ROW - 1)
    assert "5 processes died before they began trial 0; the last: no kernel image is available" in str(searcher.error)
    assert state_counts(searcher.database) == {"RUNNING": 1}, "no failure of the trial"
    assert_whole_after_the_next_run(config, folder)


def test_the_process_of_a_trial_may_die_once_after_it_has_begun(make_study: MakeStudy) -> None:
    config, folder = make_study()
    searcher, lines = searcher_of(open_database(folder, config)), list[str]()
    callback = StudyCallback(searcher, lines.append)
    for name in "ab":
        searcher.suggest(name)
        trial = SimpleNamespace(trial_id=name, error_file="/nowhere/error.txt")
        callback.on_trial_start(0, [], trial)
        callback.on_trial_error(0, [], trial)
    assert lines == ["trial 0: its process died; trying once more"]
    assert [record.message for record in folder.results()] == ["its process died twice: no reason given"]


# --- what a person sees


class Gone(io.StringIO):
    """A terminal that is not there any more."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def isatty(self) -> bool:
        return True


def a_closed_pipe() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def a_closed_terminal() -> Any:
    master, slave = pty.openpty()
    os.close(master)
    return os.fdopen(slave, "w", buffering=1)


def a_full_disk() -> Any:
    return open("/dev/full", "w", buffering=1)


def a_closed_file() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [a_closed_pipe, a_closed_terminal, a_full_disk, a_closed_file, Gone])
def test_a_search_goes_on_when_nobody_can_read_of_it(stream: Callable[[], Any]) -> None:
    file = stream()
    standing = Standing(done=1, total=2, front=(), hypervolume=None, seconds_left=None)
    with Progress(file) as progress:
        progress.note("preparing")
        progress.start(0, 2)
        progress.trial(TrialRecord(number=0, state="FAIL", cause="nan", message="fid is nan"), standing)
        progress.note("stopping")
    with suppress(OSError):
        file.close()


def test_a_line_that_the_streams_encoding_does_not_have_is_written_all_the_same() -> None:
    raw = io.BytesIO()
    with Progress(io.TextIOWrapper(raw, "ascii", write_through=True)) as progress:
        progress.note("photos/\xe9\udcff.png")
    assert raw.getvalue() == b"photos/\\xe9\\udcff.png\n"

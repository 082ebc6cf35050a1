"""The whole engine: real Ray, real Optuna, real files, and trials that take milliseconds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_studies import ENDINGS, SHARE, SPACE, MakeStudy, state_counts

from gs_search.engine import runner
from gs_search.engine.console import Progress
from gs_search.engine.runner import StudySummary, run_study
from gs_search.engine.scheduler import WarmProcesses
from gs_search.errors import BadInput, DataError, GsSearchError, StudyBusy
from gs_search.monitor.estimate import Standing
from gs_search.monitor.status import study_status
from gs_search.results.run_folder import RunFolder
from gs_search.search.backup import finished_in
from gs_search.search.study_database import open_database
from gs_search.study.config import StudyConfig
from gs_search.system.files import write_json

pytestmark = pytest.mark.usefixtures("ray_started")

OPTUNA_STATES = {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0, "RUNNING": 0, "WAITING": 0}


class Watcher(Progress):
    """Keeps what a person would have seen, and lets a test act after a trial."""

    def __init__(self, after: Any = None) -> None:
        self.stream = io.StringIO()
        super().__init__(self.stream)
        self.standings: list[Standing] = []
        self.after = after

    def trial(self, record: Mapping[str, Any], standing: Standing) -> None:
        super().trial(record, standing)
        self.standings.append(standing)
        if self.after:
            self.after(self)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def run(
    config: StudyConfig, folder: RunFolder, function: str = "trial", **options: Any
) -> tuple[StudySummary, Watcher]:
    watcher = options.pop("watcher", None) or Watcher()
    prepare = options.pop("prepare", "stand_ins:prepare")
    summary = run_study(
        config,
        folder,
        progress=watcher,
        trial_function=f"stand_ins:{function}",
        prepare_function=prepare,
        **options,
    )
    return summary, watcher


def test_a_study_runs_to_its_total_and_then_has_nothing_to_do(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    raised: list[bool] = []
    keep = WarmProcesses.keep

    def watched(self: WarmProcesses, controller: Any, trial: Any) -> None:
        keep(self, controller, trial)
        raised.append(bool(self._raised))

    monkeypatch.setattr(WarmProcesses, "keep", watched)
    start_points = [
        {"target_gflops_ratio": 0.25, "weight_bits": 8},
        {"target_gflops_ratio": 0.05, "weight_bits": 4},
    ]
    config, folder = make_study(start_points=start_points)
    summary, watcher = run(config, folder)

    assert (summary.ending, summary.finished, summary.new, summary.total) == ("finished", 6, 6, 6)
    assert summary.states == {**OPTUNA_STATES, "COMPLETE": 6}
    assert 0 < summary.hypervolume < 1 and set(summary.front) <= set(range(6))  # type: ignore[operator]
    results = folder.results()
    assert [r.number for r in results] == list(range(6))
    assert [r.point for r in results[:2]] == start_points
    assert {r.model_extra["threads"] for r in results} == {"1"}, "one computing thread a process"
    assert 1 <= len({r.model_extra["pid"] for r in results}) <= 2, "two warm processes, not one a trial"
    assert raised == [True] * 6, "this Ray's controller has the cache whose limit is raised"
    assert os.getpid() not in {r.model_extra["pid"] for r in results}

    lines = watcher.text.splitlines()
    assert lines[0] == "preparing" and lines[1].startswith("6 trials to go, 2 at once on cpu")
    assert len(lines) == 8 and all("hypervolume" in line for line in lines[2:])
    assert watcher.standings[-1].done == 6

    status = study_status(folder)
    assert (status["finished"], status["total"], status["running"], status["live"]) == (6, 6, False, [])
    assert status["front"] == list(summary.front) and status["hypervolume"] == summary.hypervolume
    found = {p.name for p in folder.path.iterdir()} - {"lock"}
    files = {"study.yaml", "search_space.yaml", "resolved.yaml", "study.db", "study.db.backup"}
    assert found == {*files, "teacher", "trials"}
    assert finished_in(folder.backup, "engine") == 6, "the copy has all"
    assert not (tmp_path / "home").exists(), "nothing is written outside the run folder"

    monkeypatch.setattr(runner, "local_ray", None)  # a second run must not even start Ray
    again, watcher = run(config, folder)
    assert (again.ending, again.new, again.finished) == ("nothing_to_do", 0, 6)
    assert again.front == summary.front and again.hypervolume == summary.hypervolume
    assert watcher.text == ""


def test_every_ending_has_its_state_and_cause_and_the_search_goes_on(make_study: MakeStudy) -> None:
    space = {"target_gflops_ratio": SHARE, "activation_bits": {"type": "choice", "choices": ENDINGS}}
    points = [{"target_gflops_ratio": 0.1 + 0.1 * i, "activation_bits": bits} for i, bits in enumerate(ENDINGS)]
    config, folder = make_study(space, points, trials=len(ENDINGS))
    summary, watcher = run(config, folder, "by_activation_bits")

    assert summary.ending == "finished"
    assert summary.states == {**OPTUNA_STATES, "COMPLETE": 2, "FAIL": 5}
    results = folder.results()
    endings = {r.point["activation_bits"]: (r.state, r.cause) for r in results}
    assert endings == {
        8: ("COMPLETE", None),
        2: ("FAIL", "nan"),
        3: ("FAIL", "exception"),
        4: ("FAIL", "collapse"),
        5: ("FAIL", "out_of_memory"),
        6: ("COMPLETE", None),  # killed once: tried again
        7: ("FAIL", "killed"),  # killed twice
    }
    told = {t.number: t.user_attrs.get("cause") for t in open_database(folder, config).trials()}
    assert told == {r.number: r.cause for r in results}
    assert watcher.text.count("its process died; trying once more") == 2
    assert watcher.text.count("FAIL nan: fid is nan") == 1
    assert study_status(folder)["causes"] == {c: 1 for c in ("nan", "exception", "collapse", "out_of_memory", "killed")}


def test_an_interruption_ends_cleanly_and_the_next_run_goes_on(make_study: MakeStudy) -> None:
    quick = {"target_gflops_ratio": 0.25, "distill_weight": 0}
    slow = [{"target_gflops_ratio": 0.3 + i / 10, "distill_weight": 1500} for i in range(3)]
    space = {"target_gflops_ratio": SHARE, "distill_weight": {"type": "choice", "choices": [0, 1500]}}
    config, folder = make_study(space, [quick, *slow], trials=4)
    before = signal.getsignal(signal.SIGINT)
    statuses: list[dict[str, Any]] = []

    def stop(watcher: Watcher) -> None:
        statuses.append(study_status(folder))
        os.kill(os.getpid(), signal.SIGINT)

    watcher = Watcher(after=stop)
    summary, _ = run(config, folder, watcher=watcher)
    assert summary.ending == "interrupted" and summary.interrupted
    assert summary.states["RUNNING"] == 0 and 1 <= summary.finished < 4
    assert summary.seconds < 60
    cut = [r for r in folder.results() if r.state == "FAIL"]
    assert cut and {(r.cause, r.requeue) for r in cut} == {("interrupted", True)}
    assert "stopping" in watcher.text
    assert signal.getsignal(signal.SIGINT) is before
    assert statuses[0]["running"] and statuses[0]["finished"] == 1 and statuses[0]["live"]
    assert statuses[0]["holder"]["pid"] == os.getpid()

    again, watcher = run(config, folder)
    assert (again.ending, again.finished) == ("finished", 4)
    assert "queued again: " in watcher.text
    done = [r.point for r in folder.results() if r.state == "COMPLETE"]
    assert sorted(p["target_gflops_ratio"] for p in done) == [0.25, 0.3, 0.4, 0.5], "each once"
    assert state_counts(open_database(folder, config)) == {"COMPLETE": 4, "FAIL": len(cut)}


def test_failures_in_a_row_stop_the_search_with_the_reason(make_study: MakeStudy) -> None:
    config, folder = make_study(trials=50)
    with pytest.raises(GsSearchError, match=r"5 failures in a row \(nan\).*the loss is nan at step 3"):
        run(config, folder, "nan")
    states = state_counts(open_database(folder, config))
    assert "RUNNING" not in states and 5 <= states["FAIL"] <= 7


def test_d4_a_time_budget_leaves_nothing_running(make_study: MakeStudy) -> None:
    config, folder = make_study({**SPACE, "distill_weight": 400.0}, trials=1000, hours=5 / 3600)
    summary, _ = run(config, folder)
    assert summary.ending == "out_of_time"
    assert 0 <= summary.finished < 100 and summary.states["RUNNING"] == 0
    assert state_counts(open_database(folder, config)).get("COMPLETE", 0) == summary.finished


def test_d7_the_password_of_a_database_is_written_nowhere(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study(trials=2)
    scratch = tmp_path / "scratch"

    @contextmanager
    def kept() -> Iterator[Path]:
        scratch.mkdir()
        yield scratch

    # What SQLite does not know in a URL it leaves alone, so this stands for any database with a password.
    database = tmp_path / "elsewhere.db"
    monkeypatch.setenv("GS_SEARCH_STORAGE", f"sqlite:///file:{database}?uri=true&password=sEcReT")
    monkeypatch.setattr(runner, "scratch_folder", kept)
    summary, watcher = run(config, folder)
    assert summary.finished == 2 and database.is_file() and not folder.database.exists()
    assert study_status(folder)["finished"] == 2
    files = [path for root in (folder.path, scratch) for path in root.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if b"sEcReT" in path.read_bytes()]
    assert "sEcReT" not in watcher.text
    assert {r.model_extra["storage"] for r in folder.results()} == {None}, "workers do not even know the URL"


def test_data_that_cannot_be_used_ends_the_run_before_the_first_trial(make_study: MakeStudy) -> None:
    config, folder = make_study()
    with pytest.raises(DataError, match="photos/1.png"):
        run(config, folder, prepare="stand_ins:prepare_badly")
    assert not folder.trials.exists() and state_counts(open_database(folder, config)) == {}


def test_another_live_process_is_refused(make_study: MakeStudy) -> None:
    config, folder = make_study()
    folder.lock_file.write_text("")
    script = (
        "import sys, time; from gs_search.results.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(StudyBusy, match=str(other.pid)):
            run(config, folder)
        assert study_status(folder)["running"]
        other.communicate()
    assert not folder.database.exists()


def test_a_new_teacher_is_refused_once_there_are_trials(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    database.fail(database.ask(), "nan", "fid is nan")
    write_json(folder.baselines, {})
    with pytest.raises(BadInput, match="imitate its present teacher"):
        run(config, folder, retrain_teacher=True)
    assert folder.baselines.exists()


@pytest.mark.slow
def test_runs_in_another_thread_leave_the_signals_alone(make_study: MakeStudy) -> None:
    config, folder = make_study(trials=1)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    endings: list[str] = []
    thread = threading.Thread(target=lambda: endings.append(run(config, folder)[0].ending))
    thread.start()
    thread.join()
    assert endings == ["finished"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("rule", ["pareto", "off"])
def test_dominated_trials_are_left_at_their_rung(make_study: MakeStudy, rule: str) -> None:
    shares = [0.2, 0.4]
    start_points = [
        {"target_gflops_ratio": share, "weight_bits": 8, "sparsity_multiplier": worse}
        for worse in (0.0, 1.0, 0.1)
        for share in shares
    ]
    space = {**SPACE, "sparsity_multiplier": {"type": "float", "low": 0.0, "high": 2.0}}
    stopping = {"rule": rule, "margin_db": 0.5}
    config, folder = make_study(space, start_points=start_points, stopping=stopping, workers=1)
    summary, watcher = run(config, folder, "in_rungs")
    left = 2 if rule == "pareto" else 0
    assert summary.states == {**OPTUNA_STATES, "COMPLETE": 6 - left, "PRUNED": left}
    assert summary.finished == 6
    status = study_status(folder)
    assert status["stopped"] == ({"0": 2} if left else {})
    assert status["agreement"]["0"]["trials"] == 6 - left
    if left:
        record = folder.results()[3]
        assert (record.state, record.cause, record.objectives) == ("PRUNED", "dominated", None)
        assert record.rungs[-1].step == 0 and record.message.startswith("at 0 steps trial 1 is")
        assert "stopped: at 0 steps trial 1" in watcher.text
        # What was told is known to the next run, too.
        again = {"target_gflops_ratio": 0.4, "weight_bits": 8, "sparsity_multiplier": 1.5}
        database = open_database(folder, config)
        database.study.enqueue_trial(again)
        summary, _ = run(config, folder, "in_rungs", trials=7)
        assert summary.states["PRUNED"] == 3 and summary.states["RUNNING"] == 0

"""What is left of a search whose processes are killed: gs_search and Ray's own ``OptunaSearch``, the same script.

    OMP_NUM_THREADS=1 python -m benchmarks.kills

Ninety trials of a second on two workers, two of which end without a number and some are stopped; meanwhile the run
is killed five times (SIGKILL), interrupted once (Ctrl-C) and ended by its time budget once, and ten of its workers are
killed in the middle of a trial, no trial twice. After each end it is begun again: gs_search by the same command,
``OptunaSearch`` with its SQLite database as Ray's documentation says, once *restored* from Tune's own snapshot
(``Tuner.restore``) and once *anew*, a fresh ``Tuner`` on the same study. Both try a trial once more whose process died.
Then what the database has is compared with what the trials have noted themselves. Some twelve minutes.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.engine_trial import objectives
from benchmarks.kills_driver import ANEW, OURS, RESTORED, study_and_folder
from benchmarks.kills_processes import below, trial_workers, wait_until_gone
from benchmarks.kills_trial import NANS, ORDERS, key_of, read_marks
from benchmarks.report import environment, publish, table
from benchmarks.rows import Case, Row, Rows

ROOT = Path(__file__).resolve().parents[1]

WORKERS = 2

LONGEST_S = 240.0
"""A run that takes longer hangs, and is killed."""


@dataclass(frozen=True)
class Session:
    """One run and how it is ended."""

    ending: str
    """``driver`` (SIGKILL), ``ctrl-c``, ``budget``, or ``none``: it may finish."""
    workers: int = 0
    """Workers to kill before."""


SCRIPT = [
    Session("driver"), Session("driver", workers=3), Session("ctrl-c", workers=3), Session("driver"),
    Session("driver", workers=2), Session("driver", workers=2), Session("budget"), Session("none"),
]  # fmt: skip
TINY = [Session("driver", workers=1), Session("none")]

MORE = 3
"""Runs that may follow the script until the total is reached."""

BUDGET_S = 6.0
"""Time budget of the run that has one, from its first trial on."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/kills]")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
@click.option("--report-only", is_flag=True, help="The table of what is there so far.")
def main(out: Path | None, tiny: bool, report_only: bool) -> None:
    folder = out or Path("runs/benchmarks") / ("kills-tiny" if tiny else "kills")
    asked = cases(tiny)
    rows = Rows(folder, {"tiny": tiny})
    if not report_only:
        rows.measure(asked, functools.partial(measure, folder), processes=1)
    told = environment(trials="asleep", sampler="the default of each", database="SQLite", workers=WORKERS)
    publish(folder, "Kills", told, kills_table(rows.of(asked)))


def cases(tiny: bool) -> list[Case]:
    """A case a system."""
    return [{"system": system, "trials": 8 if tiny else 90} for system in (OURS, RESTORED, ANEW)]


def measure(out: Path, case: Case) -> dict[str, Any]:
    """Play the script with one system, and count what is left."""
    place = Path(tempfile.mkdtemp(prefix="work-", dir=out)).resolve()
    try:
        play = Play(place, case["system"], case["trials"])
        script = TINY if case["trials"] < 10 else SCRIPT
        for session in [*script, *[Session("none")] * MORE]:
            if play.left() == 0 and session.ending == "none":
                break
            play.run(session)
        return {**play.hits, "runs": play.runs, **counts(play.database(), play.marks(), play.names)}
    finally:
        if (place / "log.txt").exists():
            shutil.copy(place / "log.txt", out / f"{case['system'].replace(', ', '-')}.log")
        shutil.rmtree(place, ignore_errors=True)


class Play:
    """One system, its folder, and who was killed so far."""

    def __init__(self, place: Path, system: str, trials: int) -> None:
        self.place, self.system, self.trials = place, system, trials
        self.config, self.folder = study_and_folder(place, trials, WORKERS)
        self.names = [parameter.name for parameter in self.config.space.parameters]
        self.hits = {"driver": 0, "workers": 0, "ctrl-c": 0, "budget": 0, "hung": 0, "errors": 0}
        self.runs = 0
        self._chance = random.Random(0)
        self._killed: set[str] = set()
        self._start_s = 0.0

    def marks(self) -> list[tuple[str, str, int]]:
        return read_marks(self.place / "marks.jsonl")

    def database(self) -> list[Any]:
        """The trials, as Optuna has them; none before there is a database."""
        import optuna

        from gs_search.search.storage import quiet

        path = self.folder.database if self.system == OURS else self.place / "stock.db"
        if not path.exists():
            return []
        name = self.config.study if self.system == OURS else "engine"
        with quiet():
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
            try:
                return list(optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False))
            except KeyError:
                return []
            finally:
                storage.remove_session()
                storage.engine.dispose()

    def left(self) -> int:
        """Trials that the database lacks, for whoever counts as its user has to."""
        done = [trial for trial in self.database() if trial.state.name in ("COMPLETE", "PRUNED", "FAIL")]
        return max(0, self.trials - sum(not trial.user_attrs.get("requeue") for trial in done))

    def run(self, session: Session) -> None:
        """One run, from its start to its end."""
        self.runs += 1
        budget = None
        if session.ending == "budget":
            # gs_search counts from the beginning of the command, Tune from that of the trials.
            budget = BUDGET_S + (self._start_s if self.system == OURS else 0.0)
        told = {
            "system": self.system, "place": str(self.place), "trials": self.trials, "left": self.left(),
            "workers": WORKERS, "budget_s": budget,
        }  # fmt: skip
        orders = {"marks": str(self.place / "marks.jsonl"), "seconds": 1.0, "names": self.names}
        environ = {**os.environ, ORDERS: json.dumps(orders), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.kills_driver", json.dumps(told)]
        with (self.place / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )  # fmt: skip
        before, start = len(self.marks()), time.monotonic()
        if self._until(process, lambda: len(self.marks()) > before):
            self._start_s = time.monotonic() - start
        self._kill_workers(process, session.workers)
        if session.ending in ("driver", "ctrl-c"):
            ends = self._ends()
            self._until(process, lambda: self._ends() >= ends + 2)
            time.sleep(self._chance.uniform(0, 1.0))
            busy = trial_workers(process.pid)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT) if session.ending == "ctrl-c" else process.kill()
                self.hits[session.ending] += 1
            self._end(process)
            wait_until_gone(busy, 20)
        self._end(process)
        self.hits["errors"] += process.returncode > 0
        self.hits["budget"] += session.ending == "budget" and process.returncode == 0 and self.left() > 0

    def _kill_workers(self, process: subprocess.Popen[bytes], wanted: int) -> None:
        """Kill so many workers that are at a trial, none at one that has died before."""
        while wanted and process.poll() is None:
            time.sleep(self._chance.uniform(0, 0.7))
            at = {pid: (what, key) for what, key, pid in self.marks()}
            victims = [pid for pid in below(process.pid) if at.get(pid, ("end", ""))[0] == "begin"]
            victims = [pid for pid in victims if at[pid][1] not in self._killed]
            if victims and process.poll() is None:
                pid = self._chance.choice(victims)
                self._killed.add(at[pid][1])
                os.kill(pid, signal.SIGKILL)
                self.hits["workers"] += 1
                wanted -= 1

    def _ends(self) -> int:
        return sum(what == "end" for what, *_ in self.marks())

    def _until(self, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + LONGEST_S
        while process.poll() is None and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end, and see to it."""
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.hits["hung"] += 1


def counts(trials: Sequence[Any], marks: Sequence[tuple[str, str, int]], names: list[str]) -> dict[str, int]:
    """Compare what the database has with what the trials have noted.

    Args:
        trials: of Optuna.
        marks: see ``read_marks``.
        names: of the parameters.
    """
    begun = list(dict.fromkeys(key for _, key, _ in marks))
    no_number = {key for place, key in enumerate(begun) if place in NANS}
    ends = Counter(key for what, key, _ in marks if what == "end")
    states = Counter(trial.state.name for trial in trials)
    known, partial = set[str](), 0
    for trial in trials:
        key = key_of(trial.params, names)
        if trial.state.name == "COMPLETE":
            whole = abs(trial.values[0] - objectives(trial.params)["fid"]) < 1e-6
            partial += not whole
        if trial.state.name in ("COMPLETE", "PRUNED"):
            known.add(key)
    return {
        "asked": len(trials) - states["WAITING"],
        "complete": states["COMPLETE"],
        "partial": partial,
        "pruned": states["PRUNED"],
        "failed": states["FAIL"],
        "running": states["RUNNING"],
        "lost": sum(key not in known and key not in no_number for key in begun),
        "repeated": sum(count - 1 for count in ends.values()),
        "nan": len(no_number),
    }


LINES = {
    "runs": "runs, the last one to its end",
    "driver": "SIGKILLs of the run that hit",
    "workers": "SIGKILLs of a worker that hit a trial",
    "ctrl-c": "Ctrl-C",
    "budget": "ends by the time budget",
    "hung": "runs that hung",
    "errors": "runs that ended with an error",
    "asked": "trials in the database",
    "complete": "COMPLETE",
    "partial": "of these with values of an unfinished trial",
    "pruned": "PRUNED",
    "failed": "FAIL (without a number, or queued again under another number)",
    "running": "RUNNING for ever",
    "lost": "points begun whose outcome the database does not have",
    "repeated": "trainings to the end that were done once more",
}


def kills_table(rows: Sequence[Row]) -> str:
    """A column a system."""
    return table(
        ["", *(row["system"] for row in rows)], [[text, *(row[name] for row in rows)] for name, text in LINES.items()]
    )


if __name__ == "__main__":
    main()

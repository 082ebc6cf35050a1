"""A search on a virtual clock: the study's own searcher, database and stopping, with a loop in the place of Ray Tune's.

What is simulated is the training alone: a ``World`` says what a trial tells and how many seconds that takes. Points are
asked for, judged at rungs and told by ``StudySearcher``, ``StudyDatabase``, ``ParetoStopping`` and ``Rungs`` as in a
real run, so what is measured here is what ``gs-search run`` does. Proposals take no time; workers never wait.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import optuna

from benchmarks.search_world import Outcome
from gs_search.engine.scheduler import ParetoStopping, WarmProcesses
from gs_search.engine.searcher import StudySearcher
from gs_search.errors import GsSearchError
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.stopping import Rungs
from gs_search.search.storage import quiet
from gs_search.search.study_database import StudyDatabase
from gs_search.study.config import StudyConfig

__all__ = ["Exhausted", "Finished", "History", "MemoryDatabase", "Trains", "simulate"]

ENDLESS = 10**9
"""Trials in all: the budget is a time."""


class Exhausted(GsSearchError):
    """There is no point left to propose; trials under way go on."""


class Trains(Protocol):
    """What stands for the training: a ``World``."""

    def outcome(self, point: Mapping[str, Any], seed: int) -> Outcome: ...


class MemoryDatabase(StudyDatabase):
    """The study's database with its trials and results in memory."""

    def __init__(self, config: StudyConfig) -> None:
        self.results: dict[int, TrialRecord] = {}
        with quiet():
            study = optuna.create_study(directions=["minimize"] * 3)
        super().__init__(study, RunFolder(Path(os.devnull)), config)

    def write_result(self, record: TrialRecord) -> None:
        """Keep it."""
        self.results[record.number] = record

    def read_result(self, number: int) -> TrialRecord | None:
        """What was kept."""
        return self.results.get(number)


@dataclass(frozen=True)
class Finished:
    """A trial that was trained to its end."""

    clock: float
    number: int
    point: dict[str, Any]
    objectives: dict[str, float]
    """As measured, noise and all."""


@dataclass
class History:
    """What happened, in virtual seconds."""

    workers: int
    finished: list[Finished] = field(default_factory=list)
    stopped: dict[int, int] = field(default_factory=dict)
    """Rung to the number of trials that were left there."""
    started: int = 0
    answered: int = 0
    """Proposals that were duplicates."""


@dataclass
class _Trial:
    name: str
    number: int
    outcome: Outcome
    point: dict[str, Any]
    key: str
    seed: int
    start: float
    passed: int = 0
    """Rungs that it has told of."""

    @property
    def trial_id(self) -> str:
        return self.name


def simulate(
    world: Trains,
    database: StudyDatabase,
    rungs: Rungs,
    *,
    steps: tuple[int, ...],
    workers: int,
    seconds: float,
) -> History:
    """Run one search until the clock shows ``seconds``; what has not ended then is lost.

    Args:
        database: empty, or with queued points.
        steps: rungs at which trials pause; those of the world that are not among them are passed over.
        workers: trials at once.
    """
    history = History(workers)
    searcher = StudySearcher(
        database, total=ENDLESS, deadline=None, interrupted=lambda: False, on_finish=lambda record: None
    )
    scheduler = ParetoStopping(rungs, searcher, WarmProcesses(workers))
    events: list[tuple[float, int, _Trial]] = []

    def ask(clock: float) -> None:
        suggestion = searcher.suggest(f"trial-{history.started}")
        if isinstance(searcher.error, Exhausted):
            return
        if searcher.error is not None:
            raise searcher.error
        assert isinstance(suggestion, dict), "no trial dies here, so there is always one more"
        asked = {name: suggestion[name] for name in ("number", "point", "key", "seed")}
        outcome = world.outcome(asked["point"], asked["seed"])
        outcome = replace(outcome, rungs=tuple(rung for rung in outcome.rungs if rung["step"] in steps))
        trial = _Trial(f"trial-{history.started}", outcome=outcome, start=clock, **asked)
        history.started += 1
        push(trial)

    def push(trial: _Trial) -> None:
        rung = trial.outcome.rungs[trial.passed : trial.passed + 1]
        seconds_so_far = rung[0]["seconds"] if rung else trial.outcome.seconds
        heapq.heappush(events, (trial.start + seconds_so_far, trial.number, trial))

    for _ in range(workers):
        ask(0.0)
    while events and events[0][0] <= seconds:
        clock, _, trial = heapq.heappop(events)
        if trial.passed < len(trial.outcome.rungs):
            report = dict(trial.outcome.rungs[trial.passed])
            trial.passed += 1
            result = {"rung": [report], "done": False}
            if scheduler.on_trial_result(None, trial, result) == scheduler.STOP:
                step = int(report["step"])
                history.stopped[step] = history.stopped.get(step, 0) + 1
                searcher.on_trial_complete(trial.trial_id, result)
                ask(clock)
            else:
                push(trial)
            continue
        record = _record(trial, database.config.study)
        database.write_result(record)
        history.finished.append(Finished(clock, trial.number, trial.point, trial.outcome.objectives))
        searcher.on_trial_complete(trial.trial_id, {"record": [record.to_json()], "done": True})
        ask(clock)
    history.answered = sum("duplicate_of" in t.user_attrs for t in database.trials())
    return history


def _record(trial: _Trial, study: str) -> TrialRecord:
    """How a trial ended that went to its end, as far as the search reads it."""
    content = {
        "schema": 1,
        "study": study,
        "number": trial.number,
        "state": "COMPLETE",
        "cause": None,
        "message": None,
        "point": trial.point,
        "key": trial.key,
        "seed": trial.seed,
        "objectives": dict(trial.outcome.objectives),
        "psnr_to_teacher": trial.outcome.psnr_to_teacher,
        "seconds": trial.outcome.seconds,
        "rungs": [dict(rung) for rung in trial.outcome.rungs],
    }
    return TrialRecord.from_json(content)

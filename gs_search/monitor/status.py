"""How far a study is, also while it runs: reads the database and the trials' folders, changes neither.

``StatusReader`` may look again and again: a trial that has ended does not change, so that each is judged once, and
its ``result.json`` is read again only where the file has. ``terminal.status`` shows what is found.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gs_search.errors import BadInput, GsSearchError
from gs_search.monitor.advice import Ended, Member, Study, advise
from gs_search.monitor.estimate import Reference, Standing, cost, reference_of, standing
from gs_search.results.hypervolume import History
from gs_search.results.pareto import OBJECTIVES
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.stopping import agreement, savings
from gs_search.search.storage import is_counted
from gs_search.study.database_url import database_url

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gs_search.search.study_database import StudyDatabase
    from gs_search.study.config import StudyConfig

__all__ = ["StatusReader", "account", "by_ending", "study_status"]

SCHEMA = 1

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")

FAILURES = 5
"""So many of the last failures are described."""

BUSY = ("StorageInternalError", "OperationalError")
"""Errors, by name, of Optuna and of SQLAlchemy where a database is locked or gone."""

ATTEMPTS, PAUSE_S = 3, 0.2
"""A database that cannot be read may be in the middle of being written, and is looked at again."""

UNUSED: dict[str, Any] = {"layers": (), "log": (), "point": {}, "node": None, "versions": {}, "message": None}
"""Large fields of a result, none of which is shown here: they are not kept in memory."""


def study_status(folder: RunFolder) -> dict[str, Any]:
    """Gather the state of a study, see ``StatusReader.read``."""
    reader = StatusReader(folder)
    try:
        return reader.read()
    finally:
        reader.close()


class StatusReader:
    """Reads the state of one study."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._looked = False
        self._config: tuple[object, StudyConfig] | None = None
        self._database: tuple[object, StudyDatabase] | None = None
        self._records: dict[int, tuple[object, TrialRecord]] = {}
        self._account: tuple[object, dict[str, Any]] | None = None

    def read(self) -> dict[str, Any]:
        """Gather the state of the study, as it is now.

        ``phase`` is ``not_begun``, ``preparing``, ``running``, ``stopped`` (with trials to come) or ``finished``.
        ``finished`` counts towards ``total``; a trial that was interrupted and waits for another try does not.
        ``hypervolume`` is the share, 0..1, of the box from zero to the reference point that the front dominates,
        ``history`` how it grew with the seconds that workers have spent, trial by trial as they ended. ``seconds_left``
        is an estimate for what comes earlier, the number of trials or the end of the time (``limit`` says which);
        ``finished_then`` is how many trials will be finished by then. All are None while nothing can be said.
        ``stopped`` counts trials by the rung (training steps) at which they were left, ``seconds_saved`` estimates what
        that was worth, and ``agreement`` is the rank correlation of each rung's distance to the teacher with the final
        FID. ``infeasible`` counts complete trials that miss a constraint, ``never_started`` those that would have for
        certain (they count as finished), ``taken_over`` those of earlier studies (which do not). ``live`` are the
        trials that run, ``failures`` the last that failed, newest first. ``advice`` is empty unless the last fifteen
        finished trials brought nothing.

        Raises:
            BadInput: the database, or a file of the folder, is damaged.
        """
        error: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S)
            try:
                if self._looked:
                    self.folder.refresh()
                self._looked = True
                return self._read()
            except Exception as raised:
                self.close()
                if not _may_pass(raised):
                    raise
                error = raised
        if isinstance(error, GsSearchError):
            raise error
        reason = type(error).__name__
        raise BadInput(f"{self.folder}: the study cannot be read ({reason}); is its disk full or gone?") from error

    def close(self) -> None:
        """Let go of the database, and of what is known from it."""
        if self._database is not None:
            from gs_search.search.storage import close_study

            close_study(self._database[1].study)
        self._database = self._account = None

    def _read(self) -> dict[str, Any]:
        # Imported here: Optuna takes half a second, and the layout of its database is its own business.
        from gs_search.search.storage import NoStudyYet

        config, holder = self._study(), self.folder.holder()
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "study": config.study,
            "folder": str(self.folder),
            "phase": "not_begun" if holder is None else "preparing",
            "running": holder is not None,
            "holder": holder,
            "total": config.trials,
            "workers": None,
            "ends": None,
            "finished": 0,
            "states": dict.fromkeys(STATES, 0),
            "causes": {},
            "infeasible": 0,
            "never_started": 0,
            "taken_over": 0,
            "front": [],
            "best": {},
            "hypervolume": None,
            "seconds_a_trial": None,
            "seconds_spent": 0.0,
            "seconds_left": None,
            "limit": None,
            "finished_then": None,
            "stopping": config.stopping.rule,
            "stopped": {},
            "seconds_saved": 0.0,
            "agreement": {},
            "live": [],
            "failures": [],
            "history": [],
            "advice": [],
        }
        try:
            database = self._open(config)
        except NoStudyYet:
            return document
        # Before the trials: a run says what it is before its first one begins.
        run = database.study.user_attrs.get("run", {})
        trials = database.trials()
        known = self._settled(database, trials, {"total": config.trials, "workers": 1, **run})
        return document | known | self._moment(trials, known, run, holder)

    def _study(self) -> StudyConfig:
        """The study; a run that continues may have changed its number of trials."""
        stamp = _stamp(self.folder.resolved_yaml)
        if self._config is None or self._config[0] != stamp:
            self._config = (stamp, self.folder.config())
        return self._config[1]

    def _open(self, config: StudyConfig) -> StudyDatabase:
        from gs_search.search.study_database import open_database

        url = database_url(config.storage)
        # A database that was made anew has another inode.
        stamp = url or getattr(_stat(self.folder.database), "st_ino", None)
        if self._database is None or self._database[0] != stamp:
            self.close()
            self._database = (stamp, open_database(self.folder, config, url=url, read_only=True))
        return self._database[1]

    def _settled(
        self, database: StudyDatabase, trials: Sequence[FrozenTrial], run: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What changes only when a trial ends.

        Args:
            run: what the last run has told of itself, or what it will do if there has been none.
        """
        total, workers = int(run["total"]), int(run["workers"])
        ended = [t.number for t in trials if t.state.is_finished()]
        records = {number: record for number in ended if (record := self._record(database, number)) is not None}
        stamps = [self._records[number][0] for number in records]
        stamp = (len(ended), stamps, total, workers, _stamp(self.folder.baselines))
        if self._account is None or self._account[0] != stamp:
            found = account(
                database,
                trials,
                reference_of(self.folder),
                total,
                workers,
                records=records,
                told_seconds=lambda number: float(self._progress(number).get("seconds", 0.0)),
            )
            self._account = (stamp, found)
        return self._account[1]

    def _moment(
        self, trials: Sequence[FrozenTrial], known: Mapping[str, Any], run: Mapping[str, Any], holder: Any
    ) -> dict[str, Any]:
        """What changes from one second to the next.

        Args:
            known: what ``_settled`` found.
            run: what the last run has told of itself.
            holder: the process that runs the study now, or None.
        """
        from gs_search.monitor.estimate import Rest, rest

        now = datetime.datetime.now()
        ends, left = None, Rest(seconds=None)
        if holder is not None:
            begun = bool(run) and run.get("pid", holder["pid"]) == holder["pid"]
            phase, ends = ("running", run.get("ends")) if begun else ("preparing", None)
            left = rest(trials, known["total"], int(run.get("workers", 1)), ends=ends)
        else:
            phase = "finished" if known["finished"] >= known["total"] else "stopped" if trials else "not_begun"
        states = Counter(trial.state.name for trial in trials)
        failed = by_ending(t for t in trials if t.state.name == "FAIL")
        return {
            "phase": phase,
            "workers": run.get("workers"),
            "states": {name: states.get(name, 0) for name in STATES},
            "ends": None if ends is None else _iso(datetime.datetime.fromtimestamp(ends)),
            "seconds_left": left.seconds,
            "limit": left.limit,
            "finished_then": left.finished,
            "live": [self._live(t, now) for t in trials if t.state.name == "RUNNING"],
            "failures": [_failure(trial, now) for trial in failed[: -FAILURES - 1 : -1]],
        }

    def _live(self, trial: FrozenTrial, now: datetime.datetime) -> dict[str, Any]:
        """Describe a running trial: what it tries, and how far it says it is."""
        since = {} if trial.datetime_start is None else {"running_for": _age(trial.datetime_start, now)}
        return {"number": trial.number, "point": dict(trial.params), **since, **self._progress(trial.number)}

    def _progress(self, number: int) -> dict[str, Any]:
        try:
            told = json.loads((self.folder.trial(number) / "progress.json").read_text("utf-8"))
        except (OSError, ValueError):  # not begun, or ending just now
            return {}
        return told if isinstance(told, dict) else {}

    def _record(self, database: StudyDatabase, number: int) -> TrialRecord | None:
        """What is kept of a trial's result; None where there is no whole one."""
        stamp = _stamp(self.folder.trial(number) / "result.json")
        known = self._records.get(number)
        if known is not None and known[0] == stamp:
            return known[1]
        record = None if stamp is None else database.read_result(number)
        if record is None:
            return None
        kept = record.but(**UNUSED)
        self._records[number] = (stamp, kept)
        return kept


def _failure(trial: FrozenTrial, now: datetime.datetime) -> dict[str, Any]:
    ended = trial.datetime_complete
    return {
        "number": trial.number,
        "cause": str(trial.user_attrs.get("cause", "unknown")),
        "message": str(trial.user_attrs.get("message", "")),
        "ended": None if ended is None else _iso(ended),
        "seconds_ago": None if ended is None else _age(ended, now),
    }


def _age(then: datetime.datetime, now: datetime.datetime) -> float:
    return round(max(0.0, (now - then).total_seconds()), 1)


def _iso(moment: datetime.datetime) -> str:
    return moment.astimezone().isoformat(timespec="seconds")


def _stat(path: os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _stamp(path: os.PathLike[str]) -> object:
    """Changes when a file is replaced; None where there is none."""
    found = _stat(path)
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def _may_pass(error: Exception) -> bool:
    """Whether an error may be that of a file that is just being written or moved, and be gone the next time."""
    return isinstance(error, (BadInput, OSError)) or type(error).__name__ in BUSY


def account(
    database: StudyDatabase,
    trials: Sequence[FrozenTrial],
    reference: Reference | None,
    total: int,
    workers: int,
    *,
    records: Mapping[int, TrialRecord],
    told_seconds: Callable[[int], float],
) -> dict[str, Any]:
    """Judge the trials that have ended; ``gs_search.monitor.status`` says what the entries mean.

    Args:
        trials: all of the study.
        total: finished trials to reach.
        workers: trials at once.
        records: by number, of those that left one.
        told_seconds: how long a trial had run when it was last heard of, for those that were killed.
    """
    ended = by_ending(t for t in trials if t.state.is_finished())
    where = standing(database, reference, total, workers, trials=trials)
    complete = [t for t in ended if t.state == TrialState.COMPLETE and t.number not in where.infeasible]
    causes = Counter(str(t.user_attrs.get("cause", "unknown")) for t in ended if t.state == TrialState.FAIL)
    saved = savings(records.values())
    agreed = agreement(records.values())
    history = _history(ended, where, reference, told_seconds)
    found = advise(
        [_ended(t, step.gain, where) for t, step in zip(ended, history.steps, strict=True) if is_counted(t)],
        [_member(trials[number], records.get(number)) for number in where.front],
        _study(database, where, agreed),
    )
    return {
        "total": total,
        "finished": where.done,
        "causes": dict(causes.most_common()),
        "infeasible": len(where.infeasible),
        "never_started": sum(t.user_attrs.get("cause") == "infeasible" for t in ended),
        "taken_over": sum("warm_start" in t.user_attrs for t in ended),
        "front": list(where.front),
        "best": _best(complete),
        "hypervolume": where.hypervolume,
        "seconds_a_trial": database.usual_seconds(),
        "seconds_spent": history.steps[-1].seconds if history.steps else 0.0,
        "stopped": {str(step): count for step, count in saved["stopped"].items()},
        "seconds_saved": round(saved["seconds"], 1),
        "agreement": {str(s): {"spearman": round(r, 3), "trials": n} for s, (r, n) in agreed.items()},
        "history": [
            {"trial": step.trial, "seconds": step.seconds, "hypervolume": step.hypervolume} for step in history.steps
        ],
        "advice": [dataclasses.asdict(advice) for advice in found],
    }


def by_ending(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Sort finished trials by the time of their ending, then by number."""
    return sorted(trials, key=lambda t: (t.datetime_complete or datetime.datetime.min, t.number))


def _history(
    ended: Sequence[FrozenTrial], where: Standing, reference: Reference | None, told_seconds: Callable[[int], float]
) -> History:
    history = History(reference)
    for trial in ended:
        seconds = cost(trial)
        counts = trial.state == TrialState.COMPLETE and trial.number not in where.infeasible
        spent = told_seconds(trial.number) if seconds is None else seconds
        history.add(trial.number, spent, trial.values if counts else None)
    return history


def _best(complete: Sequence[FrozenTrial]) -> dict[str, dict[str, Any]]:
    """The best value of each objective, and the first trial that has it."""
    best: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(OBJECTIVES):
        if complete:
            value, number = min((t.values[index], t.number) for t in complete)
            best[name] = {"value": value, "trial": number}
    return best


def _ended(trial: FrozenTrial, gain: float, where: Standing) -> Ended:
    missed: tuple[str, ...] = ()
    if trial.number in where.infeasible:
        prefix = "constraints:"
        shares = {n.removeprefix(prefix): v for n, v in trial.system_attrs.items() if n.startswith(prefix)}
        missed = tuple(name for name, share in shares.items() if share > 0)
    return Ended(
        number=trial.number,
        state=trial.state.name,
        cause=trial.user_attrs.get("cause"),
        gain=gain,
        duplicate=trial.user_attrs.get("duplicate_of") is not None,
        missed=missed,
    )


def _member(trial: FrozenTrial, record: TrialRecord | None) -> Member:
    before, after = (None, None) if record is None else (record.psnr_before_training, record.psnr_to_teacher)
    trained = None if before is None or after is None else after - before
    return Member(number=trial.number, point=dict(trial.params), trained_db=trained)


def _study(database: StudyDatabase, where: Standing, agreed: Mapping[int, tuple[float, int]]) -> Study:
    config = database.config
    space = config.space
    varied = any(parameter.name == "steps" for parameter in space.parameters)
    return Study(
        space=space,
        sampler=config.sampler,
        steps=None if varied else int(space.constants.get("steps", config.settings["steps"])),
        limits=database.feasibility.limits(),
        margin_db=None if config.stopping.rule == "off" else config.stopping.margin_db,
        foretold=agreed[max(agreed)][0] if agreed else None,
        folder=str(database.folder.path),
        remaining=max(0, where.total - where.done),
        hypervolume=where.hypervolume,
    )

"""What a study has brought so far: all of its status that changes only when a trial ends."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gs_search.monitor.advice import Ended, Member, Study, advise
from gs_search.monitor.estimate import Baselines, Standing, cost, standing
from gs_search.results.hypervolume import History
from gs_search.results.pareto import OBJECTIVES
from gs_search.search.stopping import agreement, savings
from gs_search.search.storage import is_counted

if TYPE_CHECKING:
    from gs_search.search.study_database import StudyDatabase

__all__ = ["account", "by_ending"]

Record = Mapping[str, Any]
"""``result.json`` of a trial, or part of it."""


def account(
    database: StudyDatabase,
    trials: Sequence[FrozenTrial],
    baselines: Baselines,
    total: int,
    workers: int,
    *,
    records: Mapping[int, Record],
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
    where = standing(database, baselines, total, workers, trials=trials)
    complete = [t for t in ended if t.state == TrialState.COMPLETE and t.number not in where.infeasible]
    causes = Counter(str(t.user_attrs.get("cause", "unknown")) for t in ended if t.state == TrialState.FAIL)
    saved = savings(records.values())
    agreed = agreement(records.values())
    history = _history(ended, where, baselines, told_seconds)
    found = advise(
        [_ended(t, step.gain, where) for t, step in zip(ended, history.steps, strict=True) if is_counted(t)],
        [_member(trials[number], records.get(number, {})) for number in where.front],
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
    ended: Sequence[FrozenTrial], where: Standing, baselines: Baselines, told_seconds: Callable[[int], float]
) -> History:
    history = History(baselines.reference)
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


def _member(trial: FrozenTrial, record: Record) -> Member:
    before, after = record.get("psnr_before_training"), record.get("psnr_to_teacher")
    trained = after - before if isinstance(before, float) and isinstance(after, float) else None
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

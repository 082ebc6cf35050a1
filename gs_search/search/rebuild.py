"""Making the study database anew from the folders of its trials, after it was damaged, lost or fell behind.

``trials/<number>/result.json`` says how a trial ended; what else the database knew follows from the study: the
distributions from its space, which trials repeated others from their points, the generations of a genetic sampler
from the order of the trials (exactly so where one ran at a time). Only the driver's own trials are taken; nothing
but the database is written.
"""

from __future__ import annotations

import datetime
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseGASampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from gs_search.errors import BadInput
from gs_search.results.record import TrialRecord, read_trial
from gs_search.results.run_folder import RESULT
from gs_search.search.backup import COMPANIONS, finished_in, remove_file
from gs_search.search.feasibility import constraint_attributes
from gs_search.search.optuna_adapter import fixed_params, is_queued_as, storage_of
from gs_search.search.outcomes import objective_problem, told_attributes, told_values
from gs_search.search.samplers import generation_attribute
from gs_search.search.storage import NOT_COUNTED, close_study, open_study
from gs_search.search.study_database import StudyDatabase
from gs_search.study.database_url import VARIABLE

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig
    from gs_search.study.space import SearchSpace

__all__ = ["Rebuilt", "rebuild_database"]

LARGEST_NUMBER = 99_999
"""A folder with a larger number is nobody's trial; each number below it would cost a row."""

ENDINGS = ("COMPLETE", "PRUNED", "FAIL")

Records = dict[int, TrialRecord]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What was rebuilt."""

    study: str
    database: str
    finished: int
    """Finished trials, those that wait for another attempt left out."""
    states: dict[str, int]
    gaps: tuple[int, ...]
    """Numbers without a result that could be taken; they failed, as far as the database knows."""
    left_out: tuple[str, ...]
    """What was found and not taken, one line each, with the reason."""
    kept: str | None
    """Where the database lies that was there before."""


def rebuild_database(folder: RunFolder, *, force: bool = False) -> Rebuilt:
    """Write ``study.db`` anew from ``trials/``; the one that is there is kept as ``study.db.damaged-<n>``.

    Args:
        force: replace a sound database too that has as many finished trials.

    Raises:
        StudyBusy: a live process runs the study.
        BadInput: there is no result to take, the database needs no rebuilding, or it is none of this folder.
    """
    config = folder.config()
    if os.environ.get(VARIABLE) or config.storage:
        named = f"{VARIABLE} names" if os.environ.get(VARIABLE) else "storage of the study names"
        raise BadInput(f"{named} another database than study.db; unset it to rebuild study.db")
    with folder.lock():
        records, numbers, left_out = _read(folder, config)
        if not records:
            told = "; ".join(left_out[:1])
            raise BadInput(f"{folder.trials}: no result to rebuild from" + (f" ({told})" if told else ""))
        finished = sum(not any(getattr(record, name) for name in NOT_COUNTED) for record in records.values())
        known = finished_in(folder.database, config.study)
        if known is not None and known >= finished and not force:
            raise BadInput(
                f"{folder.database}: is sound and has {known} finished trials, trials/ has {finished}; nothing to do "
                "(--force rebuilds it all the same)"
            )
        copied = finished_in(folder.backup, config.study)
        if copied is not None and copied > finished:
            left_out.append(f"{folder.backup}: a copy with {copied} finished trials, trials/ has {finished}")
        # Fixed, so that what a dead rebuild has left is found; the lock keeps a second one away.
        draft = folder.path / ".study.db.rebuilt"
        remove_file(draft)
        try:
            gaps, states, counted = _write(draft, folder, config, records, numbers)
            kept = _put_aside(folder.database)
            os.replace(draft, folder.database)
        finally:
            remove_file(draft)
    return Rebuilt(
        study=config.study,
        database=str(folder.database),
        finished=counted,
        states=states,
        gaps=tuple(gaps),
        left_out=tuple(left_out),
        kept=None if kept is None else str(kept),
    )


# --- reading


def _read(folder: RunFolder, config: StudyConfig) -> tuple[Records, int, list[str]]:
    """Read all results; return those of the study, how many numbers were given out, and what is none of it."""
    records: Records = {}
    left_out = []
    numbers = 0
    places = sorted(folder.trials.iterdir(), key=_order) if folder.trials.is_dir() else []
    for place in places:
        path = place / RESULT
        if not re.fullmatch("0|[1-9][0-9]*", place.name) or int(place.name) > LARGEST_NUMBER:
            left_out += [f"{path}: its folder is not the number of a trial"] if path.exists() else []
            continue
        numbers = int(place.name) + 1  # also without a result: it may hold another file of its trial
        if not path.exists():
            continue
        try:
            record = folder.read(path, read_trial)
        except BadInput as error:
            left_out.append(str(error))
            continue
        if problem := _problem(record, int(place.name), config):
            left_out.append(f"{path}: {problem}")
        else:
            records[int(place.name)] = record
    return records, numbers, left_out


def _order(place: Path) -> tuple[int, str]:
    return len(place.name), place.name


def _problem(record: TrialRecord, number: int, config: StudyConfig) -> str | None:
    """Say why a result is none of this trial of this study, or return None."""
    if record.study != config.study:
        return f"is of study {record.study!r}, not of {config.study!r}"
    if record.number != number:
        return f"is of trial {record.number}, not of {number}"
    if not record.key:
        return "it has no key of its point"
    if problem := objective_problem(record):
        return f"its objective {problem}"
    # A trial that died while it was being proposed has a part of a point.
    check = config.space.check_values if record.state == "FAIL" else config.space.check_point
    problems = check(record.point)
    return f"its point is not of this study's space: {problems[0]}" if problems else None


# --- writing


def _put_aside(path: Path) -> Path | None:
    """Give a database, with what belongs to it, the next free name; None where there is nothing to keep."""
    if not path.exists() or path.stat().st_size == 0:
        remove_file(path)
        return None
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for ending in (*COMPANIONS, ""):  # the database last: never a stranger's journal beside a new one
        with suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{kept}{ending}")
    return kept


def _write(
    draft: Path, folder: RunFolder, config: StudyConfig, records: Records, numbers: int
) -> tuple[list[int], dict[str, int], int]:
    """Write the database; return the numbers without a result, how many trials of each state, and the finished."""
    study = open_study(config.study, draft)
    try:
        database = StudyDatabase(study, folder, config)
        study.set_user_attr("earlier_turns", _earlier_turns(records))
        owed = _start_points_without_result(config, records, numbers)
        known = _known_besides(config, records)
        generations = _Generations(database)
        gaps = [number for number in range(numbers) if number not in records]
        for number in range(numbers):
            if record := records.get(number):
                # What never started may lie beyond the part of the space in which the sampler is kept.
                space = config.space if record.cause == "infeasible" else database.feasibility.space()
                trial = _frozen(record, space, folder.trial(number) / RESULT)
                attributes, system_attributes = known[number]
                trial.user_attrs |= attributes
                trial.system_attrs |= system_attributes | constraint_attributes(database.feasibility.violations(record))
                trial.system_attrs |= generations.of_next(trial)
            else:
                # What comes after the last result was never finished, and its turn proposes the same point again;
                # start points are queued again. Other turns are over: repeating one would repeat a later point.
                trial = _gap(number, again=number > max(records) or number in owed)
            study.add_trial(trial)
        states = [trial.state.name for trial in database.trials()]
        return gaps, {name: states.count(name) for name in ENDINGS}, database.counted()
    finally:
        close_study(study)


def _frozen(record: TrialRecord, space: SearchSpace, path: Path) -> FrozenTrial:
    """Make the trial that ``StudyDatabase.tell`` would have made of its record."""
    fixed = FixedTrial(space.tunable(record.point))
    with suppress(ValueError):  # it died before all of its parameters were proposed
        space.suggest(fixed)
    trial = create_trial(
        state=TrialState[record.state],
        values=told_values(record),
        params=fixed.params,
        distributions=fixed.distributions,
        user_attrs=told_attributes(record),
    )
    trial.datetime_start, trial.datetime_complete = _times(record, path)
    return trial


def _times(record: TrialRecord, path: Path) -> tuple[datetime.datetime, datetime.datetime]:
    """When a trial began and ended, in local time, as Optuna writes it."""
    end = datetime.datetime.fromtimestamp(path.stat().st_mtime)
    if record.started is None or record.seconds is None:  # a failure's record does not say
        return end, end
    try:
        start = datetime.datetime.fromisoformat(record.started).astimezone().replace(tzinfo=None)
        return start, start + datetime.timedelta(seconds=record.seconds)
    except (ValueError, OverflowError):
        return end, end


def _gap(number: int, *, again: bool) -> FrozenTrial:
    """Make a trial of which nothing is known."""
    message = f"trial {number} had left no result in trials/ when the database was rebuilt"
    attributes = {"cause": "interrupted", "message": message}
    return create_trial(state=TrialState.FAIL, user_attrs=attributes | ({"requeue": True} if again else {}))


# --- what the database knew besides the results


def _earlier_turns(records: Records) -> dict[str, int]:
    """Turns of the studies that this one builds on, as far as the trials tell that were taken over from them."""
    turns: dict[str, int] = {}
    for record in records.values():
        name, _, number = (record.warm_start or "").rpartition(":")
        if number.isdecimal():
            turns[name] = max(turns.get(name, 0), int(number) + 1)
    return turns


def _start_points_without_result(config: StudyConfig, records: Records, numbers: int) -> set[int]:
    """Numbers of start points that wait; a study begins by queueing them, so they have its first own numbers."""
    keys = {record.key for record in records.values()}
    own = (number for number in range(numbers) if number not in records or not records[number].warm_start)
    starts = dict.fromkeys(map(config.space.key, config.space.start_points))
    return {number for number, key in zip(own, starts, strict=False) if key not in keys}


def _known_besides(config: StudyConfig, records: Records) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """User and system attributes of each trial that come from the queue, not from its record.

    A trial that died was queued again, so the next one with its point repeats it: without that mark the next run
    would repeat it once more. Queued points stand in the database as they were queued, by which a start point is
    recognised.
    """
    starts = {config.space.key(point): config.space.tunable(point) for point in reversed(config.space.start_points)}
    waiting: dict[str, list[int]] = {}
    deaths: dict[int, int] = {}
    known: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    for number, record in sorted(records.items()):
        attributes: dict[str, Any] = {}
        system_attributes: dict[str, Any] = {}
        known[number] = attributes, system_attributes
        if record.warm_start:
            continue
        key = record.key
        if key in starts:
            system_attributes |= is_queued_as(starts.pop(key))
        if waiting.get(key):
            original = waiting[key].pop(0)
            attributes |= {"retry_of": original, "deaths": deaths[original]}
            system_attributes |= is_queued_as(config.space.tunable(record.point))
        if record.requeue:
            attributes["requeue"] = True
            died = record.cause == "killed"
            deaths[number] = attributes.get("deaths", 0) + died
            attributes |= {"deaths": deaths[number]} if died else {}
            waiting.setdefault(key, []).append(number)
    return known


class _Generations:
    """Enters trials into the generations of a genetic sampler, as it did when it was asked; nothing for the others.

    Which trials are the parents of a generation is noted in the study when its first point is drawn, not queued; so
    it is here, at the same turn.
    """

    def __init__(self, database: StudyDatabase) -> None:
        self._database = database
        self._attribute = generation_attribute(database.config.sampler)
        self._generation = self._members = self._parents = 0

    def of_next(self, trial: FrozenTrial) -> dict[str, Any]:
        """System attributes of the next trial to be added."""
        if self._attribute is None:
            return {}
        if trial.user_attrs.get("warm_start"):  # all from earlier studies are of the first one
            self._members += self._generation == 0
            return {self._attribute: 0}
        sampler = self._database.next_sampler()
        assert isinstance(sampler, BaseGASampler) and sampler.population_size is not None
        if self._members >= sampler.population_size:
            self._generation, self._members = self._generation + 1, 0
        queued = fixed_params(trial)
        if self._parents < self._generation and not trial.params.keys() <= queued.keys():
            self._parents = self._generation
            # Another object, because one that has looked at the trials sees no newer ones before it asks.
            study = self._database.study
            study = optuna.load_study(study_name=study.study_name, storage=storage_of(study))
            sampler.get_parent_population(study, self._generation)
        self._members += trial.state == TrialState.COMPLETE
        return {self._attribute: self._generation}

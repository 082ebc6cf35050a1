"""Building on an earlier study: its students become trials of this one, where both were made and measured alike.

They steer the sampler, answer points that it proposes again, and stand on the front, for their folders are copied.
They do not count towards the number of trials. What was trained with other settings, data or rungs, or lies
outside of the space, is left behind, with the reason.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import optuna
from optuna.trial import FixedTrial, TrialState

from gs_search.errors import BadInput
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.search.feasibility import constraint_attributes
from gs_search.search.outcomes import told_attributes, told_values
from gs_search.search.samplers import generation_attribute
from gs_search.search.storage import patiently, quiet
from gs_search.search.study_database import StudyDatabase
from gs_search.study.settings import GROUPS, LEGAL, SlimmingSettings, Value, settings_from_point

if TYPE_CHECKING:
    from gs_search.study.space import SearchSpace

__all__ = ["WarmStart", "refuse_other_teacher", "warm_start"]

FILES = ("student.safetensors", "samples.png", "curve.csv", "log.txt")

MADE_ALIKE = ("data.train", "data.views", "stopping.rungs")
"""Keys of a study beside its settings that a training depends on; what is measured, the protocol knows."""


@dataclass(frozen=True)
class WarmStart:
    """What became of the trials of an earlier study."""

    source: str
    added: int
    skipped: Mapping[str, int]
    """Reason to number of trials."""

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return f"{self.added} trials taken over from {self.source}" + (f"; left behind: {reasons}" if reasons else "")


def refuse_other_teacher(folder: RunFolder, earlier: RunFolder) -> None:
    """Raise BadInput unless both studies have one teacher and one way of measuring."""
    if folder.path.resolve() == earlier.path.resolve():
        raise BadInput(f"--from {earlier}: is the run folder of this very study")
    here, there = (found.measured().protocol.id for found in (folder, earlier))
    if here != there:
        raise BadInput(
            f"--from {earlier}: measured by protocol {there}, {folder} by {here}; such numbers cannot be "
            "compared (other pictures, number of pictures, or image_px)"
        )
    mine, its = (_sha256_of_teacher(found) for found in (folder, earlier))
    if mine != its:
        raise BadInput(f"--from {earlier}: has another teacher ({its[:12]}) than {folder} ({mine[:12]})")


def _sha256_of_teacher(folder: RunFolder) -> str:
    path = folder.teacher / "generator.safetensors"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); without it teachers cannot be compared") from None


def warm_start(database: StudyDatabase, earlier: RunFolder) -> WarmStart:
    """Take over the students of ``earlier``; those that were taken over before are not taken twice.

    Raises:
        BadInput: another teacher or protocol, trained on other pictures, or a file is torn.
    """
    folder, config, theirs = database.folder, database.config, earlier.config()
    refuse_other_teacher(folder, earlier)
    here, there = config.identity(), theirs.identity()
    if differing := [key for key in MADE_ALIKE if here.get(key) != there.get(key)]:
        raise BadInput(f"--from {earlier}: its trials were trained otherwise ({', '.join(differing)} differ)")

    name, results, space = PurePath(urlsplit(earlier.place).path).name, earlier.results(), database.feasibility.space()
    made, wanted = _decided(earlier, theirs.settings), _decided(folder, config.settings)
    skipped: Counter[str] = Counter()
    added = 0
    for record in results:
        point, reason = _point_or_reason(record, made, wanted, space)
        if not reason and not (earlier.trial(record.number) / "student.safetensors").is_file():
            reason = "without a student"
        if reason:
            skipped[reason] += 1
            continue
        label, key = f"{name}:{record.number}", config.space.key(point)
        known = database.records.get(key)
        if known is None:
            database.records[key] = known = _add(database, record.but(warm_start=label, key=key), point)
            added += 1
        elif database.trials()[known].user_attrs.get("warm_start") != label or _copied(database, known):
            skipped["known already"] += 1
            continue
        _copy(database, earlier, record, known)
    if results:
        # A sampler of this seed would otherwise draw what it drew there.
        turns = {**database.study.user_attrs.get("earlier_turns", {}), name: results[-1].number + 1}
        patiently(lambda: database.study.set_user_attr("earlier_turns", turns))
    return WarmStart(str(earlier.path), added, dict(skipped.most_common()))


def _point_or_reason(
    record: TrialRecord, theirs: Mapping[str, Any], ours: Mapping[str, Any], space: SearchSpace
) -> tuple[dict[str, Value], str]:
    """The point at which a trial lies in this study's space, or why it is left behind.

    Args:
        theirs: settings of the study that the trial comes from.
        ours: settings of this one.
    """
    if not record.is_complete:
        return {}, "not complete"
    if record.duplicate_of is not None:
        return {}, "duplicates"
    made = settings_from_point(record.point, theirs)
    point = _translated(record.point, made, space)
    if problems := space.check_point(point):
        return {}, f"outside of the space ({problems[0].partition(':')[0]})"
    wanted = settings_from_point(point, ours)
    if differing := [name for name in LEGAL if _spelled_out(made, name) != _spelled_out(wanted, name)]:
        return {}, f"trained with other settings ({', '.join(differing[:3])})"
    return point, ""


def _decided(folder: RunFolder, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A study's settings with what its preparation has decided in place of ``auto``."""
    precision = (folder.measured().precision or {}).get("precision")
    return {**settings, "precision": precision} if precision and settings["precision"] == "auto" else dict(settings)


def _translated(point: Mapping[str, Value], made: SlimmingSettings, space: SearchSpace) -> dict[str, Value]:
    """The point of ``space`` at which a training with these settings lies, if it lies in it at all."""
    values = dict(point)
    for parameter in space.parameters:
        if parameter.name not in values:  # there it was a setting of all trials
            base, _, group = parameter.name.partition(".")
            value = _spelled_out(made, base)
            values[parameter.name] = value[GROUPS.index(group)] if group else getattr(made, base)
    return {**space.constants, **space.tunable(values)}


def _spelled_out(settings: SlimmingSettings, name: str) -> Any:
    """Value of a setting, for each group of layers where it has groups: a mapping and a number may mean the same."""
    if name in ("weight_bits", "activation_bits"):
        return [settings.bits(name, group) for group in GROUPS]  # type: ignore[arg-type]
    return [settings.per_group(name, group) for group in GROUPS] if LEGAL[name].per_group else getattr(settings, name)


def _add(database: StudyDatabase, record: TrialRecord, point: Mapping[str, Value]) -> int:
    """Enter a complete trial; return its number here."""
    space = database.feasibility.space()
    fixed = FixedTrial(space.tunable(point))
    space.suggest(fixed)
    attributes = constraint_attributes(database.feasibility.violations(record))
    if generation := generation_attribute(database.config.sampler):
        attributes[generation] = 0
    with quiet():
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            values=told_values(record),
            params=fixed.params,
            distributions=fixed.distributions,
            user_attrs=told_attributes(record),
            system_attrs=attributes,
        )
        patiently(lambda: database.study.add_trial(trial))
    # Its number is the database's to give: another process may have queued a point meanwhile.
    same = (t for t in database.trials() if t.user_attrs.get("warm_start") == record.warm_start)
    return next(t.number for t in same if t.user_attrs["key"] == record.key)


def _copied(database: StudyDatabase, number: int) -> bool:
    return (database.folder.trial(number) / RESULT).is_file()


def _copy(database: StudyDatabase, earlier: RunFolder, record: TrialRecord, number: int) -> None:
    """Copy a trial's folder; ``result.json`` last, for it vouches for the rest."""
    trial, place = database.trials()[number], database.folder.trial(number)
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (earlier.trial(record.number) / name).is_file():
            shutil.copyfile(earlier.trial(record.number) / name, place / name)
    own = {name: trial.user_attrs[name] for name in ("key", "warm_start")}
    own |= {"study": database.config.study, "number": number}
    own |= {"point": {**database.config.space.constants, **trial.params}}
    own |= {"constraints": database.feasibility.violations(record)}
    database.write_result(record.but(**own))

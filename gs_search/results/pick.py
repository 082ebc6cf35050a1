"""Choosing one trial of a study: the balanced one, the best inside limits, the cheapest that is good enough, a weighted
one, or one that a person names.

``rank`` is the choice itself, on arrays. ``pick_document`` makes it for a run folder and adds what a person needs to
judge it; ``save_pick`` records it in the run folder as ``pick.json``, where ``retrain`` and ``export`` find it through
``read_pick``.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from gs_search import __version__
from gs_search.errors import BadInput, NothingFeasible
from gs_search.results import pick_words
from gs_search.results.fid_uncertainty import Reading, describe, gap
from gs_search.results.front import Finished, finished_students
from gs_search.results.pareto import OBJECTIVES, dominates, front_indices, scaled
from gs_search.results.record import TrialRecord
from gs_search.results.repeats import Repeats, read_repeats
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.study.constraints import fid_above_teacher, is_feasible, nearest_miss, resolve, violations
from gs_search.system.files import read_json, write_json

__all__ = ["PICK_FILE", "Rule", "Wish", "pick_document", "rank", "read_pick", "save_pick"]

SCHEMA = 1
PICK_FILE = "pick.json"
RUNNERS_UP = 3

Rule = Literal["knee", "best_fid", "cheapest", "weights", "named"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for. Limits are inclusive."""

    max_gflops: float | None = None
    max_mb: float | None = None
    max_latency_ms: float | None = None
    """Milliseconds a picture, as measured in the trial: one CPU thread (or the study's GPU)."""
    max_fid: float | str | None = None
    """A number, or ``teacher+10``."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Objective to its weight; those that are not named count nothing."""
    trial: int | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for what nobody can mean."""
        if self.trial is not None and (self.weights or any(value is not None for value in self.limits.values())):
            raise BadInput("--trial names the trial, limits and weights choose one: give the one or the others")
        for name, value in self.limits.items():
            if value is not None and not _is_limit(name, value):
                above = ", or one to add to the teacher's, as in teacher+10" if name == "max_fid" else ""
                raise BadInput(f"--{name.replace('_', '-')}: must be a number above 0{above}, not {value}")
        if unknown := [name for name in self.weights if name not in OBJECTIVES]:
            raise BadInput(f"--weights: {unknown[0]}: no such objective; there are {', '.join(OBJECTIVES)}")
        values = self.weights.values()
        if self.weights and not (all(math.isfinite(value) and value >= 0 for value in values) and any(values)):
            raise BadInput("--weights: must be numbers from 0 on, at least one of them above 0")

    @property
    def limits(self) -> dict[str, float | str | None]:
        """The four limits by name, as they were given."""
        names = ("max_gflops", "max_mb", "max_latency_ms", "max_fid")
        return {name: getattr(self, name) for name in names}

    @property
    def rule(self) -> Rule:
        """How to choose: by a name, by weights, by a budget, by a FID that will do, or the balanced one."""
        if self.trial is not None:
            return "named"
        if self.weights:
            return "weights"
        if any(value is not None for name, value in self.limits.items() if name != "max_fid"):
            return "best_fid"
        return "knee" if self.max_fid is None else "cheapest"


def _is_limit(name: str, value: float | str) -> bool:
    if isinstance(value, str):
        return name == "max_fid" and fid_above_teacher(value) is not None
    return math.isfinite(value) and value > 0


def rank(
    points: ArrayLike, rule: Rule, *, weights: Sequence[float] | None = None, scale: ArrayLike | None = None
) -> list[int]:
    """Order the front of ``points`` from the best choice to the worst.

    ``knee``: nearest to the best value of every objective, each scaled to 0..1 on the front. ``weights``: the same with
    the squares weighted; equal weights are the knee. ``best_fid``: by the first column, then by the next ones.
    ``cheapest``: by the columns after the first, then by the first. What is equal keeps its order.

    Args:
        points: n x m, FID first.
        weights: m values from 0 on, for ``weights``.
        scale: points whose front gives the scale, k x m; else that of ``points``.

    Returns:
        Indices of the members of the front; empty where no row is finite.
    """
    rows = np.asarray(points, np.float64)
    members = front_indices(rows)
    if not members:
        return []
    front = rows[members]
    if rule in ("best_fid", "cheapest"):
        columns = list(range(front.shape[1]))
        first, *others = columns
        order = np.lexsort(front[:, columns if rule == "best_fid" else [*others, first]].T[::-1])
    else:
        whole = front if scale is None else np.asarray(scale, np.float64)[front_indices(scale)]
        factors = np.ones(front.shape[1]) if weights is None else np.asarray(weights, np.float64)
        order = np.argsort((factors * scaled(front, whole) ** 2).sum(axis=1), kind="stable")
    return [members[index] for index in order]


def pick_document(folder: RunFolder, wish: Wish) -> dict[str, Any]:
    """Choose a trial of a run folder, and say why.

    Only students that keep the study's own constraints are chosen. ``why`` holds two sentences; ``runners_up`` the
    next ones by the same rule, with ``fid_gap`` (how much higher their FID is), ``margin`` (what chance explains of
    it) and ``tie``; ``steps`` the neighbours on the front in the directions of a better FID, fewer GFLOPs and fewer
    MB, with what each costs; ``chance`` whether the gap to the runner-up is more than noise (None where there is no
    runner-up); ``warnings`` what speaks against the choice.

    Raises:
        NothingFeasible: no student keeps the limits; the message names the nearest.
        BadInput: a file is torn, or ``wish.trial`` is no trial of the study.
    """
    found = finished_students(folder)
    limits = resolve(wish.limits, found.baselines.teacher.fid)
    students = [_named(folder, found, wish.trial)] if wish.trial is not None else _inside(folder, found, limits)
    order = [students[index] for index in _ranked([_point(result) for result in students], wish, found.points)]
    around = _Around(folder, found)
    chosen, *others = order
    balanced = wish.rule in ("knee", "weights") and not limits
    return {
        "schema": SCHEMA,
        "study": chosen.study,
        "folder": str(folder),
        "trial": chosen.number,
        "rule": wish.rule,
        "options": {name: value for name, value in wish.limits.items() if value is not None}
        | ({"weights": dict(wish.weights)} if wish.weights else {}),
        "limits": limits,
        "objectives": chosen.values,
        **{
            name: getattr(chosen, name) for name in ("latency_ms", "kid", "psnr_to_teacher", "point", "key", "protocol")
        },
        "repeats": around.repeats(chosen),
        "why": pick_words.why(
            chosen.number,
            wish.rule,
            chosen.values,
            found.baselines,
            count=len(order) if balanced else len(students),
            within=pick_words.limits(limits, wish.limits),
            weights=wish.weights,
        ),
        "runners_up": [around.against(chosen, other) for other in others[:RUNNERS_UP]],
        "steps": around.steps(chosen),
        "chance": around.chance(chosen, others[0]) if others else None,
        "warnings": [*around.warnings(chosen, order), *_by_the_means(order, wish, limits, around)],
        "teacher": found.baselines.teacher.to_json(),
        "input": found.baselines.input.to_json(),
        "noise": found.baselines.noise.to_json(),
    }


def save_pick(folder: RunFolder, document: Mapping[str, Any]) -> Path:
    """Record a choice in the run folder, in place of an earlier one; return the file."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    path = folder.path / PICK_FILE
    # The folder may move; the file lies in it.
    content = {name: value for name, value in document.items() if name != "folder"}
    write_json(path, {**content, "saved": now, "gs_search": __version__})
    return path


def read_pick(folder: RunFolder) -> dict[str, Any]:
    """Return what ``save_pick`` recorded: ``trial``, ``rule``, ``options``, ``objectives``, ``saved`` and the rest.

    Raises:
        BadInput: nothing was picked, the file is damaged, or its trial is not there any more.
    """
    path = folder.path / PICK_FILE
    if not path.is_file():
        raise BadInput(f"{folder}: nothing has been picked yet; choose with `gs-search pick {folder} --save`")
    document = read_json(path)
    again = f"choose again with `gs-search pick {folder} --save`"
    if document.get("schema") != SCHEMA or not isinstance(document.get("trial"), int):
        raise BadInput(f"{path}: not a choice of this version (schema {document.get('schema')}); {again}")
    result = folder.trial(document["trial"]) / RESULT
    if not result.is_file() or folder.result(document["trial"]).key != document.get("key"):
        raise BadInput(f"{path}: names trial {document['trial']}, which is gone or another one now; {again}")
    return document


def _point(result: TrialRecord) -> list[float]:
    return [result.values[name] for name in OBJECTIVES]


def _ranked(points: Sequence[Sequence[float]], wish: Wish, scale: ArrayLike) -> list[int]:
    if wish.rule != "weights":
        return rank(points, wish.rule)
    return rank(points, "weights", weights=[wish.weights.get(name, 0.0) for name in OBJECTIVES], scale=scale)


def _named(folder: RunFolder, found: Finished, number: int) -> TrialRecord:
    """The result of a trial that a person names."""
    for result in found.feasible:
        if result.number == number:
            return result
    for result in found.complete:
        if result.number == number:
            missed = nearest_miss({number: result.values}, found.limits)
            raise NothingFeasible(f"{folder}: trial {number} misses a constraint of the study; {missed}")
    if not (folder.trial(number) / RESULT).is_file():
        raise BadInput(f"{folder}: has no trial {number} that ended; `gs-search front {folder}` lists trials")
    result = folder.result(number)
    raise BadInput(f"{folder}: trial {number} left no student ({result.state}, {result.cause})")


def _inside(folder: RunFolder, found: Finished, limits: Mapping[str, float]) -> list[TrialRecord]:
    """The students that keep the limits, at least one."""
    if not limits:
        return found.feasible
    measured = {result.number: _with_latency(result) for result in found.feasible}
    if "max_latency_ms" in limits and not any(math.isfinite(one["latency_ms"]) for one in measured.values()):
        raise NothingFeasible(f"{folder}: no trial has a measured latency, so none keeps --max-latency-ms")
    kept = [result for result in found.feasible if is_feasible(violations(measured[result.number], limits))]
    if not kept:
        raise NothingFeasible(
            f"{folder}: no student among {len(measured)} {pick_words.limits(limits, {})}; "
            f"{nearest_miss(measured, limits)}"
        )
    return kept


def _with_latency(result: TrialRecord) -> dict[str, float]:
    """Figures of a student as the limits see them; one whose latency was not measured keeps no limit of it."""
    return {**result.values, "latency_ms": math.inf if result.latency_ms is None else result.latency_ms}


def _by_the_means(order: Sequence[TrialRecord], wish: Wish, limits: Mapping[str, float], around: _Around) -> list[str]:
    """Whether the means over other seeds, where all that could be chosen have them, would choose another trial."""
    readings = [around.reading(result) for result in order]
    if wish.rule == "named" or not all(reading.others for reading in readings):
        return []
    ceiling = limits.get("max_fid", math.inf)
    rows = [[reading.mean, *_point(result)[1:]] for reading, result in zip(readings, order, strict=True)]
    kept = [index for index, row in enumerate(rows) if row[0] <= ceiling]
    if not kept:
        return [f"over other seeds none of these {len(rows)} students has a mean FID of at most {ceiling:.4g}"]
    best = kept[_ranked([rows[index] for index in kept], wish, rows)[0]]
    if order[best].number == order[0].number:
        return []
    return [f"by the mean FIDs over other seeds the choice would be trial {order[best].number}"]


class _Around:
    """What lies around a chosen student: the others by the same rule, the next steps on the front, noise, warnings."""

    def __init__(self, folder: RunFolder, found: Finished) -> None:
        self._folder, self._found = folder, found
        self._front = [found.feasible[index] for index in front_indices(found.points)]
        self._fid_std = found.baselines.fid_std
        self._repeats: dict[int, Repeats] = {}

    def reading(self, result: TrialRecord) -> Reading:
        """What is known of a student's FID."""
        return self._read(result).reading

    def repeats(self, result: TrialRecord) -> Mapping[str, Any] | None:
        """What other seeds say of a student, as ``fid_uncertainty.describe`` has it."""
        return describe(self.reading(result), self._read(result).failed)

    def _read(self, result: TrialRecord) -> Repeats:
        number = result.number
        if number not in self._repeats:
            self._repeats[number] = read_repeats(self._folder, result)
        return self._repeats[number]

    def against(self, chosen: TrialRecord, other: TrialRecord) -> dict[str, Any]:
        """Another student, and how far its FID is from the chosen one's."""
        difference, margin = gap(self.reading(chosen), self.reading(other), self._fid_std)
        return {
            "number": other.number,
            "objectives": other.values,
            "latency_ms": other.latency_ms,
            "repeats": self.repeats(other),
            "fid_gap": difference,
            "margin": margin,
            "tie": abs(difference) <= margin,
        }

    def chance(self, chosen: TrialRecord, runner_up: TrialRecord) -> dict[str, Any]:
        """Whether the gap to the runner-up is more than noise."""
        found = self.against(chosen, runner_up)
        seeds = min(len(self.reading(one).others) for one in (chosen, runner_up)) >= 2
        text = pick_words.chance(found["fid_gap"], found["margin"], found["number"], seeds=seeds)
        return {**{name: found[name] for name in ("number", "fid_gap", "margin", "tie")}, "seeds": seeds, "text": text}

    def steps(self, chosen: TrialRecord) -> list[dict[str, Any]]:
        """The nearest member of the front in the direction of each objective; one step where two lead to one member.

        ``change`` has ``fid`` as a difference, the others as ratios of the member's to the chosen one's, or None where
        that is 0.
        """
        steps: dict[int, dict[str, Any]] = {}
        here = chosen.values
        for name in OBJECTIVES:
            better = [member for member in self._front if member.values[name] < here[name]]
            if not better:
                continue
            nearest = max(better, key=lambda member: member.values[name])
            there, number = nearest.values, nearest.number
            if number in steps:
                steps[number]["towards"].append(name)
                continue
            change = {"fid": there["fid"] - here["fid"], **{c: _ratio(there[c], here[c]) for c in OBJECTIVES[1:]}}
            tie = bool(self.against(chosen, nearest)["tie"])
            text = pick_words.step(change, number, tie=tie)
            steps[number] = {"number": number, "towards": [name], "change": change, "tie": tie, "text": text}
        return list(steps.values())

    def warnings(self, chosen: TrialRecord, order: Sequence[TrialRecord]) -> list[str]:
        """What speaks against a choice.

        Args:
            order: the students that could have been chosen instead, the chosen one among them.
        """
        told = []
        here = chosen.values
        untouched = self._found.baselines.input.fid
        if here["fid"] >= untouched:
            told.append(f"its FID is no better than that of the input left as it is ({untouched:.1f})")
        for member in self._front:
            if dominates(*([result.values[name] for name in OBJECTIVES] for result in (member, chosen))):
                told.append(f"trial {member.number} is better in FID, GFLOPs and MB at once")
                break
        for other in order:
            costs = [(other.values[name], here[name]) for name in OBJECTIVES[1:]]
            cheaper = all(a <= b for a, b in costs) and any(a < b for a, b in costs)
            if cheaper and other.fid > here["fid"] and self.against(chosen, other)["tie"]:
                shares = [
                    f"{100 * (_ratio(a, b) or 0.0):.0f} % of the {pick_words.NAMES[name]}"
                    for name, (a, b) in zip(OBJECTIVES[1:], costs, strict=True)
                ]
                told.append(f"trial {other.number} ties with it in FID at {pick_words.listed(shares)}")
        if failed := self._read(chosen).failed:
            runs = failed + len(self.reading(chosen).others)
            told.append(f"of {runs} trainings with other seeds {failed} failed")
        return told


def _ratio(a: float, b: float) -> float | None:
    return 1.0 if a == b else a / b if b else None

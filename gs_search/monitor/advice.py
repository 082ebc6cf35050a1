"""What to do when a search brings nothing any more: from what its last trials were, and from where its front lies.

Pure: no files, no database. Each piece of advice names what was seen and what to change, and is given only where
chance hardly explains what was seen.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gs_search.study.settings import Value
from gs_search.study.space import Parameter, SearchSpace, word
from gs_search.study.space_file import legal_of

__all__ = ["PATIENCE", "Advice", "Ended", "Member", "Study", "advise"]

PATIENCE = 15
"""So many finished trials without a gain are worth a word."""

EDGE = 0.05
"""A value within this share of its range (of its logarithm, where the space draws that) lies at the end of it."""

CHANCE = 0.01
"""Advice about an end of a range is given where a front that knew nothing of it would sit there more rarely."""

MUCH_DB, LITTLE_DB = 1.0, 0.2
"""What training adds to a repaired student, in decibels, when more of it is, or less of it would be, worth its time."""

FORETOLD = 0.6
"""Rank correlation with the final FID below which a rung should not stop trials so readily."""


@dataclass(frozen=True)
class Advice:
    """One thing to do. ``kind`` is a word for programs, ``text`` one line for people."""

    kind: str
    text: str
    parameter: str | None = None
    """Setting that it is about."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A finished trial of the study."""

    number: int
    state: str
    """``COMPLETE``, ``PRUNED`` or ``FAIL``."""
    cause: str | None = None
    gain: float = 0.0
    """What it added to the hypervolume."""
    duplicate: bool = False
    """Whether it was answered from the record of another one."""
    missed: tuple[str, ...] = ()
    """Constraints that it misses."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial on the front."""

    number: int
    point: Mapping[str, Value]
    trained_db: float | None = None
    """What its training added, from the repaired student to the end."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What advice has to know of the study."""

    space: SearchSpace
    sampler: str
    steps: int | None = None
    """Training steps of a trial; None where the space varies them."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Constraints in numbers."""
    margin_db: float | None = None
    """Margin of the stopping rule; None where it is off."""
    foretold: float | None = None
    """Rank correlation of the last rung with the final FID."""
    folder: str = "RUN_FOLDER"
    """Its run folder, for commands."""
    remaining: int = 0
    """Trials still to come."""
    hypervolume: float | None = None


def advise(trials: Sequence[Ended], front: Sequence[Member], study: Study) -> list[Advice]:
    """Say what to do; nothing unless the last ``PATIENCE`` finished trials added nothing to the hypervolume.

    Args:
        trials: all finished ones, in the order in which they ended.
        front: its members.

    Returns:
        What was seen first (kind ``stalled``), then what to do, the most likely help first.
    """
    gained = next((i for i in range(len(trials) - 1, -1, -1) if trials[i].gain > 0), -1)
    idle = trials[gained + 1 :]
    if len(idle) < PATIENCE:
        return []
    since = f" since trial {trials[gained].number}" if gained >= 0 else ""
    seen = f"the last {len(idle)} finished trials added nothing to the hypervolume{since}"
    found = [*_endings(idle[-PATIENCE:], study), *_training(front, study), *_edges(front, study)]
    if study.hypervolume == 0 and any(t.state == "COMPLETE" and not t.missed for t in trials):
        text = (
            "every student paints worse than 1.5 x the FID of the untouched input, or is no smaller than the teacher: "
            "raise `low` of target_gflops_ratio or the bits, and see what the teacher's own FID is"
        )
        found.insert(0, Advice("worthless", text))
    return [Advice("stalled", seen), *found, _sampler(study), _how(study), _stop(study)]


def _endings(last: Sequence[Ended], study: Study) -> Iterator[Advice]:
    """What the last trials were, where they were no fair attempts."""
    failed = [t for t in last if t.state == "FAIL"]
    refused = [t for t in last if t.state == "PRUNED" and t.cause == "infeasible"]
    stopped = [t for t in last if t.state == "PRUNED" and t.cause != "infeasible"]
    missed = [t for t in last if t.missed]
    known = [t for t in last if t.duplicate]
    half = len(last) / 2
    if len(failed) > half:
        (cause, count), *_ = Counter(t.cause or "unknown" for t in failed).most_common(1)
        cure = {
            "nan": "lower learning_rate and scale_learning_rate",
            "collapse": "lower learning_rate, or raise distill_weight",
            "timeout": "raise timeout_minutes, or lower settings.steps",
            "out_of_memory": "lower batch_size or image_px, or run fewer workers",
        }.get(cause, "find the reason there before anything else")
        number = next(t.number for t in reversed(failed) if (t.cause or "unknown") == cause)
        text = f"{count} of the last {len(last)} failed ({cause}): look at trials/{number}/log.txt; {cure}"
        yield Advice("failures", text)
    if len(refused) > half and "max_gflops" in study.limits:
        text = (
            f"{len(refused)} of the last {len(last)} points were too large to start: lower `high` of "
            f"target_gflops_ratio, or raise max_gflops ({study.limits['max_gflops']:.4g})"
        )
        yield Advice("constraint", text, "max_gflops")
    if len(missed) > half:
        (name, count), *_ = Counter(name for t in missed for name in t.missed).most_common(1)
        limit = f" ({study.limits[name]:.4g})" if name in study.limits else ""
        text = f"{count} of the last {len(last)} students miss {name}{limit}: raise it, or widen the space towards it"
        yield Advice("constraint", text, name)
    poor = study.foretold is not None and study.foretold < FORETOLD
    if len(stopped) > half and study.margin_db is not None and poor:
        text = (
            f"{len(stopped)} of the last {len(last)} were stopped at a rung that foretells the final FID poorly "
            f"(rank correlation {study.foretold:.2f}): raise stopping.margin_db from {study.margin_db:g} to "
            f"{2 * study.margin_db or 0.5:g}"
        )
        yield Advice("margin", text)
    if len(known) > len(last) / 3:
        text = (
            f"{len(known)} of the last {len(last)} points had been tried before: the space is nearly exhausted; "
            "give it more choices or another setting"
        )
        yield Advice("exhausted", text)


def _training(front: Sequence[Member], study: Study) -> Iterator[Advice]:
    added = [member.trained_db for member in front if member.trained_db is not None]
    if len(added) < 3 or not study.steps:
        return
    typical = statistics.median(added)
    told = f"{study.steps} training steps add {typical:.1f} dB to the front's students (median)"
    if typical >= MUCH_DB:
        yield Advice("steps", f"{told}: twice as many (settings.steps: {2 * study.steps}) may add more", "steps")
    elif typical <= LITTLE_DB and study.steps > 1:
        text = f"{told}: with half of them (settings.steps: {study.steps // 2}) the same time looks at more points"
        yield Advice("steps", text, "steps")


def _edges(front: Sequence[Member], study: Study) -> Iterator[Advice]:
    """Ends of ranges at which more of the front lies than chance would have there."""
    for parameter in study.space.parameters:
        values = [member.point[parameter.name] for member in front if parameter.name in member.point]
        ends = _choice_ends(parameter, values) if parameter.kind == "choice" else _range_ends(parameter, values)
        crowded = [end for end in ends if _crowded(end.count, len(values), end.share)]
        for end in crowded:
            if end.change:
                who = f"{end.count} of {len(front)} points" if end.count < len(front) else "all points"
                text = f"{who} of the front lie at the {end.name} end of {parameter.name}: {end.change}"
                yield Advice("widen", text, parameter.name)
        alike = parameter.kind == "choice" and len(set(values)) == 1
        if alike and not any(end.change for end in crowded) and len(values) == len(front):
            if _crowded(len(values), len(values), 1 / len(parameter.choices)):
                text = f"all points of the front have {parameter.name} {word(values[0])}: fix it there, to learn others"
                yield Advice("fix", text, parameter.name)


@dataclass(frozen=True)
class _End:
    """An end of a parameter's range."""

    name: str
    count: int
    """Members of the front that lie there."""
    share: float
    """Share of all values that do."""
    change: str | None
    """How to move it; None where the setting allows no more."""


def _range_ends(parameter: Parameter, values: Sequence[Value]) -> list[_End]:
    scale = math.log if parameter.log else float
    low, high = scale(parameter.low), scale(parameter.high)
    places = [(scale(float(value)) - low) / (high - low) for value in values]
    legal = legal_of(parameter.name)
    assert legal is not None and legal.low is not None and legal.high is not None
    half = (parameter.high - parameter.low) / 2
    below = max(legal.low, parameter.low / 2 if parameter.log else parameter.low - half)
    above = min(legal.high, parameter.high * 2 if parameter.log else parameter.high + half)
    if parameter.kind == "int":
        below, above = math.floor(below), math.ceil(above)
    share = EDGE
    if parameter.kind == "int" and not parameter.log:  # of few values one end is more than a twentieth
        share = max(EDGE, 1 / (1 + (parameter.high - parameter.low) / (parameter.step or 1)))
    lower = f"lower `low` from {parameter.low:g} to {below:.4g}" if below < parameter.low else None
    upper = f"raise `high` from {parameter.high:g} to {above:.4g}" if above > parameter.high else None
    return [
        _End("lower", sum(place <= EDGE for place in places), share, lower),
        _End("upper", sum(place >= 1 - EDGE for place in places), share, upper),
    ]


def _choice_ends(parameter: Parameter, values: Sequence[Value]) -> list[_End]:
    """The smallest and the largest of choices that are numbers, with the legal value beyond."""
    choices = [c for c in parameter.choices if isinstance(c, (int, float)) and not isinstance(c, bool)]
    legal = legal_of(parameter.name)
    if len(choices) < max(2, len(parameter.choices)) or legal is None or legal.choices is None:
        return []
    # 32 bits are floats: no step further on the way of 8, 6, 4.
    numbers = sorted(c for c in legal.choices if isinstance(c, (int, float)) and c != 32)
    low, high = min(choices), max(choices)
    below = next((c for c in reversed(numbers) if c < low), None)
    above = next((c for c in numbers if c > high), None)
    share = 1 / len(choices)
    return [
        _End("lower", sum(v == low for v in values), share, None if below is None else f"offer {word(below)} too"),
        _End("upper", sum(v == high for v in values), share, None if above is None else f"offer {word(above)} too"),
    ]


def _crowded(count: int, members: int, share: float) -> bool:
    """Whether half of the members or more lie where ``share`` of all values do, and chance hardly explains it."""
    if share >= 1 or 2 * count < members:
        return False
    ways = ((math.comb(members, k), k) for k in range(count, members + 1))
    return sum(n * share**k * (1 - share) ** (members - k) for n, k in ways) < CHANCE


def _sampler(study: Study) -> Advice:
    other = "nsga2" if study.sampler in ("surrogate", "gp") else "surrogate"
    why = {
        "surrogate": "proposes where the front is expected to grow",
        "nsga2": "crosses distant members of the front",
    }[other]
    return Advice("sampler", f"try sampler: {other}, which {why}, instead of {study.sampler}")


def _how(study: Study) -> Advice:
    text = (
        "such changes go into a copy of the study: `gs-search run COPY.yaml --out NEW --from "
        f"{study.folder}` takes over the students that they leave comparable"
    )
    return Advice("how", text)


def _stop(study: Study) -> Advice:
    pick = f"`gs-search pick {study.folder}` takes a student"
    if not study.remaining:
        text = f"or leave it at that: all trials are there, and more of the same would hardly help; {pick}"
        return Advice("stop", text)
    rest = "the trial that remains" if study.remaining == 1 else f"the {study.remaining} trials that remain"
    return Advice("stop", f"or stop here and spare {rest}: what is finished is kept; {pick}")

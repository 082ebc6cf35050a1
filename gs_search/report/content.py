"""What a report says, gathered from a run folder: finished trials, the front, baselines, endings, cost, protocol.

Knows nothing of HTML or plots. ``gather`` reads the numbers; pictures, curves and importances are read or computed
when they are first asked for, so that who needs a figure of the front pays for nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gs_search.report.curves import Curve, read_curves
from gs_search.report.importance import Importance, parameter_importance
from gs_search.report.pictures import Samples, read_samples
from gs_search.report.progress import Gain, Spent, hypervolume_series
from gs_search.report.provenance import provenance
from gs_search.report.retrained import FullTrainings, read_full_trainings
from gs_search.report.timeline import Span, pack, trial_times
from gs_search.report.trials import KINDS, Ending, Student, read_ending, read_student
from gs_search.results.front import front_document
from gs_search.results.pareto import OBJECTIVES, scaled
from gs_search.results.record import Baselines
from gs_search.results.run_folder import RunFolder
from gs_search.study.space import SearchSpace

__all__ = ["Anchors", "Content", "gather"]


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What students are compared with in the figures: the teacher, the picture left as it is, and the noise of FID."""

    fid: float
    kid: float | None
    gflops: float
    size_mb: float
    input_fid: float
    input_kid: float | None
    input_psnr: float | None
    noise: float
    """Standard deviation of FID over resamples; 0 where it was not measured."""
    noise_method: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a report shows. ``students`` are sorted from the cheapest to the dearest in GFLOPs."""

    folder: RunFolder
    study: str
    space: SearchSpace
    students: tuple[Student, ...]
    endings: tuple[Ending, ...]
    baselines: Anchors
    limits: Mapping[str, float]
    """The study's constraints, as numbers; those that it does not have are not in it."""
    tie_margin: float
    """Difference of two FIDs, of one run each, that chance explains; 0 where the noise was not measured."""
    protocol: Mapping[str, Any]
    provenance: Mapping[str, Any]
    study_text: str
    hypervolume: float
    """Share, 0..1, of the box from zero to the reference point that the front dominates."""
    gains: tuple[Gain, ...]
    """Where the search stood after each ended trial, in the order of their ends."""
    spans: tuple[Span, ...]
    """When trials ran, in the order of their starts."""
    full: FullTrainings | None
    """What ``gs-search retrain`` has trained; None where nothing was begun."""

    @property
    def front(self) -> tuple[Student, ...]:
        """The students that no other beats in every objective at once."""
        return tuple(student for student in self.students if student.on_front)

    @property
    def trials(self) -> tuple[Student | Ending, ...]:
        """All of them."""
        return (*self.students, *self.endings)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(COMPLETE=len(self.students)) + Counter(ending.state for ending in self.endings)

    @property
    def kinds(self) -> dict[str, int]:
        """Number of trials of each of ``KINDS``."""
        found = Counter(trial.kind for trial in self.trials)
        return {kind: found[kind] for kind in KINDS}

    @property
    def image_px(self) -> int:
        """Side of the pictures that were measured."""
        return int(self.protocol["image_px"])

    @property
    def knee(self) -> Student:
        """The most balanced member of the front."""
        return next(student for student in self.students if student.is_knee)

    @property
    def faithful(self) -> Student | None:
        """The front's smallest member whose FID is at most two standard deviations above the teacher's."""
        limit = self.baselines.fid + 2 * self.baselines.noise
        inside = [student for student in self.front if student.fid <= limit]
        return min(inside, key=lambda student: (student.size_mb, student.gflops), default=None)

    @property
    def has_repeats(self) -> bool:
        """Whether some member of the front was trained again with other seeds."""
        return any(student.again for student in self.students)

    @cached_property
    def wanted(self) -> tuple[int, ...]:
        """Numbers of the students: the front, then the others from the nearest to it to the farthest.

        Distance is that to the nearest member, in shares of what the front spans in each objective.
        """
        tiny = 1e-12  # of a student without any channel
        values = {s.number: [s.fid, *np.log([s.gflops + tiny, s.size_mb + tiny])] for s in self.students}
        front = np.array([values[student.number] for student in self.front])
        places = dict(zip(values, scaled(list(values.values()), front), strict=True))
        members = np.array([places[student.number] for student in self.front])

        def distance(student: Student) -> float:
            return float(np.linalg.norm(members - places[student.number], axis=1).min())

        others = sorted((s for s in self.students if not s.on_front), key=lambda s: (distance(s), s.number))
        return tuple(student.number for student in (*self.front, *others))

    @cached_property
    def samples(self) -> Samples:
        """Pictures of the front, and of as many other students as there is room for."""
        paths = {number: self.folder.trial(number) / "samples.png" for number in self.wanted}
        return read_samples(paths, self.image_px, first=[student.number for student in self.front])

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """Learning curves of the front, and of some other students."""
        paths = {number: self.folder.trial(number) / "curve.csv" for number in self.wanted}
        return read_curves(paths, always=[student.number for student in self.front])

    @cached_property
    def importance(self) -> dict[str, tuple[Importance, ...]]:
        """Objective to the ranking of the parameters; empty rankings where there are too few trials."""
        measured = [student for student in self.students if student.duplicate_of is None]
        objectives = {name: [getattr(student, name) for student in measured] for name in OBJECTIVES}
        return parameter_importance([student.point for student in measured], objectives, self.space)


def gather(folder: RunFolder) -> Content:
    """Read a run folder.

    Raises:
        BadInput: baselines or a result cannot be read, or trials of two protocols lie in one folder.
        NothingFeasible: no trial has finished, or none of them keeps the study's constraints.
    """
    document = front_document(folder)
    results = folder.results()
    complete = [result for result in results if result.is_complete]
    members = {member["number"]: member for member in document["front"]}
    limits = document.get("constraints") or {}
    students = [
        read_student(result, member=members.get(result.number), knee=document["knee"], limits=limits)
        for result in complete
    ]
    endings = [read_ending(result) for result in results if not result.is_complete]
    spans = pack(trial_times(folder, results))
    reference = [document["reference_point"][name] for name in OBJECTIVES]
    return Content(
        folder=folder,
        study=document["study"],
        space=folder.config().space,
        students=tuple(sorted(students, key=lambda student: (student.gflops, student.number))),
        endings=tuple(endings),
        baselines=_anchors(folder.measured()),
        limits=limits,
        tie_margin=float(document.get("tie_margin") or 0.0),
        protocol=document["protocol"],
        provenance=provenance(folder, complete),
        study_text=folder.study_yaml.read_text(encoding="utf-8") if folder.study_yaml.is_file() else "",
        hypervolume=document["hypervolume"],
        gains=hypervolume_series(_in_order(students, endings, spans), reference),
        spans=spans,
        full=read_full_trainings(folder, int(document["protocol"]["image_px"])),
    )


def _anchors(measured: Baselines) -> Anchors:
    return Anchors(
        fid=measured.teacher.fid,
        kid=measured.teacher.kid,
        gflops=measured.teacher.gflops,
        size_mb=measured.teacher.size_mb,
        input_fid=measured.input.fid,
        input_kid=measured.input.kid,
        input_psnr=measured.input.psnr_to_teacher,
        noise=measured.fid_std,
        noise_method=measured.noise.method,
    )


def _in_order(students: Iterable[Student], endings: Iterable[Ending], spans: Iterable[Span]) -> list[Spent]:
    """Trials in the order of their ends; one whose end is not known stands after the number before it."""
    spent: dict[int, Spent] = {}
    for student in students:
        again = student.duplicate_of is not None or student.earlier is not None
        objectives = (student.fid, student.gflops, student.size_mb) if student.kind != "infeasible" else None
        seconds = 0.0 if again else student.seconds or 0.0
        spent[student.number] = Spent(number=student.number, seconds=seconds, objectives=objectives)
    for ending in endings:
        spent[ending.number] = Spent(number=ending.number, seconds=ending.seconds or 0.0, objectives=None)
    ends = {span.number: span.start + span.seconds for span in spans}
    order, last = {}, 0.0
    for number in sorted(spent):
        last = order[number] = ends.get(number, last)
    return [spent[number] for number in sorted(spent, key=lambda number: (order[number], number))]

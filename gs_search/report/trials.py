"""The trials of a report: students that were measured, and endings that left none.

Units everywhere: GFLOPs are 10^9 multiply-adds a picture, MB are 10^6 bytes, seconds are those of one worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gs_search.results.record import LayerRow, Rung, TrialRecord
from gs_search.study.constraints import is_feasible, violations
from gs_search.study.settings import GROUPS

__all__ = ["KINDS", "Again", "Ending", "Student", "read_ending", "read_student"]

KINDS = {
    "front": "on the front",
    "dominated": "dominated",
    "infeasible": "misses a constraint",
    "duplicate": "same point as another",
    "stopped": "stopped early",
    "refused": "never started",
    "failed": "failed",
}
"""Every kind of trial, in the order in which a reader cares, with its words."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """What other seeds say of the FID of a student: how many, their mean, and its confidence interval."""

    seeds: int
    mean: float
    low: float | None
    """None for a single seed."""
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Student:
    """One finished trial."""

    number: int
    fid: float
    gflops: float
    size_mb: float
    kid: float | None
    psnr: float | None
    psnr_before: float | None
    """Decibels to the teacher's pictures after the repair, before any training step; on fewer pictures."""
    latency_ms: float | None
    layers: tuple[LayerRow, ...]
    on_front: bool
    is_knee: bool
    point: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    rungs: tuple[Rung, ...] = ()
    violated: Mapping[str, float] = field(default_factory=dict)
    """Share by which each limit of the study is exceeded; negative below it."""
    duplicate_of: int | None = None
    earlier: str | None = None
    """Name and number in the study that it was taken over from."""
    again: Again | None = None
    """None where it was not trained with other seeds."""
    ties: tuple[int, ...] = ()
    """Members of the front from which it does not differ in FID; only of a member."""

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.on_front:
            return "front"
        if self.duplicate_of is not None:
            return "duplicate"
        return "dominated" if is_feasible(self.violated) else "infeasible"

    @property
    def told(self) -> str:
        """What is to be said of its kind, in a few words; may be empty."""
        if self.duplicate_of is not None:
            return f"same point as trial {self.duplicate_of}"
        return ", ".join(f"{name} by {share:.0%}" for name, share in self.violated.items() if share > 0)

    def bits(self, kind: str) -> str:
        """Bits from stem to head, for example ``8-4-4-4-8``; one number where all groups agree.

        Args:
            kind: ``weight_bits`` or ``activation_bits``.
        """
        found = []
        for group in GROUPS:
            bits = {getattr(layer, kind) for layer in self.layers if layer.group == group and layer.width > 0}
            if bits:
                found.append("/".join(map(str, sorted(bits))))
        if not found:
            return "–"
        return found[0] if len(set(found)) == 1 else "-".join(found)

    @property
    def width_share(self) -> float | None:
        """Kept channels over the teacher's, 0..1, all layers together; None where layers are not known."""
        full = sum(layer.full_width for layer in self.layers)
        return sum(layer.width for layer in self.layers) / full if full else None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One trial that left no student: stopped early (``PRUNED``) or failed (``FAIL``)."""

    number: int
    state: str
    cause: str
    message: str
    point: Mapping[str, Any]
    seconds: float | None = None
    rungs: tuple[Rung, ...] = ()

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.state != "PRUNED":
            return "failed"
        return "refused" if self.cause == "infeasible" else "stopped"

    @property
    def partial(self) -> Rung | None:
        """What it told at its last rung, if it came to one."""
        return self.rungs[-1] if self.rungs else None


def read_student(
    result: TrialRecord, *, member: Mapping[str, Any] | None, knee: int, limits: Mapping[str, float]
) -> Student:
    """What a report says of a complete trial.

    Args:
        member: what the front's document says of it; None where it is not on the front.
        knee: number of the front's knee.
        limits: the study's constraints.
    """
    return Student(
        number=result.number,
        fid=result.fid,
        gflops=result.values["gflops"],
        size_mb=result.values["size_mb"],
        kid=result.kid,
        psnr=result.psnr_to_teacher,
        psnr_before=result.psnr_before_training,
        latency_ms=result.latency_ms,
        layers=result.layers,
        on_front=member is not None,
        is_knee=result.number == knee,
        point=result.point,
        steps=result.steps,
        seconds=result.seconds,
        rungs=result.rungs,
        violated=violations(result.values, limits),
        duplicate_of=result.duplicate_of,
        earlier=result.warm_start,
        again=_again((member or {}).get("repeats")),
        ties=tuple((member or {}).get("ties") or ()),
    )


def _again(repeats: Mapping[str, Any] | None) -> Again | None:
    if not repeats or not repeats.get("seeds"):
        return None
    return Again(seeds=repeats["seeds"], mean=repeats["mean"], low=repeats["low"], high=repeats["high"])


def read_ending(result: TrialRecord) -> Ending:
    """What a report says of a trial that left no student."""
    return Ending(
        number=result.number,
        state=result.state,
        cause=result.cause or "unknown",
        message=result.message or "",
        point=result.point,
        seconds=result.seconds,
        rungs=result.rungs,
    )

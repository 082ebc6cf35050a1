"""How trials end, and what the database is told of it.

COMPLETE with objectives; PRUNED, that is left before its end, because it is ``dominated`` at a rung or certain to be
``infeasible``; FAIL with one of the causes of ``TrialFailed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from gs_search.results.pareto import OBJECTIVES
from gs_search.results.record import TrialRecord

__all__ = [
    "STACK",
    "Asked",
    "failure_record",
    "last_lines",
    "objective_problem",
    "told_attributes",
    "told_values",
    "trained",
]

ATTRIBUTES = (
    "key", "seed", "cause", "message", "duplicate_of", "kid", "psnr_to_teacher", "params", "macs_paper",
    "latency_ms", "steps", "seconds", "peak_memory_mb", "warm_start",
)  # fmt: skip
"""Fields of a result that Optuna's own tools show beside its values."""

LINES, BYTES = 20, 4096
"""Most of a log that is kept with a failure."""

STACK = "stack.txt"
"""Where a trial was when its process was ended for its time."""


@dataclass(frozen=True)
class Asked:
    """One trial to run."""

    number: int
    point: dict[str, Any]
    key: str
    seed: int


def failure_record(
    study: str, asked: Asked, cause: str, message: str, *, place: Path, seconds: float | None = None
) -> TrialRecord:
    """How a trial ended that has no student: FAIL.

    Args:
        place: its folder, of whose logs the last lines are kept.
        seconds: that it took until now; None where nobody knows.
    """
    began = None if seconds is None else datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return TrialRecord(
        study=study,
        number=asked.number,
        state="FAIL",
        cause=cause,
        message=" ".join(message.split())[:500],
        point=asked.point,
        key=asked.key,
        seed=asked.seed,
        objectives=None,
        seconds=seconds,
        started=None if began is None else began.isoformat(timespec="seconds"),
        log=tuple(last_lines(place)),
    )


def last_lines(place: Path) -> list[str]:
    """The end of what a trial has logged: of ``log.txt``, and of the stack with which it was ended."""
    lines: list[str] = []
    for name in ("log.txt", STACK):
        with suppress(OSError), (place / name).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - BYTES))
            lines += file.read().decode("utf-8", "replace").splitlines()
    return lines[-LINES:]


def told_attributes(record: TrialRecord) -> dict[str, Any]:
    """User attributes that a trial gets from its record."""
    return {name: value for name in ATTRIBUTES if (value := getattr(record, name)) is not None}


def trained(told: Mapping[str, Any]) -> bool:
    """Whether the attributes of a trial say what a training took, and not that of another trial."""
    return told.get("seconds") is not None and told.get("duplicate_of") is None


def told_values(record: TrialRecord) -> list[float] | None:
    """Values that a trial gets from its record; only a complete one has any."""
    return [record.values[name] for name in OBJECTIVES] if record.is_complete else None


def objective_problem(record: TrialRecord) -> str | None:
    """Say which objective of a complete trial is missing or not a finite number, or return None."""
    if not record.is_complete:
        return None
    for name in OBJECTIVES:
        value = (record.objectives or {}).get(name)
        if value is None:
            return f"{name} is missing"
        if not math.isfinite(value):
            return f"{name} is {value}"
    return None

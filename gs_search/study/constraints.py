"""Limits that a study sets its students: who keeps them, and how far the others are off.

A violation is the share by which a value exceeds its limit, ``value / limit - 1``: at most 0 keeps it. Shares of
different constraints may be added up, which is what Optuna's samplers do to tell a near miss from a far one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["fid_above_teacher", "is_feasible", "nearest_miss", "resolve", "too_large_to_start", "violations"]

OBJECTIVE = {"max_fid": "fid", "max_gflops": "gflops", "max_mb": "size_mb", "max_latency_ms": "latency_ms"}
"""Constraint to the figure that it limits; the last one is for ``pick``, no study has it."""

Limits = Mapping[str, float]


def fid_above_teacher(text: str) -> float | None:
    """FID that ``teacher+10`` allows above the teacher's; None where the text says no such thing."""
    found = re.fullmatch(r"\s*teacher\s*\+\s*(\d+(?:\.\d+)?)\s*", text)
    return float(found[1]) if found else None


def resolve(wanted: Mapping[str, Any], teacher_fid: float | None) -> dict[str, float]:
    """Turn what a study asks for into numbers.

    Args:
        wanted: ``constraints`` of the study; None stands for no limit.
        teacher_fid: None before it was measured. A limit that refers to it is left out then: nothing has been
            measured that could miss it.
    """
    limits: dict[str, float] = {}
    for name in OBJECTIVE:
        value = wanted.get(name)
        if isinstance(value, str):
            margin = fid_above_teacher(value)
            assert margin is not None, "config.py lets nothing else pass"
            value = None if teacher_fid is None else teacher_fid + margin
        if value is not None:
            limits[name] = float(value)
    return limits


def violations(objectives: Mapping[str, float], limits: Limits) -> dict[str, float]:
    """Share by which a student exceeds each limit; negative where it stays below."""
    return {name: float(objectives[OBJECTIVE[name]]) / limit - 1.0 for name, limit in limits.items()}


def is_feasible(violated: Mapping[str, float]) -> bool:
    """Whether every limit is kept; so it is where there is none."""
    return all(value <= 0.0 for value in violated.values())


def too_large_to_start(target: float | None, limits: Limits, teacher_gflops: float) -> dict[str, float]:
    """Violations that are certain before any training; empty where there is none.

    A student lands at its target or just below. One that was to need more than ``max_gflops`` might therefore
    still keep it, but so does the one whose target is the limit itself.

    Args:
        target: ``target_gflops_ratio``; None where the point names none.
    """
    if target is None or "max_gflops" not in limits:
        return {}
    excess = target * teacher_gflops / limits["max_gflops"] - 1.0
    return {"max_gflops": excess} if excess > 1e-6 else {}


def nearest_miss(students: Mapping[int, Mapping[str, float]], limits: Limits) -> str:
    """Say in one sentence which student comes closest to keeping the limits.

    Args:
        students: number of each trial to its objectives; at least one, none of which is feasible.
    """

    def total(number: int) -> float:
        return sum(max(0.0, value) for value in violations(students[number], limits).values())

    nearest = min(students, key=total)
    missed = [
        f"{name} is {limits[name]:.4g}, it has {students[nearest][OBJECTIVE[name]]:.4g}"
        for name, value in violations(students[nearest], limits).items()
        if value > 0
    ]
    return f"trial {nearest} comes nearest ({'; '.join(missed)})"

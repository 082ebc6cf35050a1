"""Learning curves of trials, from their ``curve.csv``, thinned to what a plot can show."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TERMS", "Curve", "read_curves", "terms_of"]

TERMS = {
    "pixel": "pixel distance to the teacher",
    "feature": "feature distance to the teacher",
    "perceptual": "perceptual distance to the teacher",
    "style": "style distance to the teacher",
    "critic_feature": "distance in the discriminator",
    "adversarial": "adversarial loss of the student",
    "discriminator": "loss of the discriminator",
    "macs_share": "share of the teacher's multiply-adds",
}
"""Columns of a curve in the order in which they are shown, with their words; others follow by their own name."""

MOST_POINTS = 60
"""Points of one curve: about what can be told apart in a plot on a phone."""
MOST_CURVES = 60
"""Curves in one plot; the front's are in any case."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One trial's losses by training step."""

    number: int
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    """Name of a term to its values, one a step; None where it was not noted."""


def read_curves(paths: Mapping[int, Path], always: Sequence[int] = ()) -> tuple[Curve, ...]:
    """Read the curves of trials; files that are missing or torn are left out.

    Args:
        paths: ``curve.csv`` by trial number, in the order in which they are wanted.
        always: numbers that are read in any case; of the others ``MOST_CURVES`` in all, evenly spread over ``paths``.
    """
    others = [number for number in paths if number not in set(always)]
    room = max(0, MOST_CURVES - len(always))
    if len(others) > room:
        others = [others[int(index * len(others) / room)] for index in range(room)]
    wanted = {*always, *others}
    curves = (_read(number, path) for number, path in paths.items() if number in wanted)
    return tuple(curve for curve in curves if curve is not None)


def terms_of(curves: Sequence[Curve]) -> dict[str, str]:
    """Name the terms that vary in some curve, with their words, in the order in which they are shown."""
    found = dict.fromkeys(name for curve in curves for name, column in curve.values.items() if len({*column}) > 1)
    known = {name: words for name, words in TERMS.items() if name in found}
    return known | {name: name.replace("_", " ") for name in found if name not in known}


def _read(number: int, path: Path) -> Curve | None:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        steps = [int(row["step"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    if not rows:
        return None
    stride = math.ceil(len(rows) / MOST_POINTS)
    kept = sorted({*range(0, len(rows), stride), len(rows) - 1})
    names = [name for name in rows[0] if name not in (None, "step", "phase")]
    values = {name: tuple(_number(rows[index].get(name)) for index in kept) for name in names}
    return Curve(
        number=number,
        steps=tuple(steps[index] for index in kept),
        values={name: column for name, column in values.items() if any(value is not None for value in column)},
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return float(f"{value:.5g}") if math.isfinite(value) else None

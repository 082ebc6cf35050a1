"""What a benchmark says at its end: tables in Markdown, the machine they were measured on, curves that went wrong."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import click
import torch

from gs_search.system.machine import cores, instructions, processor_name

__all__ = ["curves_paragraph", "environment", "mean_and_spread", "number", "publish", "table", "wrong_turns"]


def environment(**facts: object) -> str:
    """One paragraph: date, machine and its kind, versions, and ``facts`` such as pictures and seeds."""
    parts = [
        date.today().isoformat(),
        f"{cores()} cores of {processor_name()} ({', '.join(instructions()) or 'instructions unknown'})",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        "one thread a process",
        *(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()),
    ]
    return "Measured " + "; ".join(parts) + "."


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; cells are written as they are."""
    lines = [header, ["---"] * len(header), *rows]
    if any(len(line) != len(header) for line in lines):
        raise ValueError(f"every row of this table needs {len(header)} cells")
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def mean_and_spread(values: Sequence[float | None], digits: int = 2) -> str:
    """``mean ± standard deviation`` of one value a seed; the mean alone where there is one seed or none differ."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = number(statistics.fmean(known), digits)
    if len(known) < 2 or not all(map(math.isfinite, known)):
        return mean
    spread = statistics.stdev(known)
    return mean if spread < 0.5 * 10**-digits else f"{mean} ± {number(spread, digits)}"


def wrong_turns(curve: Mapping[float, Sequence[float]], *, rising: bool, slack: float = 0.0) -> list[str]:
    """Where the means of a curve turn against the direction that theory gives it.

    Args:
        curve: x to its values, one a seed.
        rising: whether y must not fall as x grows (else: must not rise).
        slack: how far it may go astray unnoticed.

    Returns:
        one line for each pair of neighbours out of order.
    """
    means = sorted((x, statistics.fmean(ys)) for x, ys in curve.items() if ys)
    turns = []
    for (x0, y0), (x1, y1) in zip(means, means[1:], strict=False):
        if (y0 - y1 if rising else y1 - y0) > slack:  # inf - inf is NaN, which is no wrong turn
            turns.append(f"{y0:.3f} at {x0:g}, {y1:.3f} at {x1:g}")
    return turns


def publish(folder: Path, title: str, *blocks: str) -> None:
    """Print the blocks and leave them in ``folder/table.md``."""
    text = "\n\n".join([f"# {title}", *(block for block in blocks if block)]) + "\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    click.echo(text)
    click.echo(f"(also in {folder})", err=True)


def curves_paragraph(turns: Mapping[str, Sequence[str]]) -> str:
    """Say which curves are not monotone, and where."""
    wrong = [f"- {name}: {'; '.join(found)}" for name, found in turns.items() if found]
    total = f"{len(turns) - len(wrong)} of {len(turns)} curves (means over seeds) are monotone, as theory says"
    return "\n".join([f"{total}; these are not:", "", *wrong]) if wrong else f"{total}."

"""Tables and plot of ``benchmarks.search``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.plot import Panel, write_plot
from benchmarks.report import mean_and_spread, number, table
from benchmarks.search_policies import IDEAS, POLICIES, RANDOM, STOPS, Policy

if TYPE_CHECKING:
    from benchmarks.search_world import World

__all__ = ["SHARES", "comparison", "plot", "quality", "reached"]

SHARES = tuple(k / 80 for k in range(1, 81))
"""Of the budget, at which hypervolume is noted."""

FOLDS = 5

Row = Mapping[str, Any]

PANELS = {
    "samplers": (RANDOM, "random", "QMC", "NSGA-II", "TPE", "GP of Optuna", "surrogate"),
    "stopping": ("random", "random, stopping", "TPE", "TPE, rung 0 only", "TPE, no rung 0",
                 "TPE, stopping", "surrogate", "surrogate, stopping"),
}  # fmt: skip


def quality(world: World) -> str:
    """How well the table's points are foretold by processes that have not seen them."""
    from scipy.stats import spearmanr

    lines = []
    for k, (known, guess) in world.foretold(FOLDS).items():
        step, name = world.table.columns[k]
        logarithm = name != "psnr_to_teacher"
        scale, unit = (100.0, " %") if logarithm else (1.0, " dB")
        off = float(np.sqrt(((known - guess) ** 2).mean()))
        share = 1 - ((known - guess) ** 2).sum() / ((known - known.mean()) ** 2).sum()
        lines.append(
            [
                name.replace("psnr_to_teacher", "PSNR").replace("_", " "),
                "end" if step < 0 else step,
                number(float(share), 3),
                number(float(spearmanr(known, guess)[0]), 3),
                number(scale * off) + unit,
                number(scale * math.sqrt(2.0) * float(np.sqrt((world.noise[:, k] ** 2).mean()))) + unit,
            ]
        )
    said = f"What was learned, of {len(world.table.points)} points, each foretold without its fifth of the table:"
    header = ["quantity", "step", "R²", "Spearman", "root mean square error", "two seeds differ by"]
    return f"{said}\n\n{table(header, lines)}"


def comparison(rows: Sequence[Row], policies: Mapping[str, Policy], rival: str) -> str:
    """Policies side by side; compute in shares of what ``rival`` needs for the mean of its ends."""
    target = statistics.fmean(ends) if (ends := [r["curve"][-1] for r in rows if r["policy"] == rival]) else None
    lines = []
    for name, policy in policies.items():
        own = [r for r in rows if r["policy"] == name]
        if not own:
            continue
        stopped = {step: statistics.fmean(r["stopped"].get(step, 0) for r in own) for step in ("0", "50", "125")}
        at = [[_percent(r["curve"][SHARES.index(share)]) for r in own] for share in (0.1, 0.25, 0.5, 1.0)]
        shares = [reached(r["curve"], target) for r in own]
        mean = reached(_mean_curve(own), target)
        there = sum(share is not None for share in shares)
        lines.append(
            [
                name,
                number(statistics.fmean(r["started"] for r in own), 0),
                " / ".join(number(stopped[step], 0) for step in stopped) if policy.rungs else "-",
                *(mean_and_spread(values) for values in at),
                "-" if mean is None else f"{100 * mean:.0f} %",
                "-" if policy.share < 1 and not there else f"{there} of {len(own)}",
                number(1000 * statistics.fmean(r["seconds"] / r["started"] for r in own), 0),
            ]
        )
    if {line[0] for line in lines} <= {rival}:
        return "Not measured in this run."
    header = [
        "policy", "points looked at", "left at 0 / 50 / 125", "at 10 %", "at 25 %", "at 50 %", "at 100 %",
        "reaches random's end after", "seeds that do", "ms a proposal",
    ]  # fmt: skip
    return table(header, lines)


def reached(curve: Sequence[float | None], target: float | None) -> float | None:
    """Share of the budget at which a curve first is at ``target``; None where it never is."""
    if target is None:
        return None
    found = (share for share, value in zip(SHARES, curve, strict=True) if value is not None and value >= target)
    return next(found, None)


def plot(path: Path, worlds: Mapping[str, Sequence[Row]]) -> None:
    """Means against shares of the budget."""
    named = {**PANELS, "margins": ("TPE", "TPE, stopping", *STOPS), "ideas": ("TPE", *IDEAS, "surrogate")}
    panels = [Panel(title, "compute, %", "hypervolume, %", _curves(worlds["learned"], names))
              for title, names in named.items()]  # fmt: skip
    checked = [name for name in POLICIES if any(row["policy"] == name for row in worlds["pool"])]
    panels.append(Panel("rougher truth", "compute, %", "hypervolume, %", _curves(worlds["rugged"], checked)))
    panels.append(Panel("the table's own points", "compute, %", "hypervolume, %", _curves(worlds["pool"], checked)))
    write_plot(path, [panel for panel in panels if any(panel.curves.values())])


def _curves(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[float, list[float]]]:
    found = {}
    for name in names:
        own = [row for row in rows if row["policy"] == name]
        mean = _mean_curve(own)
        found[name] = {100 * share: [100 * value] for share, value in zip(SHARES, mean, strict=True)
                       if value is not None and share >= 0.1}  # fmt: skip
    return found


def _mean_curve(rows: Sequence[Row]) -> list[float | None]:
    columns = zip(*(row["curve"] for row in rows), strict=True)
    means = [statistics.fmean(column) if None not in column else None for column in columns]
    return means or [None] * len(SHARES)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value

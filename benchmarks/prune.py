"""Pruning on drawn data: does each of its knobs do what it says, and at what distance to the teacher.

    OMP_NUM_THREADS=1 python -m benchmarks.prune

Float students of the teacher that comes with the package, a quickstart's settings otherwise: over shrink budgets
(proximal), over shares of multiply-adds (at once and proximal: how far from the target they land), and with the
residual stream spared (``prune: inner``). Some five minutes on two cores; a stopped run continues.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.plot import Panel, write_plot
from benchmarks.report import curves_paragraph, environment, mean_and_spread, publish, table, wrong_turns
from benchmarks.rows import Case, Row, Rows, curve, grouped
from benchmarks.students import FAILURES, PICTURES, TINY_PICTURES, drawn_ground, drawn_settings, slimmed

FLOAT = {"weight_bits": 32, "activation_bits": 32}
BUDGETS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
TARGETS = (0.7, 0.4, 0.2, 0.1)
WAYS = (("at_once", "all"), ("proximal", "all"), ("at_once", "inner"))
CONTRACT = 5.0
"""Percent by which a student may miss its target of multiply-adds."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/prune]")
@click.option("--steps", default=200, show_default=True, help="Training steps of a student.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
def main(out: Path | None, steps: int, seeds: int, processes: int, tiny: bool) -> None:
    steps, seeds = (2, 1) if tiny else (steps, seeds)
    folder = out or Path("runs/benchmarks/prune-tiny" if tiny else "runs/benchmarks/prune")
    budgets, targets = (BUDGETS[::4], TARGETS[:1]) if tiny else (BUDGETS, TARGETS)
    budget_cases = [
        {"schedule": "proximal", "prune": "all", "budget": budget, "target": None, "seed": seed}
        for seed in range(seeds)
        for budget in budgets
    ]
    target_cases = [
        {"schedule": schedule, "prune": prune, "budget": None, "target": target, "seed": seed}
        for seed in range(seeds)
        for schedule, prune in WAYS
        for target in targets
    ]
    rows = Rows(folder, {"steps": steps, "tiny": tiny})
    rows.measure([*budget_cases, *target_cases], functools.partial(measure, steps, tiny), processes=processes)
    told = environment(validation_pictures=TINY_PICTURES if tiny else PICTURES, steps=steps, seeds=seeds)
    report(folder, rows.of(budget_cases), rows.of(target_cases), told)


def measure(steps: int, tiny: bool, case: Case) -> dict[str, Any]:
    """One student."""
    point = {**FLOAT, "steps": steps, "schedule": case["schedule"], "prune": case["prune"]}
    point |= {"sparsity_weight": case["budget"], "target_gflops_ratio": case["target"]}
    try:
        return slimmed(drawn_ground(tiny), drawn_settings(point), case["seed"])[2]
    except FAILURES as failure:
        return {"failed": str(failure)}


def report(folder: Path, by_budget: Sequence[Row], by_target: Sequence[Row], told: str) -> None:
    """Tables, the curves that turn the wrong way, targets that were missed, plots."""
    ways = {way: [row for row in by_target if (row["schedule"], row["prune"]) == way] for way in WAYS}
    budgets = table(
        ["shrink budget", "channels kept, %", "multiply-adds, %", "PSNR to the teacher, dB"],
        [
            [f"{budget:g}", _percent(rows, "kept"), _percent(rows, "macs_share"), _spread(rows, "psnr")]
            for (budget,), rows in grouped(by_budget, "budget").items()
        ],
    )
    targets = table(
        ["schedule", "prune", "target, %", "off it by, %", "channels kept, %", "PSNR repaired, dB", "trained, dB"],
        [
            [
                *way,
                f"{100 * target:g}",
                mean_and_spread([_miss(row) for row in rows]),
                _percent(rows, "kept"),
                _spread(rows, "psnr_before"),
                _spread(rows, "psnr"),
            ]
            for way in WAYS
            for (target,), rows in grouped(ways[way], "target").items()
        ],
    )
    kept, decibels = curve(by_budget, "budget", "kept"), curve(by_budget, "budget", "psnr")
    turns = {"channels kept fall as the budget grows": wrong_turns(kept, rising=False)}
    for way in WAYS:
        turns[f"PSNR rises with the target, {', '.join(way)}"] = wrong_turns(
            curve(ways[way], "target", "psnr"), rising=True
        )
    distances = {", ".join(way): curve(rows, "target", "psnr") for way, rows in ways.items()}
    misses = {name: _misses(rows) for name, rows in zip(distances, ways.values(), strict=True)}
    share = "target, share of multiply-adds"
    write_plot(
        folder / "prune.png",
        [
            Panel("Channels kept", "shrink budget", "share", {"proximal": kept}),
            Panel("Distance to the teacher", "shrink budget", "dB", {"proximal": decibels}),
            Panel("Distance to the teacher", share, "dB", distances, log_x=True),
            Panel("Landing", share, "% off the target", misses, log_x=True),
        ],
    )
    publish(
        folder,
        "Pruning",
        told,
        budgets,
        targets,
        curves_paragraph(turns),
        _complaints([*by_budget, *by_target]),
    )


def _complaints(rows: Sequence[Row]) -> str:
    """Students that missed their target by more than the contract allows, and runs that failed."""
    failed = [f"{_name(row)}: {row['failed']}" for row in rows if "failed" in row]
    landed = [row for row in rows if "failed" not in row and row["target"] is not None]
    missed = [f"{_name(row)}: {_miss(row):+.1f} %" for row in landed if abs(_miss(row)) > CONTRACT]
    return f"Further than {CONTRACT:g} % from the target: {'; '.join(missed) or 'none'}.\n\n" + (
        f"Failed: {'; '.join(failed) or 'none'}."
    )


def _miss(row: Row) -> float:
    return 100 * float(row["macs_share"] / row["target"] - 1)


def _misses(rows: Sequence[Row]) -> dict[float, list[float]]:
    return {target: [_miss(row) for row in group] for (target,), group in grouped(rows, "target").items()}


def _percent(rows: Sequence[Row], name: str) -> str:
    return mean_and_spread([100 * row[name] for row in rows], 1)


def _spread(rows: Sequence[Row], name: str) -> str:
    return mean_and_spread([row[name] for row in rows])


def _name(row: Row) -> str:
    knob = f"budget {row['budget']:g}" if row["target"] is None else f"target {100 * row['target']:g} %"
    return f"{row['schedule']}, {row['prune']}, {knob}, seed {row['seed']}"


if __name__ == "__main__":
    main()

"""Bits on drawn data: what each width of weights and activations costs, before and after training.

    OMP_NUM_THREADS=1 python -m benchmarks.bits

Students of the teacher that comes with the package, whole and at half of its multiply-adds, a quickstart's settings
otherwise; stem and head keep 8 bits. A second table compares the calibrations of activations without training. What
rounded outputs cost is in ``benchmarks.export``. Some eight minutes on two cores; a stopped run continues.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.plot import Panel, write_plot
from benchmarks.report import curves_paragraph, environment, mean_and_spread, number, publish, table, wrong_turns
from benchmarks.rows import Case, Row, Rows, curve, grouped
from benchmarks.students import FAILURES, PICTURES, TINY_PICTURES, drawn_ground, drawn_settings, slimmed

FLOAT = 32
SHARES = (1.0, 0.5)
PAIRS = (
    *((weights, 8) for weights in (FLOAT, 8, 6, 5, 4, 3, 2)),
    *((weights, activations) for weights in (FLOAT, 8, 4) for activations in (FLOAT, 6, 4)),
)
"""Bits of weights and activations that are trained: one ladder of weights, three of activations."""
CALIBRATIONS = ("max", "clip", "quantile", "mse")
CALIBRATED_BITS = (8, 6, 4)
PLOTTED_FLOAT = 10
"""Where 32 bits stand in the plots."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/bits]")
@click.option("--steps", default=120, show_default=True, help="Training steps of a student.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
def main(out: Path | None, steps: int, seeds: int, processes: int, tiny: bool) -> None:
    steps, seeds = (2, 1) if tiny else (steps, seeds)
    folder = out or Path("runs/benchmarks/bits-tiny" if tiny else "runs/benchmarks/bits")
    trained: list[Case] = [
        _case(share, weights, activations, steps=steps, seed=seed)
        for seed in range(seeds)
        for share in SHARES
        for weights, activations in (PAIRS[1:3] if tiny else PAIRS)
    ]
    calibrated: list[Case] = [_case(share, FLOAT, FLOAT) for share in SHARES] + [
        _case(share, FLOAT, bits, calibration=calibration)
        for share in SHARES
        for calibration in (CALIBRATIONS[-1:] if tiny else CALIBRATIONS)
        for bits in (CALIBRATED_BITS[:1] if tiny else CALIBRATED_BITS)
    ]
    rows = Rows(folder, {"tiny": tiny})
    rows.measure([*calibrated, *trained], functools.partial(measure, tiny), processes=processes)
    told = environment(validation_pictures=TINY_PICTURES if tiny else PICTURES, steps=steps, seeds=seeds)
    report(folder, rows.of(trained), rows.of(calibrated), told)


def _case(
    share: float,
    weights: int,
    activations: int,
    *,
    calibration: str = "mse",
    steps: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    return {
        "share": share,
        "weights": weights,
        "activations": activations,
        "calibration": calibration,
        "steps": steps,
        "seed": seed,
    }


def measure(tiny: bool, case: Case) -> dict[str, Any]:
    """One student."""
    point = {
        "target_gflops_ratio": case["share"] if case["share"] < 1 else None,
        "weight_bits": case["weights"],
        "activation_bits": case["activations"],
        "calibration": case["calibration"],
        "steps": case["steps"],
    }
    try:
        return slimmed(drawn_ground(tiny), drawn_settings(point), case["seed"])[2]
    except FAILURES as failure:
        return {"failed": str(failure)}


def report(folder: Path, trained: Sequence[Row], calibrated: Sequence[Row], told: str) -> None:
    """Both tables, the curves that turn the wrong way, plots."""
    bits = table(
        ["multiply-adds, %", "weight bits", "activation bits", "PSNR before training, dB", "after, dB"],
        [
            [
                f"{100 * share:g}",
                _bits(weights),
                _bits(activations),
                mean_and_spread([row["psnr_before"] for row in rows]),
                mean_and_spread([row["psnr"] for row in rows]),
            ]
            for (share, weights, activations), rows in grouped(trained, "share", "weights", "activations").items()
        ],
    )
    turns: dict[str, list[str]] = {}
    panels = []
    for share in SHARES:
        for fixed, free, at in (("activations", "weights", (8,)), ("weights", "activations", (FLOAT, 8, 4))):
            curves = {}
            for value in at:
                rows = [row for row in trained if row["share"] == share and row[fixed] == value]
                for when, name in (("psnr_before", "before"), ("psnr", "trained")):
                    points = curve(rows, free, when)
                    label = f"{fixed} {_bits(value)}, {name}"
                    claim = f"PSNR rises with the bits of {free}: {100 * share:g} % of the multiply-adds, {label}"
                    turns[claim] = wrong_turns(points, rising=True)
                    curves[label] = {min(bits, PLOTTED_FLOAT): values for bits, values in points.items()}
            title = f"Bits of {free}, {100 * share:g} % of the multiply-adds"
            panels.append(Panel(title, "bits", "dB", curves, x_names={PLOTTED_FLOAT: "float"}))
    failed = [f"{row['weights']}/{row['activations']} bits: {row['failed']}" for row in trained if "failed" in row]
    write_plot(folder / "bits.png", panels)
    publish(
        folder,
        "Bits",
        told,
        bits,
        curves_paragraph(turns),
        "Calibration of activations, float weights, without training:",
        _calibrations(calibrated),
        f"Failed: {'; '.join(failed)}." if failed else "",
    )


def _calibrations(rows: Sequence[Row]) -> str:
    """Decibels that each calibration costs against the float student."""
    known = {(row["share"], row["activations"], row["calibration"]): row["psnr"] for row in rows if "failed" not in row}
    whole, half = SHARES
    floats = {share: known.get((share, FLOAT, "mse")) for share in SHARES}
    lines: list[list[str]] = []
    for (bits, calibration), _ in grouped(
        [row for row in rows if row["activations"] != FLOAT], "activations", "calibration"
    ).items():
        cells = [known.get((share, bits, calibration)) for share in SHARES]
        lines.append([str(bits), calibration, number(cells[0]), number(_less(floats[half], cells[1]))])
    header = ["activation bits", "calibration", "whole teacher: PSNR, dB"]
    header += [f"half: loss against float ({number(floats[half])} dB), dB"]
    return table(header, lines) + f"\n\nThe whole teacher in float, repaired: {number(floats[whole])} dB."


def _less(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low


def _bits(bits: int) -> str:
    return "float" if bits == FLOAT else str(bits)


if __name__ == "__main__":
    main()

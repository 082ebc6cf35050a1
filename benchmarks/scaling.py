"""From one worker to 64: does a driver keep them busy? Trials that sleep, through the whole engine.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling

As much work for each worker, however many there are (weak scaling): six trials of ten seconds. Then trials so short
that the driver is what they wait for, which says how many trials it can serve in a second, and what it spends on one.
All workers are processes of this machine and sleep, so that its cores serve the driver, Ray, and nothing else.
Some ten minutes on two cores; a stopped run continues.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.engine import OURS
from benchmarks.engine import measure as run_engine
from benchmarks.report import environment, number, publish, table
from benchmarks.rows import Case, Row, Rows

WORKERS = (1, 2, 4, 8, 16, 32, 64)
SECONDS, EACH = 10.0, 6
"""Of a trial, and trials for each worker."""

SHORT = {"seconds": 0.5, "workers": 16, "trials": 400}
"""More than any driver serves: 32 trials a second are asked for."""

ASKED = 0.9
"""Busy share that is asked for, of workers that all have begun."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/scaling]")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
@click.option("--report-only", is_flag=True, help="Tables of what is there so far.")
def main(out: Path | None, tiny: bool, report_only: bool) -> None:
    folder = out or Path("runs/benchmarks/scaling-tiny" if tiny else "runs/benchmarks/scaling")
    weak, short = cases(tiny)
    rows = Rows(folder, {"tiny": tiny})
    if not report_only:
        rows.measure([*weak, short], functools.partial(measure, folder), processes=1)
    told = environment(trials="asleep", sampler="TPE", database="SQLite")
    limits = rows.of([short])
    publish(folder, "Scaling", told, scaling_table(rows.of(weak)), *(limit(row) for row in limits))


def cases(tiny: bool) -> tuple[list[Case], Case]:
    """Runs with as much work for each worker, and the one that asks for too much."""
    if tiny:
        return [{"seconds": 0.1, "workers": 2, "trials": 4}], {"seconds": 0.1, "workers": 2, "trials": 6}
    return [{"seconds": SECONDS, "workers": n, "trials": EACH * n} for n in WORKERS], SHORT


def measure(out: Path, case: Case) -> dict[str, Any]:
    """One run; ``driver_seconds`` is the processor time of this process alone, starting Ray included."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = run_engine(out, {**case, "system": OURS})
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "driver_seconds": spent}


def scaling_table(rows: Sequence[Row]) -> str:
    """One row a number of workers."""
    return table(
        ["workers", "trials", "processes", "overhead a trial, s", "busy once all have begun, %", "driver, s a trial"],
        [
            [
                row["workers"], f"{row['finished']} of {row['trials']}", row["processes"], number(row["overhead"]),
                number(100 * row["steady"], 1), number(row["driver_seconds"] / row["finished"], 3),
            ]
            for row in rows
        ],
    )  # fmt: skip


def served(row: Row) -> float:
    """Trials a second, of a run that asked for more than it got."""
    return float(row["steady"] * row["workers"] / row["seconds"])


def limit(row: Row) -> str:
    """What the driver can serve, and the shortest trials with which a thousand workers stay busy."""
    rate = served(row)
    shortest = 1000 * ASKED / rate
    return (
        f"Asked for {row['workers'] / row['seconds']:.0f} trials a second, the engine ran {rate:.1f} "
        f"({row['workers']} workers, trials of {row['seconds']:g} s). At that rate a thousand workers are busy for "
        f"{ASKED:.0%} of their time with trials of {shortest:.0f} s or more; an estimate, which leaves out the network."
    )


if __name__ == "__main__":
    main()

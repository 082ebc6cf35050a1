"""What the parts of a short trial buy: rank correlation with full trainings, FID, and processor time.

    OMP_NUM_THREADS=1 python -m benchmarks.trial_parts [--points 10] [--full 4000] [--processes 1]

Points of the quickstart's space (its ladder of start points, then a Sobol sequence, as ``benchmarks.search_table``
has them) are trained in short by each of ``VARIANTS``, two seeds, and once in full: ``--full`` steps without a
discriminator, as ``studies/quickstart.yaml`` retrains. For each variant: processor seconds a trial (one thread),
FID and decibels to the teacher on average, how often a seed changes the order, and Kendall's tau of its FIDs, and of
its decibels, with the FIDs of the full trainings (exact 95 % intervals). A stopped run continues.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import search_table
from benchmarks.report import environment, table
from benchmarks.rows import Case, Rows

VARIANTS: dict[str, dict[str, Any]] = {
    "250 steps, discriminator": {"adversarial_weight": 1.0},
    "250 steps": {"adversarial_weight": 0.0},
    "150 steps, discriminator": {"adversarial_weight": 1.0, "steps": 150},
    "150 steps": {"adversarial_weight": 0.0, "steps": 150},
    "50 steps": {"adversarial_weight": 0.0, "steps": 50},
    "400 steps": {"adversarial_weight": 0.0, "steps": 400},
}

FULL = "full"

SEEDS = 2


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/benchmarks/trial_parts"))
@click.option("--points", default=10, show_default=True)
@click.option("--full", default=4000, show_default=True, help="Steps of a full training.")
@click.option("--processes", default=1, show_default=True, help="Rows at a time.")
def main(out: Path, points: int, full: int, processes: int) -> None:
    rows = Rows(out, {"study": search_table.STUDY.name, "full": full})
    ask = cases(points)
    prepare(out)
    rows.measure(ask, functools.partial(measure, out, full), processes=processes)
    found = rows.of(ask)
    text = "\n".join([environment(study="quickstart", points=points, seeds=SEEDS, full=full), "", summary(found)])
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    click.echo(text)


def prepare(folder: Path) -> None:
    """Make the run folder that rows share."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.run import prepare as prepare_study

    run = RunFolder(folder / "run")
    run.create(study_config())
    prepare_study(study_config(), run, lambda line: click.echo(line, err=True))


def study_config() -> Any:
    """The quickstart's study on the processor."""
    from gs_search.study.config import load_study

    return load_study(search_table.STUDY).model_copy(update={"device": "cpu"})


def cases(points: int) -> list[Case]:
    """The full trainings of a point last, so that the cheap rows come first."""
    short = [{"point": p, "variant": v, "seed": s} for p in range(points) for v in VARIANTS for s in range(SEEDS)]
    return [*short, *({"point": p, "variant": FULL, "seed": 0} for p in range(points))]


def measure(folder: Path, full: int, case: Case) -> dict[str, Any]:
    """Train one point by one variant with one seed; a full training has a seed of its own."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.assets import TrialAssets
    from gs_search.trial.run import run_trial

    config, run = study_config(), RunFolder(folder / "run")
    long = case["variant"] == FULL
    changes = {"adversarial_weight": 0.0, "steps": full} if long else VARIANTS[case["variant"]]
    point = {**search_table.points_of(config.space, case["point"] + 1)[-1], **changes}
    TrialAssets.of(run, config)  # once a process
    names = [*VARIANTS, FULL]
    number = (case["point"] * len(names) + names.index(case["variant"])) * SEEDS + case["seed"]
    start = time.process_time()
    # Another point in the eyes of the checkpoints: the seed tells variants apart, which the space's key does not.
    seed = 1000 * names.index(case["variant"]) + case["seed"]
    record = run_trial(point, config, run, number=number, seed=seed).to_json()
    kept = {name: record[name] for name in ("objectives", "kid", "psnr_to_teacher", "psnr_before_training")}
    return {**kept, "seconds": time.process_time() - start}


def summary(rows: list[dict[str, Any]]) -> str:
    """One line a variant."""
    from gs_search.results.agreement import agreement

    full = {row["point"]: row["objectives"]["fid"] for row in rows if row["variant"] == FULL}
    lines = []
    for variant in VARIANTS:
        own = [row for row in rows if row["variant"] == variant and row["point"] in full]
        mean = functools.partial(_means, own)
        fid, decibels = mean(lambda row: row["objectives"]["fid"]), mean(lambda row: row["psnr_to_teacher"])
        of_fid = agreement([fid[p] for p in full], [full[p] for p in full])
        of_psnr = agreement([-decibels[p] for p in full], [full[p] for p in full])
        seeds = [
            [row["objectives"]["fid"] for row in sorted(own, key=lambda row: row["point"]) if row["seed"] == seed]
            for seed in range(SEEDS)
        ]
        lines.append(
            [
                variant,
                f"{np.mean([row['seconds'] for row in own]):.1f}",
                f"{np.mean(list(fid.values())):.1f}",
                f"{np.mean(list(decibels.values())):.2f}",
                f"{agreement(*seeds)['kendall_tau']:.2f}",
                *(f"{t['kendall_tau']:.2f} ({t['low']:.2f} to {t['high']:.2f})" for t in (of_fid, of_psnr)),
            ]
        )
    lines.append(["full", "", f"{np.mean(list(full.values())):.1f}", "", "", "", ""])
    titles = ["variant", "processor s", "FID", "dB", "tau of two seeds", "tau with full: FID", "tau with full: dB"]
    return table(titles, lines)


def _means(rows: list[dict[str, Any]], value: Any) -> dict[int, float]:
    points = dict.fromkeys(row["point"] for row in rows)
    return {p: float(np.mean([value(row) for row in rows if row["point"] == p])) for p in points}


if __name__ == "__main__":
    main()

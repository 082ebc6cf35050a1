"""What more views buy, and what the teacher's features buy, in equal processor time.

    OMP_NUM_THREADS=1 python -m benchmarks.lessons [STUDY.yaml] [--steps 150] [--point '{...}']

A study's teacher and pictures (CartoonGAN by default: GS_SEARCH_CHECKPOINT and GS_SEARCH_PHOTOS say where they are) are
prepared once; then one point is trained by each of ``VARIANTS``, for each ``--steps``. Processor seconds of the whole
trial (measuring included) and of a step, FID, KID and decibels to the teacher on the validation pictures. A stopped run
continues.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.report import environment, number, table
from benchmarks.rows import Case, Rows

STUDY = Path(__file__).parents[1] / "studies" / "cartoongan.yaml"

POINT = {
    "target_gflops_ratio": 0.25, "weight_bits": 8, "activation_bits": 8, "distill_weight": 10, "feature_weight": 5,
    "adversarial_weight": 0,
}  # fmt: skip

VARIANTS = {
    "before": "only the views whose features are stored, one crop of each picture",
    "now": "all views; the steps that train on those with features are a quarter",
    "no features": "all views, feature_weight 0",
    "late features": "all views, features of those without computed in the step",
}


@click.command(help=__doc__)
@click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=STUDY)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/benchmarks/lessons"))
@click.option("--steps", multiple=True, type=int, default=(150,), show_default=True, help="Steps of a training.")
@click.option("--point", default=json.dumps(POINT), show_default=True, help="What is trained.")
def main(study: Path, out: Path, steps: Sequence[int], point: str) -> None:
    rows = Rows(out, {"study": study.name, "point": point})
    ask: list[Case] = [{"variant": variant, "steps": count} for count in steps for variant in VARIANTS]
    prepare(study, out)
    rows.measure(ask, functools.partial(measure, study, out, json.loads(point)), processes=1)
    text = "\n".join([environment(study=study.stem, point=point), "", summary(rows.of(ask))])
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    click.echo(text)


def prepare(study: Path, out: Path) -> None:
    """Make the run folder that rows share."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.run import prepare as prepare_study

    run = RunFolder(out / "run")
    run.create(_config(study))
    prepare_study(_config(study), run, lambda line: click.echo(line, err=True))


def _config(study: Path) -> Any:
    from gs_search.study.config import load_study

    return load_study(study).model_copy(update={"device": "cpu"})


class Some:
    """Lessons of a variant, and when the first and the last of their steps began."""

    def __init__(self, lessons: Any, teacher: Any, variant: str) -> None:
        self._lessons, self._teacher, self._variant = lessons, teacher, variant
        self.featured = len(lessons) if variant == "late features" else lessons.featured
        self.began: list[float] = []

    def __len__(self) -> int:
        return self._lessons.featured if self._variant == "before" else len(self._lessons)

    def batch(self, indices: Any, device: Any = "cpu") -> Any:
        self.began.append(time.process_time())
        batch = self._lessons.batch(indices, device)
        if self._variant != "late features":
            return batch
        import torch

        # One view at a time, as a resumed training needs it.
        found = [self._teacher.answer(picture)[1] for picture in batch.inputs.split(1)]
        return replace(batch, features={tap: torch.cat([one[tap] for one in found]) for tap in found[0]})

    @property
    def step_seconds(self) -> float:
        return float(np.median(np.diff(self.began[1:])))


def measure(study: Path, out: Path, point: dict[str, Any], case: Case) -> dict[str, Any]:
    """Train the point by one variant."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.assets import TrialAssets
    from gs_search.trial.run import run_trial

    config, run = _config(study), RunFolder(out / "run")
    variant = list(VARIANTS).index(case["variant"])
    changes = {"steps": case["steps"]} | ({"feature_weight": 0} if case["variant"] == "no features" else {})
    ground = TrialAssets.of(run, config)
    lessons = ground.lessons
    some = Some(lessons, ground.teacher, case["variant"])
    ground.lessons = some  # type: ignore[assignment]
    start = time.process_time()
    # The same seed for all, so that a checkpoint does not tell which variant it is of.
    for left in run.checkpoints.glob("*"):
        left.unlink()
    try:
        record = run_trial({**point, **changes}, config, run, number=10 * case["steps"] + variant, seed=1).to_json()
    finally:
        ground.lessons = lessons
    kept = {name: record[name] for name in ("objectives", "kid", "psnr_to_teacher", "psnr_before_training")}
    seconds = time.process_time() - start
    return {**kept, "seconds": seconds, "step_seconds": some.step_seconds, "views": len(some), "with": some.featured}


def summary(rows: list[dict[str, Any]]) -> str:
    """One line a variant and length."""
    titles = ["variant", "views", "with features", "steps", "processor s", "a step", "dB", "FID", "KID"]
    lines = [
        [
            row["variant"],
            row["views"],
            0 if row["variant"] == "no features" else min(row["with"], row["views"]),
            row["steps"],
            number(row["seconds"], 0),
            number(row["step_seconds"], 3),
            number(row["psnr_to_teacher"]),
            number(row["objectives"]["fid"], 1),
            number(row["kid"], 4),
        ]
        for row in rows
    ]
    return table(titles, lines)


if __name__ == "__main__":
    main()

"""FID here against ``python -m pytorch_fid``: the same PNG files, the same number, how many seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.fid [--count 150] [--repeats 3] [--images DIR --reference DIR]

Each row is a whole process, from its start to the printed number; rows take turns, the fastest counts.
"cached" means that the statistics of the reference pictures were stored before. Without folders the pictures
are drawn horses against drawn zebras.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

FLOAT32_TOLERANCE = 0.01
BASE, OURS = "pytorch_fid, cached", "gs_search, cached"


class Run(NamedTuple):
    """One process."""

    wall: float
    """Seconds."""
    processor: float
    """Seconds over all its threads."""
    distance: float
    """What it printed; NaN if nothing."""


@click.command(help=__doc__)
@click.option("--count", default=150, show_default=True, help="Pictures on each side.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each row.")
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--reference", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(count: int, repeats: int, images: Path | None, reference: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        student, real = Path(name, "student"), Path(name, "reference")
        write_pngs(_drawn("horse", count) if images is None else _opened(images, count), student)
        write_pngs(_drawn("zebra", count) if reference is None else _opened(reference, count), real)
        theirs, ours = Path(name, "theirs.npz"), Path(name, "ours.npz")
        _run("pytorch_fid", "--save-stats", str(real), str(theirs))
        _run("benchmarks.fid_folder", "--save", str(ours), str(real))
        commands = {
            "pytorch_fid, two folders": ("pytorch_fid", str(student), str(real)),
            BASE: ("pytorch_fid", str(student), str(theirs)),
            OURS: ("benchmarks.fid_folder", str(student), str(ours)),
            "gs_search, cached, bf16": ("benchmarks.fid_folder", "--bf16", str(student), str(ours)),
        }
        runs: dict[str, list[Run]] = {row: [] for row in commands}
        for _ in range(repeats):
            for row, command in commands.items():
                runs[row].append(_run(*command))
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        print(f"{count} pictures against {count}, OMP_NUM_THREADS {threads}, best of {repeats}\n")
        _print_processes(runs)
        _print_matrix_part(student, ours)
    if abs(runs[OURS][0].distance - runs[BASE][0].distance) > FLOAT32_TOLERANCE:
        sys.exit("the two numbers differ by more than 0.01")


def write_pngs(pictures: list[Image.Image], folder: Path) -> None:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:04}.png")


def read_pngs(folder: Path) -> Tensor:
    """uint8 N x 3 x H x W, in the order of the names."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _drawn(species: Literal["horse", "zebra"], count: int) -> list[Image.Image]:
    from gs_search.data.synthetic.drawn import draw

    px = 64
    return [draw(0, species, i, px).resize((px, px), Image.Resampling.BOX) for i in range(count)]


def _opened(folder: Path, count: int) -> list[Image.Image]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg"})[:count]
    if len(files) < count:
        raise click.BadParameter(f"{folder} holds {len(files)} pictures, not {count}")
    return [Image.open(file).convert("RGB") for file in files]


def _run(module: str, *arguments: str) -> Run:
    command = [sys.executable, "-m", module, *arguments]
    if module == "pytorch_fid":
        command += ["--device", "cpu", "--num-workers", "0"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    match = re.search(r"FID: +([\d.]+)", done.stdout)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, processor, float(match[1]) if match else float("nan"))


def _print_processes(runs: dict[str, list[Run]]) -> None:
    """Times faster in processor seconds, which other work on the machine lengthens least."""
    best = {row: Run(*map(min, zip(*repeats, strict=True))) for row, repeats in runs.items()}
    print("| process | FID | difference | wall s | processor s | times faster |\n|---|---|---|---|---|---|")
    for row, run in best.items():
        difference = run.distance - best[BASE].distance
        times = best[BASE].processor / run.processor
        print(
            f"| {row} | {run.distance:.4f} | {difference:+.4f} | {run.wall:.1f} | {run.processor:.1f} | {times:.1f} |"
        )


def _print_matrix_part(student_folder: Path, ours_cached: Path) -> None:
    """From the features of the student and the stored statistics to the number, in this process."""
    from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]

    from gs_search.measure.features import inception_features
    from gs_search.measure.fid import Reference, frechet_distance

    features = inception_features(read_pngs(student_folder))
    reference = Reference.load(ours_cached)
    covariance = np.cov(reference.features.astype(np.float64), rowvar=False)

    def theirs() -> float:
        x = features.astype(np.float64)
        return float(calculate_frechet_distance(x.mean(0), np.cov(x, rowvar=False), reference.mean, covariance))

    slow, theirs_seconds = _processor_seconds(theirs, 1)
    fast, ours_seconds = _processor_seconds(lambda: frechet_distance(features, reference), 5)
    times = theirs_seconds / ours_seconds
    print(f"\nMatrix part: scipy's root {theirs_seconds:.2f} processor s, Gram form {ours_seconds:.4f} s,")
    print(f"{times:.0f} times faster, difference {fast - slow:+.1e}")


def _processor_seconds(function: Callable[[], float], repeats: int) -> tuple[float, float]:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        best = min(best, time.process_time() - start)
    return value, best


if __name__ == "__main__":
    main()

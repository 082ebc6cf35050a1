"""One trial: slim the teacher at one point of the search space, measure the student, leave a folder.

A trial's folder holds ``result.json``, ``curve.csv``, ``samples.png`` (input, teacher, student), the packed
``student.safetensors`` and ``log.txt``. Everything is measured on the student as loaded back from its file. This
module knows neither Ray nor Optuna.
"""

from __future__ import annotations

import csv
import io
import platform
import resource
import sys
import time
from collections.abc import Callable, Generator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import gs_search
from gs_search.data.images import grid, to_uint8, write_png
from gs_search.errors import BadInput, CheckpointError, TrialFailed
from gs_search.measure.flops import count_flops
from gs_search.measure.psnr import psnr
from gs_search.results.record import Parity, Rung, TrialRecord, write_record
from gs_search.results.run_folder import RESULT
from gs_search.slimming.repair import RepairTargets, record_targets
from gs_search.slimming.run import Slimmed, slim_in_rungs
from gs_search.slimming.student import save_student, student_mb
from gs_search.study.settings import Point, settings_from_point
from gs_search.system.files import write_text
from gs_search.system.generators import returned
from gs_search.trial.assets import SAMPLE_PICTURES, TrialAssets, paint, prepare
from gs_search.trial.evaluate import costs, look_at

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = [
    "LOOK_PICTURES",
    "curve_csv",
    "dump_images",
    "peak_memory_mb",
    "prepare",
    "repair_targets",
    "run_trial",
    "trial_in_rungs",
    "versions",
    "write_samples",
]

LOOK_PICTURES = 32
"""Validation pictures on which a student is judged at a rung."""

CHECKPOINT_EVERY = 50
"""Training steps between two checkpoints; a trial that was killed loses no more."""


def run_trial(
    point: Point,
    config: StudyConfig,
    folder: RunFolder,
    *,
    number: int,
    seed: int,
    place: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> TrialRecord:
    """Run one trial to its end and write its folder; ``result.json`` comes last, so that it vouches for the rest.

    On a CPU the same point and seed give the same files, bit for bit, times and memory aside.

    Args:
        place: where its files go; the trial's folder in the run folder unless given.

    Raises:
        TrialFailed: with the cause; the folder then holds ``log.txt`` and whatever was finished.
    """
    trial = trial_in_rungs(point, config, folder, number=number, seed=seed, place=place, on_progress=on_progress)
    return returned(trial)


def trial_in_rungs(
    point: Point,
    config: StudyConfig,
    folder: RunFolder,
    *,
    number: int,
    seed: int,
    place: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Generator[Rung, None, TrialRecord]:
    """``run_trial``, that pauses at every rung of the study and tells how far the student is.

    A trial that was killed goes on from its last checkpoint, whatever its number is now, and ends in the same bits.

    Yields:
        What it has come to at the rung.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    place = folder.trial(number) if place is None else place
    place.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(f"{time.monotonic() - clock:8.1f} s  {line}")
        write_text(place / "log.txt", "\n".join(lines) + "\n")

    try:
        record = yield from _run(point, config, folder, place, number, seed, clock, log, on_progress)
    except TrialFailed as failure:
        log(f"failed ({failure.cause}): {failure}")
        raise
    except torch.OutOfMemoryError as error:
        log(f"failed (out_of_memory): {error}")
        raise TrialFailed("out_of_memory", str(error).splitlines()[0]) from error
    record = record.but(
        seconds=round(time.monotonic() - clock, 3),
        peak_memory_mb=peak_memory_mb(),
        started=started.isoformat(timespec="seconds"),
    )
    log("done")
    write_record(place / RESULT, record)
    return record


def _run(
    point: Point,
    config: StudyConfig,
    folder: RunFolder,
    place: Path,
    number: int,
    seed: int,
    clock: float,
    log: Callable[[str], None],
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> Generator[Rung, None, TrialRecord]:
    ground = TrialAssets.of(folder, config)
    settings = ground.settled(settings_from_point(point, config.settings))
    if ground.device.type == "cpu":
        torch.set_num_threads(1)
    log(f"point {dict(point)}, seed {seed}")
    few = slice(LOOK_PICTURES)

    def look(student: nn.Module) -> float:
        return psnr(paint(student.eval(), ground.validation[few]), ground.validation_outputs[few])

    found: dict[str, Any] = {}

    def judge(student: nn.Module) -> float:
        found["psnr"] = look(student)
        found["factor"] = ground.rate_factor(found["psnr"])
        log(
            f"repaired, before any step: {found['psnr']:.2f} dB to the teacher on {LOOK_PICTURES} pictures; "
            f"learning rates x {found['factor']:g}"
        )
        return float(found["factor"])

    checkpoint = folder.checkpoint(config.space.key(point), seed)
    run = slim_in_rungs(
        ground.teacher,
        settings,
        ground.lessons,
        repair_targets(ground, settings.repair_pictures),
        seed=seed,
        rungs=(0, *config.stopping.rungs),
        rate_factor=ground.rate_factor(),
        real=ground.real(seed),
        on_progress=on_progress,
        on_repaired=judge,
        checkpoint=checkpoint,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    notes: dict[str, Any] = {}
    while True:
        try:
            rung = next(run)
        except StopIteration as end:
            slimmed: Slimmed = end.value
            break
        except TrialFailed:  # its own doing: it would fail again
            checkpoint.unlink(missing_ok=True)
            raise
        except CheckpointError as error:
            if not checkpoint.is_file():  # another file, as of a perceptual network
                raise
            # Damaged, or of a run with other data or another version: of no use to this one.
            log(f"started anew: {error}")
            checkpoint.unlink()
            return (yield from _run(point, config, folder, place, number, seed, clock, log, on_progress))
        notes = rung.notes
        notes |= found
        report = Rung(
            step=rung.step,
            psnr_to_teacher=found["psnr"] if rung.step == 0 else look(rung.network),
            gflops=count_flops(rung.network, config.image_px).macs / 1e9,
            size_mb=student_mb(rung.network, ground.architecture),
            seconds=round(time.monotonic() - clock, 3),
        )
        notes["rungs"] = [*notes.get("rungs", []), report.to_json()]
        log(f"rung of {rung.step} steps: {report.psnr_to_teacher:.2f} dB, {report.gflops:.4g} GFLOPs")
        try:
            yield report
        except GeneratorExit:  # left here for good
            checkpoint.unlink(missing_ok=True)
            raise
    notes = slimmed.notes
    log(f"trained; {slimmed.macs_share:.3f} of the multiply-adds")
    file = place / "student.safetensors"
    save_student(file, slimmed.network, ground.architecture)
    student = ground.load_student(file).to(ground.device)
    seen = look_at(student, ground, ground.validation, ground.validation_outputs)
    spent = costs(student, file, ground, config)
    log(f"FID {seen.fid:.2f}")
    write_text(place / "curve.csv", curve_csv(slimmed.curve))
    write_samples(place / "samples.png", ground, seen.painted)
    checkpoint.unlink(missing_ok=True)
    return TrialRecord(
        study=config.study,
        number=number,
        state="COMPLETE",
        cause=None,
        message=None,
        point=dict(point),
        key=config.space.key(point),
        seed=seed,
        objectives={"fid": seen.fid, "gflops": spent.gflops, "size_mb": spent.size_mb},
        kid=seen.kid,
        psnr_to_teacher=seen.psnr_to_teacher,
        psnr_before_training=notes["psnr"],
        learning_rate_factor=notes["factor"],
        rungs=tuple(Rung.from_json(rung) for rung in notes["rungs"]),
        macs=spent.macs,
        macs_paper=spent.macs_paper,
        params=spent.params,
        latency_ms=spent.latency_ms,
        layers=spent.layers,
        parity=Parity.from_json(slimmed.parity.to_json()),
        steps=settings.steps,
        precision=settings.precision,
        protocol=ground.baselines.protocol.id,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions that a training's figures may depend on."""
    return {"gs_search": gs_search.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def dump_images(folder: RunFolder, out: Path, numbers: Sequence[int]) -> dict[str, int]:
    """Write what FID compared as PNG: ``out/reference/`` and ``out/<number>/``, for ``python -m pytorch_fid``.

    Returns:
        name of each folder to the number of pictures in it.

    Raises:
        BadInput: a trial has no student, or the study was not prepared.
    """
    from gs_search.study.config import load_resolved

    if not (folder.teacher / "baselines.json").is_file():
        raise BadInput(f"{folder}: this study has not been prepared yet; start it with gs-search run")
    ground = TrialAssets.of(folder, load_resolved(folder.resolved_yaml))
    if ground.device.type == "cpu":
        torch.set_num_threads(1)  # another number of threads adds up in another order, and a pixel may turn
    sets = {"reference": torch.from_numpy(np.load(folder.teacher / "reference_pictures.npy"))}
    for number in numbers:
        file = folder.trial(number) / "student.safetensors"
        if not file.is_file():
            raise BadInput(f"{file}: trial {number} left no student")
        sets[str(number)] = to_uint8(paint(ground.load_student(file).to(ground.device), ground.validation))
    for name, pictures in sets.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pictures):
            write_png(out / name / f"{index:04d}.png", picture)
    return {name: len(pictures) for name, pictures in sets.items()}


def repair_targets(ground: TrialAssets, pictures: int) -> RepairTargets:
    """The study's targets, or new ones where a point asks for another number of pictures."""
    if pictures == len(ground.targets.pictures):
        return ground.targets
    inputs = ground.lessons.batch(range(min(pictures, len(ground.lessons))), ground.device).inputs
    return record_targets(ground.teacher.network, inputs)


def write_samples(path: Path, ground: TrialAssets, painted: Tensor) -> None:
    """Write eight validation pictures as PNG: input, teacher, student.

    Args:
        painted: the student's, eight or more of N x 3 x H x W in [-1, 1].
    """
    rows = [ground.validation, to_uint8(ground.validation_outputs), to_uint8(painted)]
    write_png(path, grid([row[:SAMPLE_PICTURES] for row in rows]))


def curve_csv(curve: list[dict[str, Any]]) -> str:
    """A training's curve as CSV; columns in the order in which they first appear."""
    names: list[str] = list(dict.fromkeys(name for row in curve for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    return text.getvalue()


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in 10^6 bytes (with warm workers: of its trials so far)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)

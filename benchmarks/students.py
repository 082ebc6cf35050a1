"""Students for benchmarks: one slimming run as a trial makes it, measured without a trial's folder.

``drawn_ground`` is what a quickstart study prepares, in memory: the teacher that comes with the package, its
answers on drawn horses, the learning rates that do it no harm.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor, nn

from gs_search.data import batch, open_data
from gs_search.data.images import to_uint8
from gs_search.errors import ConfigError, TrialFailed
from gs_search.measure.psnr import psnr
from gs_search.networks import load_generator
from gs_search.slimming import Lessons, Teacher, harm_of_rates, rate_factor, record_targets, slim
from gs_search.slimming.repair import RepairTargets, repair_
from gs_search.slimming.training import LessonSource
from gs_search.study.config import load_study
from gs_search.study.settings import SlimmingSettings, settings_from_point
from gs_search.trial.assets import paint
from gs_search.trial.teacher import SHIPPED_TEACHER

__all__ = [
    "FAILURES",
    "PICTURES",
    "STUDIES",
    "TINY_PICTURES",
    "DrawnGround",
    "Ground",
    "drawn_ground",
    "drawn_settings",
    "slimmed",
]

FAILURES = (TrialFailed, ConfigError)
"""What a single student may fail with: its training, or a target that its rules do not allow."""

STUDIES = Path(__file__).resolve().parents[1] / "studies"

PICTURES, TINY_PICTURES = 32, 4
"""Validation pictures, and as many for the repair."""


class Ground(Protocol):
    """What a run needs that all runs share; ``gs_search.trial.assets.TrialAssets`` is one."""

    @property
    def teacher(self) -> Teacher: ...
    @property
    def lessons(self) -> LessonSource: ...
    @property
    def targets(self) -> RepairTargets: ...
    @property
    def validation(self) -> Tensor: ...
    @property
    def validation_outputs(self) -> Tensor: ...
    def rate_factor(self, *student_psnr: float) -> float: ...


@dataclass(frozen=True)
class DrawnGround:
    """The ground of a quickstart study; validation pictures are bytes, the teacher's of them floats."""

    teacher: Teacher
    lessons: LessonSource
    targets: RepairTargets
    validation: Tensor
    validation_outputs: Tensor
    harm: list[dict[str, float]]

    def rate_factor(self, *student_psnr: float) -> float:
        return rate_factor(self.harm, *student_psnr)


@functools.lru_cache(maxsize=1)
def drawn_ground(tiny: bool = False) -> DrawnGround:
    """Make the ground, once a process: some 15 seconds. ``tiny``: of so little that its numbers mean nothing."""
    torch.set_num_threads(1)
    study = load_study(STUDIES / "quickstart.yaml")
    px, views, pictures = (32, 8, TINY_PICTURES) if tiny else (study.image_px, study.data.views or 256, PICTURES)
    data = open_data(study.data, px, study.seed)
    train, validation = data.source("train"), data.source("val")
    generator, _ = load_generator(SHIPPED_TEACHER)
    teacher = Teacher(generator, px)
    numbers = range(views)
    inputs = batch(train, [k % len(train) for k in numbers], [k // len(train) for k in numbers])
    lessons = Lessons.in_memory(teacher, inputs)
    held = to_uint8(batch(validation, range(pictures)))
    harm = harm_of_rates(teacher, drawn_settings({}), lessons, seed=study.seed, attempts=1 if tiny else 7)
    return DrawnGround(
        teacher=teacher,
        lessons=lessons,
        targets=record_targets(teacher.network, batch(train, range(pictures))),
        validation=held,
        validation_outputs=paint(teacher.network, held),
        harm=harm,
    )


def drawn_settings(point: Mapping[str, Any]) -> SlimmingSettings:
    """The quickstart's settings with those of ``point`` instead."""
    return settings_from_point(point, load_study(STUDIES / "quickstart.yaml").settings)


def slimmed(
    ground: Ground, settings: SlimmingSettings, seed: int, *, looked_at: int = PICTURES
) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """Run GAN Slimming as ``gs_search.trial.run`` does, learning rates lowered as far as the student needs.

    Args:
        looked_at: validation pictures on which the repaired student is judged before its first step.

    Returns:
        the student, its validation pictures in [-1, 1], and numbers: ``macs_share``, ``kept`` (share of channels),
        ``psnr_before`` training and ``psnr`` after (decibels to the teacher), ``rate_factor``, and processor
        seconds of the repair and of the whole run.
    """
    found: dict[str, Any] = {}
    few = slice(looked_at)

    def look(student: nn.Module) -> float:
        begun = time.process_time()
        found["psnr_before"] = psnr(paint(student.eval(), ground.validation[few]), ground.validation_outputs[few])
        found["rate_factor"] = ground.rate_factor(found["psnr_before"])
        looked.append(time.process_time() - begun)
        return float(found["rate_factor"])

    start, looked = time.process_time(), list[float]()
    with _repairs_timed() as repairs:
        result = slim(
            ground.teacher,
            settings,
            ground.lessons,
            ground.targets,
            seed=seed,
            rate_factor=ground.rate_factor(),
            on_repaired=look,
        )
    found |= {"run_seconds": time.process_time() - start - sum(looked), "repair_seconds": sum(repairs)}
    painted = paint(result.network, ground.validation)
    found |= {
        "macs_share": result.macs_share,
        "kept": sum(int(mask.sum()) for mask in result.alive.values()) / sum(map(len, result.alive.values())),
        "psnr": psnr(painted, ground.validation_outputs),
    }
    return result.network, painted, found


@contextmanager
def _repairs_timed() -> Iterator[list[float]]:
    """While open, processor seconds of every repair walk land in the list."""
    seconds: list[float] = []

    def timed(*arguments: Any, **options: Any) -> None:
        start = time.process_time()
        repair_(*arguments, **options)
        seconds.append(time.process_time() - start)

    with mock.patch("gs_search.slimming.run.repair_", timed):
        yield seconds

"""The teacher of a study: where its generator comes from, and what of it a search cannot slim.

``slimmable_teacher`` is asked by ``check`` and by the preparation alike, so that what stays as it is, and why, is said
before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gs_search.data import DataSource
from gs_search.networks import Architecture, load_generator
from gs_search.slimming.teacher import Teacher

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = [
    "SHIPPED_TEACHER",
    "TRAINING_LINE",
    "frozen_json",
    "frozen_lines",
    "generator_of",
    "given_generator",
    "slimmable_teacher",
]

SHIPPED_TEACHER = Path(__file__).parents[1] / "assets" / "horse2zebra_drawn.safetensors"

TRAINING_LINE = "training the teacher"
"""How the line begins that announces it."""

SHOWN = 10
"""Frozen parts that are named in lines; files name all."""


def generator_of(
    config: StudyConfig, data: DataSource, device: torch.device, log: Callable[[str], None], *, retrain: bool
) -> tuple[nn.Module, Architecture]:
    """Load or train the generator that the study names; on the CPU, in evaluation mode.

    Args:
        retrain: train one, whatever the study names.

    Raises:
        BadInput: it cannot be loaded, or there is nothing to train it on.
    """
    wanted = config.teacher
    if wanted.kind != "train" and not retrain:
        return given_generator(config)
    from gs_search.slimming.cyclegan import train_teacher

    log(f"{TRAINING_LINE}: CycleGAN, width {wanted.width}, {wanted.blocks} blocks, {wanted.steps} steps")
    generator = train_teacher(
        data,
        width=wanted.width,
        blocks=wanted.blocks,
        image_px=config.image_px,
        steps=wanted.steps,
        seed=config.seed,
        device=device,
    )
    return generator.cpu().eval(), Architecture("cyclegan_resnet", wanted.width, wanted.blocks)


def given_generator(config: StudyConfig) -> tuple[nn.Module, Architecture]:
    """Load the generator of a study that does not train one; raises BadInput where it cannot be used."""
    wanted = config.teacher
    path = SHIPPED_TEACHER if wanted.kind == "shipped" else wanted.path
    assert path is not None, "config.py sees to it that a checkpoint has a path"
    return load_generator(path, **wanted.choice())


def slimmable_teacher(config: StudyConfig, generator: nn.Module) -> Teacher:
    """Trace the generator at the study's size.

    Raises:
        UnsupportedNetwork: it cannot be slimmed, or most of it cannot and the study does not allow that.
    """
    teacher = Teacher(generator, config.image_px)
    if not config.teacher.allow_frozen:
        teacher.check_frozen()
    return teacher


def frozen_lines(teacher: Teacher) -> list[str]:
    """Say what was changed to make the generator slimmable, and what is not slimmed, the largest parts first."""
    parts = sorted(teacher.graph.frozen, key=lambda part: (-part.macs_share, -part.bytes))
    lines = [*teacher.notes, *(f"not slimmed: {part}" for part in parts[:SHOWN])]
    if rest := parts[SHOWN:]:
        share = sum(part.macs_share for part in rest)
        more = f"{len(rest)} more parts, {share:.1%} of the multiply-adds"
        lines.append(f"not slimmed: {more} (all: teacher/baselines.json, or check --json)")
    return lines


def frozen_json(teacher: Teacher) -> dict[str, Any]:
    """The same, all of it, as JSON holds it: ``share`` of the multiply-adds, ``parts``, ``notes``."""
    parts = [asdict(part) for part in teacher.graph.frozen]
    return {"share": teacher.frozen_share, "parts": parts, "notes": list(teacher.notes)}

"""The teacher of a study: where its generator comes from, and what of it a search cannot slim.

``slimmable_teacher`` is asked by ``check`` and by the preparation alike, so that what stays as it is, and why, is said
before anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gs_search.data import DataSource
from gs_search.errors import BadInput, CheckpointError, one_line
from gs_search.networks import Architecture, ModuleArchitecture, build_module, load_generator, load_module
from gs_search.slimming.teacher import Teacher
from gs_search.system.user_code import MANIFEST, copied_code

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = [
    "SHIPPED_TEACHER",
    "TRAINING_LINE",
    "frozen_json",
    "frozen_lines",
    "generator_of",
    "given_generator",
    "save_generator",
    "saved_generator",
    "slimmable_teacher",
]

TeacherArchitecture = Architecture | ModuleArchitecture

SHIPPED_TEACHER = Path(__file__).parents[1] / "assets" / "horse2zebra_drawn.safetensors"

TRAINING_LINE = "training the teacher"
"""How the line begins that announces it."""

SHOWN = 10
"""Frozen parts that are named in lines; files name all."""


def generator_of(
    config: StudyConfig,
    data: DataSource,
    device: torch.device,
    log: Callable[[str], None],
    *,
    retrain: bool,
    source: Path,
) -> tuple[nn.Module, TeacherArchitecture]:
    """Load or train the generator that the study names; on the CPU, in evaluation mode.

    Args:
        retrain: train one, whatever the study names.
        source: the run folder's copy of the user's code, for a teacher of kind ``module``.

    Raises:
        BadInput: it cannot be loaded, or there is nothing to train it on.
    """
    wanted = config.teacher
    if wanted.kind != "train" and not retrain:
        notes: list[str] = []
        found = given_generator(config, notes, source)
        for note in notes:
            log(f"teacher: {note}")
        return found
    architecture = Architecture("cyclegan_resnet", wanted.width, wanted.blocks)
    told = f"width {wanted.width}, {wanted.blocks} blocks, {wanted.steps} steps"
    if data.kind == "pairs":
        from gs_search.slimming.paired import train_on_pairs

        log(f"{TRAINING_LINE}: on pairs, {told}")
        generator = train_on_pairs(
            data, width=wanted.width, blocks=wanted.blocks, steps=wanted.steps, seed=config.seed, device=device
        )
        return generator.cpu().eval(), architecture
    from gs_search.slimming.cyclegan import train_teacher

    log(f"{TRAINING_LINE}: CycleGAN, {told}")
    generator = train_teacher(
        data,
        width=wanted.width,
        blocks=wanted.blocks,
        image_px=config.image_px,
        steps=wanted.steps,
        seed=config.seed,
        device=device,
    )
    return generator.cpu().eval(), architecture


def given_generator(
    config: StudyConfig, notes: list[str] | None = None, source: Path | None = None
) -> tuple[nn.Module, TeacherArchitecture]:
    """Load the generator of a study that does not train one.

    Args:
        notes: gets what was decided about a generator of the user's own.
        source: see ``generator_of``; None takes the code from where the study names it.

    Raises:
        BadInput: it cannot be used.
    """
    wanted = config.teacher
    if wanted.kind == "module":
        code = wanted.code(config.source.parent) if source is None else copied_code(source)
        assert code is not None, "config.py sees to it that a module has a factory"
        return load_module(code, image_px=config.image_px, notes=notes, **wanted.module())
    path = SHIPPED_TEACHER if wanted.kind == "shipped" else wanted.path
    assert path is not None, "config.py sees to it that a checkpoint has a path"
    return load_generator(path, **wanted.choice())


def save_generator(path: Path, generator: nn.Module, architecture: TeacherArchitecture) -> None:
    """Write a generator as ``saved_generator`` reads it."""
    # Clones: tensors that are one to the network cannot be one in this format.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in _tensors(generator).items()}
    save_file(tensors, path, {"architecture": json.dumps(architecture.to_json())})


def saved_generator(path: Path, source: Path) -> tuple[nn.Module, TeacherArchitecture]:
    """Read the generator of a run folder.

    Args:
        path: written by ``save_generator``.
        source: the copy of the user's code beside it; which function is called stands there alone.

    Raises:
        BadInput: a file is damaged, or the user's code is not what it was when the file was written.
    """
    if not (source / MANIFEST).is_file():
        return load_generator(path)
    code = copied_code(source)
    try:
        with safe_open(path, "pt") as opened:
            described = json.loads((opened.metadata() or {})["architecture"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        architecture = ModuleArchitecture.from_json(described)
    except (OSError, SafetensorError, ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"{path}: damaged ({one_line(error)}); restore it, or start in another folder") from None
    if code.sha256 != architecture.source:
        raise BadInput(
            f"{source}: the source of {architecture.name} has changed since the run began; put it back as it was, or "
            "start in another run folder"
        )
    generator = build_module(code, architecture)
    missing = [name for name in _tensors(generator) if name not in tensors]
    try:
        generator.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        missing = missing or [one_line(error)]
    if missing:
        raise BadInput(
            f"{path}: {architecture.name} does not build the network of this run any more ({missing[0]}); does it "
            "depend on a file or a package that has changed?"
        )
    return generator, architecture


def _tensors(generator: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in generator.state_dict().items() if isinstance(value, Tensor)}


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

"""Slimming a generator of one's own in one call: no study, no search, no Ray."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from gs_search.errors import BadInput
from gs_search.measure.psnr import psnr
from gs_search.slimming.learning_rates import harm_of_rates, rate_factor
from gs_search.slimming.lessons import Lessons
from gs_search.slimming.repair import record_targets
from gs_search.slimming.run import Progress, Slimmed, slim
from gs_search.slimming.teacher import Teacher
from gs_search.slimming.training import RealPictures
from gs_search.study.settings import SlimmingSettings

__all__ = ["FrozenParts", "slim_generator"]


class FrozenParts(UserWarning):
    """A part of a generator that is not slimmed, or that was changed so that it can be; one line."""


FEWEST = 4
"""Pictures without which nothing can be learned and judged."""

JUDGED = 4
"""Pictures on which the repaired student is judged, to choose its learning rates."""


def slim_generator(
    generator: nn.Module,
    pictures: Tensor,
    settings: SlimmingSettings | None = None,
    *,
    seed: int = 0,
    real: RealPictures | None = None,
    on_progress: Progress | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    allow_frozen: bool = False,
) -> Slimmed:
    """Distil, prune and quantize a generator (GAN Slimming, Wang et al., ECCV 2020).

    Args:
        generator: takes N x 3 x H x W in [-1, 1] and returns one picture each, in evaluation mode always the same
            one. Convolutions, linear layers and norms, torch's and those that compute the same, lose channels and
            bits; what is not known to be safe is kept as it is, and named (``FrozenParts``) before anything is
            trained. It is copied, not changed; the work is done on its device.
        pictures: what it is to be slimmed on, N x 3 x H x W in [-1, 1], square; 32 diverse ones or more (the more the
            better; all lessons are held in memory).
        settings: what to prune, round and train; by default 8 bits, nothing pruned, 100 steps. Learning rates are
            the highest allowed: they are lowered until they do the generator no harm.
        real: target-domain pictures, see ``settings.discriminator_real``.
        on_progress, checkpoint, checkpoint_every: see ``slim``.
        allow_frozen: whether to slim a generator of whose multiply-adds more than half stay as they are.

    Returns:
        The student, ``network``, with its proof of parity and its share of the multiply-adds: of the whole network,
        frozen parts included, as are ``size_bytes`` and ``bits``. ``frozen`` names these parts. ``save_student(path,
        slimmed.network, None)`` packs it, ``load_student(path, generator)`` reads it back.

    Raises:
        BadInput: the pictures are unfit.
        ConfigError: the target cannot be reached.
        UnsupportedNetwork: the generator cannot be slimmed, or most of it not; the message names the layer.
        TrialFailed: training broke down; the learning rates are too high.
    """
    settings = settings or SlimmingSettings()
    _check(pictures)
    pictures = pictures.float()
    device = next((p.device for p in generator.parameters()), torch.device("cpu"))
    teacher = Teacher(generator, pictures.shape[-1]).to(device)
    lessons = Lessons.in_memory(teacher, pictures)
    if not allow_frozen:
        teacher.check_frozen()
    for line in (*teacher.notes, *map(str, teacher.graph.frozen)):
        warnings.warn(line, FrozenParts, stacklevel=2)
    targets = record_targets(teacher.network, pictures[: settings.repair_pictures].to(device))
    harm = [{"factor": 1.0, "psnr_to_teacher": math.inf}]
    if settings.steps:
        harm = harm_of_rates(teacher, settings, lessons, seed=seed)
    judged = lessons.batch(list(range(len(lessons)))[-JUDGED:], device)

    def look(student: nn.Module) -> float:
        with torch.no_grad():
            return rate_factor(harm, float(psnr(student(judged.inputs), judged.outputs)))

    return slim(
        teacher,
        settings,
        lessons,
        targets,
        seed=seed,
        rate_factor=rate_factor(harm),
        real=real,
        on_progress=on_progress,
        on_repaired=look,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )


def _check(pictures: Tensor) -> None:
    if not isinstance(pictures, Tensor):
        raise BadInput(f"pictures must be a torch tensor, not {type(pictures).__name__}")
    shape = " x ".join(map(str, pictures.shape))
    if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3]:
        raise BadInput(f"pictures must be N x 3 x H x H, not {shape}")
    if not pictures.is_floating_point() or not bool(torch.isfinite(pictures).all()):
        raise BadInput("pictures must be finite floats in [-1, 1]; bytes become that by x / 127.5 - 1")
    low, high = float(pictures.min()), float(pictures.max())
    if low < -1.001 or high > 1.001:
        raise BadInput(f"pictures must lie in [-1, 1]; these reach from {low:.3g} to {high:.3g}")
    if len(pictures) < FEWEST:
        raise BadInput(f"at least {FEWEST} pictures are needed, and 32 are better; there are {len(pictures)}")

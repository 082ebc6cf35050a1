"""Learning rates that do no harm: what a few steps without pruning leave of the teacher.

Usual rates wreck a real teacher within ten steps, before anything is pruned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gs_search.measure.psnr import psnr
from gs_search.slimming.discriminator import Adversary
from gs_search.slimming.distillation import perceptual_of
from gs_search.slimming.teacher import Teacher
from gs_search.slimming.training import LessonSource, Training
from gs_search.study.settings import SlimmingSettings

__all__ = ["HARMLESS_STEPS", "featured_share", "harm_of_rates", "lesson_numbers", "rate_factor"]

HARMLESS_PSNR = 30.0
"""Decibels to the teacher that 15 steps without pruning must keep, for a student that is as good or better."""

HARM_MARGIN = 2.0
"""Decibels by which the teacher, after 15 steps at a rate, must still be better than the repaired student. Chosen
from few runs with one seed: students at 18 to 20 dB gained 0.5 to 1 dB from rates that no unpruned teacher stands."""

HARMLESS_STEPS = 15

FEATURED_SHARE = 0.25
"""Share of the steps whose pictures have features, at least, where some views have none."""


def rate_factor(harm: Sequence[Mapping[str, float]], student_psnr: float = HARMLESS_PSNR) -> float:
    """Largest factor on the learning rates that does no harm to a student of so many decibels.

    Args:
        harm: what ``harm_of_rates`` measured, largest factor first.
        student_psnr: of the repaired student before training; the default asks for an unpruned teacher's.
    """
    wanted = min(HARMLESS_PSNR, student_psnr + HARM_MARGIN)
    return next((row["factor"] for row in harm if row["psnr_to_teacher"] >= wanted), harm[-1]["factor"])


def harm_of_rates(
    teacher: Teacher, settings: SlimmingSettings, lessons: LessonSource, *, seed: int, attempts: int = 7
) -> list[dict[str, float]]:
    """What 15 steps without pruning leave of the teacher at 1, 1/2, 1/4 ... of the learning rates.

    Measured without quantizers, on views that these steps have not seen, until ``HARMLESS_PSNR`` is kept.

    Returns:
        ``factor`` and ``psnr_to_teacher`` of each attempt.
    """
    calm = dataclasses.replace(settings, weight_bits=32, activation_bits=32)
    device = next(teacher.network.parameters()).device
    judged = list(range(len(lessons)))[-4:]
    seen: list[dict[str, float]] = []
    factor = 1.0
    for _ in range(attempts):
        network, scaling = teacher.student("rank" if settings.importance != "raw" else "raw")
        training = Training(
            teacher,
            network,
            scaling,
            teacher.graph.all_alive(),
            calm,
            Adversary(calm, torch.Generator().manual_seed(seed), device),
            steps=max(settings.steps, HARMLESS_STEPS),
            sparsity=False,
            rate_factor=factor,
            perceptual=perceptual_of(calm, device),
        )
        count = max(len(lessons) - len(judged), 1)
        for step in range(HARMLESS_STEPS):
            training.run_step(lessons.batch(lesson_numbers(count, lessons.featured, settings, seed, step), device))
        batch = lessons.batch(judged, device)
        with torch.no_grad():
            decibels = psnr(network.eval()(batch.inputs), batch.outputs)
        seen.append({"factor": factor, "psnr_to_teacher": round(float(decibels), 2)})
        if decibels >= HARMLESS_PSNR:
            break
        factor /= 2
    return seen


def lesson_numbers(count: int, featured: int, settings: SlimmingSettings, seed: int, step: int) -> np.ndarray:
    """Numbers of the lessons of one step: all of them with features, or all of them without.

    Where only some views have features and these are matched, every fourth step is theirs, or as many as they are; it
    measures as well as features of all views, which would cost as much as the training (benchmarks/README.md).

    Args:
        count: views.
        featured: those that have features, the first ones.
    """
    size = settings.batch_size
    if featured >= count or not featured or not settings.matches_features:
        return _in_turn(count, size, seed, step)
    share = featured_share(featured, count)
    before = math.floor(step * share)
    if math.floor((step + 1) * share) > before:
        return _in_turn(featured, size, seed, before)
    return featured + _in_turn(count - featured, size, seed, step - before)


def featured_share(featured: int, count: int) -> float:
    """Share of the steps that train on the views with features, of ``count`` views in all."""
    return max(FEATURED_SHARE, featured / count) if featured else 0.0


def _in_turn(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Every lesson once an epoch, each epoch in an order of its own."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = {int(e): np.random.default_rng((seed, int(e))).permutation(count) for e in np.unique(places // count)}
    return np.array([epochs[int(place) // count][int(place) % count] for place in places])

"""One run of GAN Slimming from teacher to student: sparsify, cut, repair, train.

``schedule: proximal`` is the paper: scales are learned and thresholded while the network trains with its
quantizers, then what is dead is cut. ``schedule: at_once`` cuts by the teacher's own importance before the first
step. Both then repair the small network in closed form and train it with the remaining steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.measure.psnr import psnr
from gs_search.settings import SlimmingSettings
from gs_search.slimming.channels import Alive
from gs_search.slimming.extract import Parity, check_parity, extract
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer
from gs_search.slimming.repair import RepairTargets, attach_quantizers, repair_
from gs_search.slimming.sparsity import cut, cutting_rules, magnitudes, mask_, threshold_for_target
from gs_search.slimming.teacher import Teacher
from gs_search.slimming.training import Adversary, LessonSource, Training

__all__ = ["HARMLESS_PSNR", "Progress", "Slimmed", "harm_of_rates", "rate_factor", "slim"]

HARMLESS_PSNR = 30.0
"""Decibels to the teacher that 15 steps without pruning must keep, for a student that is as good or better."""

HARM_MARGIN = 2.0
"""Decibels by which the teacher, after 15 steps at a rate, must still be better than the repaired student. Chosen
from few runs with one seed: students at 18 to 20 dB gained 0.5 to 1 dB from rates that no unpruned teacher stands."""

HARMLESS_STEPS = 15

PARITY_PX = 64
"""Side of the crops on which masked and extracted network are compared (in double precision)."""

LOG_EVERY = 10

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Slimmed:
    """A student and how it came about.

    Attributes:
        network: extracted, quantized, in evaluation mode.
        alive: channels of the teacher that it kept.
        parity: masked against extracted network, at the cut.
        macs_share: multiply-adds over the teacher's.
        curve: every tenth step's losses: ``step``, ``phase``, ``macs_share`` and the terms.
    """

    network: nn.Module
    alive: Alive
    parity: Parity
    macs_share: float
    curve: list[dict[str, Any]]


def slim(
    teacher: Teacher,
    settings: SlimmingSettings,
    lessons: LessonSource,
    targets: RepairTargets,
    *,
    seed: int,
    rate_factor: float = 1.0,
    real: Callable[[int], Tensor] | None = None,
    on_progress: Progress | None = None,
    on_repaired: Callable[[nn.Module], float] | None = None,
) -> Slimmed:
    """Run GAN Slimming once.

    Args:
        lessons: the teacher's answers on training views.
        targets: the teacher's layer outputs for the repair.
        seed: of the discriminator, the order of views and the buffer; on a CPU with one thread it fixes every
            number.
        rate_factor: on the learning rates of weights and scales, from ``rate_factor``.
        real: target-domain pictures for the discriminator, as many as asked for.
        on_progress: called at every logged step.
        on_repaired: called with the student before its first training step; says the factor from there on.

    Raises:
        TrialFailed: losses became NaN, or pictures collapsed.
        UnsupportedNetwork: masked and extracted network differ.
    """
    torch.manual_seed(seed)
    graph = teacher.graph
    generator = torch.Generator().manual_seed(seed)
    device = next(teacher.network.parameters()).device
    network, factors = teacher.student(settings.importance)
    alive = graph.all_alive()
    adversary = Adversary(settings, generator, device)
    order = _shuffled(len(lessons), settings.batch_size, seed)
    curve: list[dict[str, Any]] = []
    slim_steps = round(settings.steps * settings.slim_fraction) if settings.schedule == "proximal" else 0

    def train(network: nn.Module, steps: int, factor: float, *, sparsity: bool, done: int) -> None:
        training = Training(
            teacher,
            network,
            factors,
            alive,
            settings,
            adversary,
            steps=steps,
            sparsity=sparsity,
            rate_factor=factor,
            real=real if settings.discriminator_real == "target" else None,
        )
        for step in range(steps):
            terms = training.run_step(lessons.batch(next(order), device))
            if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
                row: dict[str, Any] = {"step": done + step + 1, "phase": "slim" if sparsity else "recover"}
                row |= {"macs_share": training.share()} | {name: float(value) for name, value in terms.items()}
                curve.append(row)
                if on_progress is not None:
                    on_progress({**row, "steps": settings.steps})

    attach_quantizers(graph, network, settings, targets.pictures[:4])
    if slim_steps:
        train(network, slim_steps, rate_factor, sparsity=True, done=0)
    alive |= _landing(teacher, network, alive, settings)
    mask_(graph, network, alive)
    student = extract(graph, network, alive)
    crops = targets.pictures[:2, :, :PARITY_PX, :PARITY_PX]
    parity = check_parity(graph, network, student, alive, crops)
    repair_(graph, student, alive, targets, settings, refit=settings.repair)
    if on_repaired is not None:
        rate_factor = on_repaired(student)
    train(student, settings.steps - slim_steps, rate_factor, sparsity=False, done=slim_steps)
    for module in student.modules():
        if isinstance(module, (ActivationQuantizer, WeightQuantizer)):
            module.settle()
    return Slimmed(student.eval(), alive, parity, graph.macs(alive) / graph.macs(graph.all_alive()), curve)


def _landing(teacher: Teacher, network: nn.Module, alive: Alive, settings: SlimmingSettings) -> Alive:
    """Channels to keep at the cut: those alive, less what a target or a budget still asks for."""
    graph = teacher.graph
    scores = {name: np.where(alive[name], s, 0.0) for name, s in magnitudes(graph, network).items()}
    rules = cutting_rules(settings)
    if settings.target_gflops_ratio is not None:
        threshold = threshold_for_target(graph, scores, settings.target_gflops_ratio, **rules)
    elif settings.schedule == "at_once":
        threshold = settings.sparsity_weight or 0.0
    else:
        return alive
    landed = cut(graph, scores, threshold, **rules)
    return {name: landed[name] & alive[name] for name in landed}


def _shuffled(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of view numbers, every view once an epoch; a rest too small for a batch is dealt again."""
    rng = np.random.default_rng(seed)
    pool = np.empty(0, dtype=np.int64)
    while True:
        while len(pool) < batch_size:
            pool = np.concatenate([pool, rng.permutation(count)])
        yield pool[:batch_size]
        pool = pool[batch_size:]


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

    Usual rates wreck a real teacher within ten steps, before anything is pruned. Measured without quantizers, on
    views that these steps have not seen, until ``HARMLESS_PSNR`` is kept.

    Returns:
        ``factor`` and ``psnr_to_teacher`` of each attempt.
    """
    calm = dataclasses.replace(settings, weight_bits=32, activation_bits=32)
    device = next(teacher.network.parameters()).device
    judged = list(range(len(lessons)))[-4:]
    seen: list[dict[str, float]] = []
    factor = 1.0
    for _ in range(attempts):
        network, factors = teacher.student(settings.importance)
        adversary = Adversary(calm, torch.Generator().manual_seed(seed), device)
        training = Training(
            teacher,
            network,
            factors,
            teacher.graph.all_alive(),
            calm,
            adversary,
            steps=max(settings.steps, HARMLESS_STEPS),
            sparsity=False,
            rate_factor=factor,
        )
        order = _shuffled(max(len(lessons) - len(judged), 1), settings.batch_size, seed)
        for _step in range(HARMLESS_STEPS):
            training.run_step(lessons.batch(next(order), device))
        batch = lessons.batch(judged, device)
        with torch.no_grad():
            decibels = psnr(network.eval()(batch.inputs), batch.outputs)
        seen.append({"factor": factor, "psnr_to_teacher": round(float(decibels), 2)})
        if decibels >= HARMLESS_PSNR:
            break
        factor /= 2
    return seen

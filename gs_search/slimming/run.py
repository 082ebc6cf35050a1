"""One run of GAN Slimming from teacher to student: sparsify, cut, repair, train.

``schedule: proximal`` is the paper: scales are learned and thresholded while the network trains with its
quantizers, then what is dead is cut. ``schedule: at_once`` cuts by the teacher's own importance before the first
step. Both then repair the small network in closed form and train it with the remaining steps.

A run may be stopped after any step and continued from its checkpoint; on a CPU with one thread it then ends in the
same bits as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gs_search.errors import ConfigError
from gs_search.slimming.channels import Alive, Frozen
from gs_search.slimming.checkpoint import (
    as_masks,
    fingerprint,
    load_state,
    network_state,
    restore_network_,
    save_state,
)
from gs_search.slimming.discriminator import Adversary
from gs_search.slimming.distillation import perceptual_of
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.extraction import Parity, check_parity, extract
from gs_search.slimming.learning_rates import lesson_numbers
from gs_search.slimming.output_quantizer import OutputQuantizer
from gs_search.slimming.precision import settled
from gs_search.slimming.proving import check_count, count_products, small_pictures
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer
from gs_search.slimming.repair import RepairTargets, attach_quantizers, repair_
from gs_search.slimming.sparsity import Rules, cut, cut_to_target, magnitudes, mask_
from gs_search.slimming.student import stored_bits, stored_bytes
from gs_search.slimming.teacher import Teacher
from gs_search.slimming.training import LessonSource, RealPictures, Training
from gs_search.study.settings import SlimmingSettings
from gs_search.system.generators import returned

__all__ = ["Progress", "Run", "Rung", "Slimmed", "slim", "slim_in_rungs"]

TAYLOR_PICTURES = 16
"""Pictures on which ``importance: taylor`` is measured."""

LOG_EVERY = 10
"""Steps between two rows of a curve."""

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
        notes: what was filled in at rungs.
        frozen: what was not slimmed, and why.
    """

    network: nn.Module
    alive: Alive
    parity: Parity
    macs_share: float
    curve: list[dict[str, Any]]
    notes: dict[str, Any]
    frozen: tuple[Frozen, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Length of the file that ``save_student`` writes."""
        return stored_bytes(self.network)

    @property
    def bits(self) -> float:
        """Stored bits a number, floats included."""
        return stored_bits(self.network)


@dataclass(frozen=True)
class Rung:
    """A student on its way, its schedule so far finished: repaired but untrained at step 0.

    Attributes:
        step: training steps done since the cut.
        network: the student, to be looked at, not changed.
        macs_share: multiply-adds over the teacher's; final.
        notes: may be filled with what was found; kept with the run's checkpoint.
    """

    step: int
    network: nn.Module
    macs_share: float
    notes: dict[str, Any]


def slim(
    teacher: Teacher,
    settings: SlimmingSettings,
    lessons: LessonSource,
    targets: RepairTargets,
    *,
    seed: int,
    rate_factor: float = 1.0,
    real: RealPictures | None = None,
    on_progress: Progress | None = None,
    on_repaired: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
) -> Slimmed:
    """Run GAN Slimming once.

    Args:
        lessons: the teacher's answers on training views.
        targets: the teacher's layer outputs for the repair.
        seed: of the discriminator, the order of views and the buffer; on a CPU with one thread it fixes every
            number.
        rate_factor: on the learning rates of weights and scales, from ``learning_rates.rate_factor``.
        real: target-domain pictures for the discriminator.
        on_progress: called at every logged step.
        on_repaired: called with the student before its first training step; says the factor from there on.
        checkpoint: file to continue from where it exists, and to write every ``checkpoint_every`` steps and after
            the last. It is left there: delete it when the student is safe.

    Raises:
        TrialFailed: losses became NaN, or pictures collapsed.
        ConfigError: the target cannot be reached under the rules.
        UnsupportedNetwork: masked and extracted network differ.
        CheckpointError: the checkpoint is damaged or of another run.
    """
    run = slim_in_rungs(
        teacher,
        settings,
        lessons,
        targets,
        seed=seed,
        rate_factor=rate_factor,
        real=real,
        on_progress=on_progress,
        on_repaired=on_repaired,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    return returned(run)


def slim_in_rungs(
    teacher: Teacher,
    settings: SlimmingSettings,
    lessons: LessonSource,
    targets: RepairTargets,
    *,
    seed: int,
    rungs: Sequence[int] = (0,),
    rate_factor: float = 1.0,
    real: RealPictures | None = None,
    on_progress: Progress | None = None,
    on_repaired: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
) -> Generator[Rung, None, Slimmed]:
    """``slim``, that pauses at every rung, so that a student that is behind can be left there.

    Args:
        rungs: training steps after the cut at which to pause, rising; 0 is the repaired student. Each stretch has a
            cosine of its own, so that a student at a rung is a finished one. Rungs that a checkpoint has passed are
            not repeated.
        further ones: see ``slim``.
    """
    run = Run(teacher, settings, lessons, targets, seed, real, rungs)
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    identity = fingerprint(teacher, run.settings, seed, len(lessons), run.ends)
    if checkpoint is not None and checkpoint.is_file():
        run.load_state_dict(load_state(checkpoint, identity, run.device))
    else:
        run.begin(rate_factor)
    while True:
        if run.phase == "slim" and run.done == run.slim_steps:
            run.cut(on_repaired)
            if 0 in rungs:
                yield run.rung()
        if run.done == settings.steps:
            break
        row = run.step()
        if row is not None and on_progress is not None:
            on_progress({**row, "steps": settings.steps})
        if run.done in run.ends[1:-1]:
            yield run.rung()
            run.start_stretch()
        # After the rung, whose notes a run that goes on from here would else lack.
        if checkpoint is not None and (run.done % max(checkpoint_every, 1) == 0 or run.done == settings.steps):
            save_state(checkpoint, run.state_dict(), identity)
    return run.result()


class Run:
    """The state of one run between two steps.

    ``slim_in_rungs`` drives it: ``begin`` or ``load_state_dict``; ``cut`` where the phase is ``slim`` and
    ``slim_steps`` are ``done``; ``step`` after ``step``, and ``start_stretch`` at each of ``ends`` but the first and
    the last.

    Args:
        rungs: training steps after the cut at which a stretch with a schedule of its own ends.
        team: with whom it trains; a step's ``batch_size`` pictures are then those of all of them.
        parts: in how many equal parts this process's pictures of a step go through the networks.
        log_every: steps between two rows of the curve.
        further ones: see ``slim``.
    """

    network: nn.Module
    training: Training
    parity: Parity | None = None

    def __init__(
        self,
        teacher: Teacher,
        settings: SlimmingSettings,
        lessons: LessonSource,
        targets: RepairTargets,
        seed: int,
        real: RealPictures | None,
        rungs: Sequence[int],
        *,
        team: Team = ALONE,
        parts: int = 1,
        log_every: int = LOG_EVERY,
    ) -> None:
        self.team, self.parts, self.log_every = team, parts, log_every
        self.device = next(teacher.network.parameters()).device
        settings = settled(settings, self.device)
        self.teacher, self.settings, self.lessons, self.targets, self.seed = teacher, settings, lessons, targets, seed
        if settings.discriminator_real == "target" and settings.adversarial_weight and real is None:
            raise ConfigError(["discriminator_real is target, but there are no target pictures; set it to teacher"])
        self.real = real if settings.discriminator_real == "target" else None
        self.slim_steps = round(settings.steps * settings.slim_fraction) if settings.schedule == "proximal" else 0
        between = [self.slim_steps + rung for rung in rungs if 0 < rung < settings.steps - self.slim_steps]
        self.ends = [self.slim_steps, *between, settings.steps]
        """Steps at which a stretch with a schedule of its own ends; the first one is the sparse phase."""
        self.done = 0
        self.phase = "slim"
        self.notes: dict[str, Any] = {}
        self.rate_factor = 1.0
        self.curve: list[dict[str, Any]] = []
        torch.manual_seed(seed)
        self.alive = teacher.graph.all_alive()
        self.adversary = Adversary(settings, torch.Generator().manual_seed(seed), self.device, team=team)
        self.perceptual = perceptual_of(settings, self.device)
        self.network, self.scaling = teacher.student(settings.importance, targets.pictures[:TAYLOR_PICTURES])

    def begin(self, rate_factor: float) -> None:
        """Start anew, with the whole network."""
        self.rate_factor = rate_factor
        attach_quantizers(self.teacher.graph, self.network, self.settings, self.targets.pictures[:4])
        self.start_stretch()

    def start_stretch(self) -> None:
        """Begin training up to the next rung, or the end, with a schedule of its own."""
        sparse = self.phase == "slim"
        begun = 0 if sparse else max(end for end in self.ends if end <= self.done)
        end = self.slim_steps if sparse else min((e for e in self.ends if e > self.done), default=self.done)
        self.training = Training(
            self.teacher,
            self.network,
            self.scaling,
            self.alive,
            self.settings,
            self.adversary,
            steps=end - begun,
            sparsity=sparse,
            rate_factor=self.rate_factor,
            real=self.real,
            perceptual=self.perceptual,
            team=self.team,
        )

    def step(self) -> dict[str, Any] | None:
        """One training step; what is to be logged of it, or None."""
        numbers = lesson_numbers(len(self.lessons), self.lessons.featured, self.settings, self.seed, self.done)
        own = np.split(self.team.part(numbers), self.parts)
        terms = self.training.run_step(*(self.lessons.batch(part, self.device) for part in own))
        self.done += 1
        if self.training.step % self.log_every and self.training.step != self.training.steps:
            return None
        row: dict[str, Any] = {"step": self.done, "phase": self.phase, "macs_share": self.training.share()}
        values = self.team.mean(torch.stack(list(terms.values())))
        row |= dict(zip(terms, values.tolist(), strict=True))
        self.curve.append(row)
        return row

    def rung(self) -> Rung:
        share = self.teacher.graph.macs(self.alive) / self.teacher.graph.macs(self.teacher.graph.all_alive())
        return Rung(self.done - self.slim_steps, self.network, share, self.notes)

    def cut(self, on_repaired: Callable[[nn.Module], float] | None) -> None:
        """End the sparse phase: cut, prove that nothing changed, repair."""
        graph, settings = self.teacher.graph, self.settings
        self.alive = self.team.agree_on_masks(self._landing(), self.device)
        mask_(graph, self.network, self.alive)
        student = extract(graph, self.network, self.alive)
        counted = count_products(student, self.teacher.image_px, graph.products(self.alive))
        check_count(graph, counted, self.alive, "student")
        pictures = small_pictures(self.teacher.network, self.targets.pictures[:2])
        self.parity = check_parity(graph, self.network, student, self.alive, pictures)
        repair_(graph, student, self.alive, self.targets, settings, refit=settings.repair)
        if on_repaired is not None:
            self.rate_factor = self.team.agree(on_repaired(student), self.device)
        self.network, self.phase = student, "recover"
        self.start_stretch()

    def _landing(self) -> Alive:
        """Channels to keep at the cut: those alive, less what a target or a budget still asks for.

        Rounding widths up may bring a dead channel back, whose scale is zero: the repair gives it work.
        """
        graph, settings, rules = self.teacher.graph, self.settings, Rules.of(self.settings)
        scores = {
            name: np.where(self.alive[name], score, 0.0)
            for name, score in magnitudes(graph, self.network, self.scaling.units).items()
        }
        if settings.target_gflops_ratio is not None:
            landed = cut_to_target(graph, scores, settings.target_gflops_ratio, rules)
        elif settings.schedule == "at_once":
            landed = cut(graph, scores, settings.sparsity_weight or 0.0, rules)
        elif settings.round_to == 1:
            return self.alive
        else:  # the multipliers have had their say: only widths are rounded
            even = dataclasses.replace(rules, multipliers=dict.fromkeys(rules.multipliers, 1.0))
            landed = cut(graph, {name: mask.astype(float) for name, mask in self.alive.items()}, 0.5, even)
        return landed if settings.round_to > 1 else {name: landed[name] & self.alive[name] for name in landed}

    def result(self) -> Slimmed:
        for module in self.network.modules():
            if isinstance(module, (ActivationQuantizer, WeightQuantizer, OutputQuantizer)):
                module.settle()
        assert self.parity is not None
        share, frozen = self.rung().macs_share, self.teacher.graph.frozen
        return Slimmed(self.network.eval(), self.alive, self.parity, share, self.curve, self.notes, frozen)

    def state_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "phase": self.phase,
            "rate_factor": self.rate_factor,
            "notes": self.notes,
            "alive": as_masks(self.alive),
            "network": network_state(self.network),
            "training": self.training.state_dict(),
            "adversary": self.adversary.state_dict(),
            "random": torch.get_rng_state(),
            "curve": self.curve,
            "parity": None if self.parity is None else dataclasses.asdict(self.parity),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        graph = self.teacher.graph
        self.done, self.phase, self.rate_factor = state["done"], state["phase"], state["rate_factor"]
        self.curve, self.notes = state["curve"], state["notes"]
        self.alive = {name: mask.cpu().numpy() for name, mask in state["alive"].items()}
        self.parity = None if state["parity"] is None else Parity(**state["parity"])
        if self.phase == "recover":
            self.network = extract(graph, self.network, self.alive)
        restore_network_(self.network, state["network"])
        if self.phase == "slim":
            mask_(graph, self.network, self.alive)  # the norms' statistics: scales are zero already
        self.adversary.load_state_dict(state["adversary"])
        finished = self.phase == "recover" and self.done in self.ends  # at a rung: a new stretch begins
        self.start_stretch()
        if not finished:
            self.training.load_state_dict(state["training"])
        torch.set_rng_state(state["random"].cpu())

"""The minimax loop of GAN Slimming: three players, every step (Wang et al., ECCV 2020, Algorithm 1).

Weights by Adam, prunable scales by SGD followed by the proximal step, the discriminator by its own Adam, all
from one forward pass of the student. ``Training`` runs one phase of it; the discriminator outlives the phases,
because cutting the student does not change what it looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import TrialFailed
from gs_search.networks import PatchGan
from gs_search.settings import SlimmingSettings
from gs_search.slimming.channels import Alive
from gs_search.slimming.layers import convolutions, norms
from gs_search.slimming.objective import (
    ImageBuffer,
    discriminator_loss,
    feature_loss,
    generator_loss,
    pixel_loss,
)
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer
from gs_search.slimming.sparsity import (
    Steering,
    cutting_rules,
    magnitudes,
    proximal_step_,
    threshold_for_target,
)
from gs_search.slimming.teacher import Batch, Teacher, record_features

__all__ = ["Adversary", "LessonSource", "Training"]

CHECK_EVERY = 20
"""Steps between two looks at whether the losses are still numbers; looking waits for the device."""

WARM_UP = 5
"""Steps over which the learning rates rise: Adam's first steps have full size whatever the gradient."""

NEAR_TARGET = 2.0
"""Share of multiply-adds, in targets, below which steering looks how far a step would go."""

BUFFER = 50
"""Pictures replayed to the discriminator, as in CycleGAN."""


class LessonSource(Protocol):
    """What a training needs of its data: ``teacher.Lessons``, or any object like it."""

    def __len__(self) -> int: ...

    def batch(self, indices: Any, device: torch.device | str = "cpu") -> Batch: ...


class Adversary:
    """The discriminator with its optimizer and its buffer of old fakes."""

    def __init__(self, settings: SlimmingSettings, generator: torch.Generator, device: torch.device | str) -> None:
        self.network = PatchGan(settings.discriminator_width).initialise(generator).to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.discriminator_learning_rate, betas=(0.5, 0.999)
        )
        self.buffer = ImageBuffer(BUFFER, generator)


class Training:
    """One phase: a network, its optimizers, a schedule of ``steps``.

    Args:
        teacher: whose answers the lessons hold.
        network: the masked network (with ``alive`` changing) or an extracted student.
        factors: each group's signal growth, from ``Teacher.student``.
        alive: channels of the teacher that ``network`` has; updated in place by proximal steps.
        steps: length of this phase's cosine.
        sparsity: whether scales are thresholded in this phase.
        real: target-domain pictures for the discriminator (a function of the batch size), or None for the
            teacher's.

    Raises:
        TrialFailed: a loss became NaN or infinite (cause ``nan``), or all pictures became alike (``collapse``).
    """

    def __init__(
        self,
        teacher: Teacher,
        network: nn.Module,
        factors: Mapping[str, np.ndarray],
        alive: Alive,
        settings: SlimmingSettings,
        adversary: Adversary,
        *,
        steps: int,
        sparsity: bool,
        rate_factor: float = 1.0,
        real: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.teacher, self.network, self.alive, self.settings = teacher, network, alive, settings
        self.adversary, self.steps, self.sparsity, self.real = adversary, steps, sparsity, real
        self.step = 0
        self.factors = factors
        self.device = next(network.parameters()).device
        self.extracted = not sparsity
        self._taps = {tap: self._tap(tap) for tap in teacher.taps} if not sparsity else {}
        weights, scales, ranges = _split(network)
        self.rate_factor = rate_factor
        self._rates = (
            settings.learning_rate * rate_factor,
            settings.scale_learning_rate * rate_factor,
            settings.range_learning_rate,
        )
        self.weight_optimizer = torch.optim.Adam(
            [
                {"params": weights, "lr": self._rates[0], "weight_decay": settings.weight_decay},
                {"params": ranges, "lr": self._rates[2]},
            ],
            betas=(0.5, 0.999),
        )
        self.scale_optimizer = torch.optim.SGD(scales, lr=self._rates[1], momentum=settings.scale_momentum)
        self.steering = Steering(settings.target_gflops_ratio, steps) if settings.target_gflops_ratio else None
        self._rules: dict[str, Any] = cutting_rules(settings)
        self._dense = teacher.graph.macs(teacher.graph.all_alive())
        self._cosines = sum(self._shape(k) for k in range(steps)) or 1.0
        self._finite: Tensor | None = None

    def share(self) -> float:
        """Share of the teacher's multiply-adds that is alive."""
        return self.teacher.graph.macs(self.alive) / self._dense

    def run_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of all players; returns the value of every term (tensors: no waiting for the device)."""
        settings, network, critic = self.settings, self.network, self.adversary.network
        shape = self._shape(self.step)
        for group, rate in zip(self.weight_optimizer.param_groups, (self._rates[0], self._rates[2]), strict=True):
            group["lr"] = rate * shape
        self.scale_optimizer.param_groups[0]["lr"] = self._rates[1] * shape
        network.train()
        critic.requires_grad_(False)
        with record_features(network, self.teacher.taps) as features, self._autocast():
            fake = network(batch.inputs)
            scores = critic(fake) if settings.adversarial_weight else None
        terms = {"pixel": pixel_loss(fake, batch.outputs)}
        total = settings.distill_weight * terms["pixel"]
        if batch.features:
            terms["feature"] = self._features(features, batch)
            total = total + terms["feature"]
        if scores is not None:
            terms["adversarial"] = generator_loss(scores)
            total = total + settings.adversarial_weight * terms["adversarial"]
        self.weight_optimizer.zero_grad(set_to_none=True)
        self.scale_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        if self.sparsity:
            self._shrink(shape)
        if scores is not None:
            terms["discriminator"] = self._teach_critic(fake.detach().float(), batch)
        self._watch(total, fake)
        self.step += 1
        return {name: value.detach() for name, value in terms.items()}

    def _teach_critic(self, fake: Tensor, batch: Batch) -> Tensor:
        critic, optimizer = self.adversary.network, self.adversary.optimizer
        critic.requires_grad_(True)
        real = batch.outputs if self.real is None else self.real(len(fake)).to(self.device)
        with self._autocast():
            real_scores, fake_scores = critic(real), critic(self.adversary.buffer.swap(fake))
        loss = discriminator_loss(real_scores, fake_scores)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    def _features(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        total = torch.zeros((), device=self.device)
        for tap in self.teacher.taps:
            weight = self.settings.per_group("feature_weight", self.teacher.graph.layers[tap].group)
            if not weight or tap not in batch.features or tap not in features:
                continue
            positions, growth = self._taps[tap] if tap in self._taps else self._tap(tap)
            student = features[tap] if self.extracted else features[tap][:, positions]
            wanted = batch.features[tap][:, positions] * growth.view(1, -1, 1, 1)
            total = total + weight / len(self.teacher.taps) * feature_loss(student, wanted)
        return total

    def _tap(self, tap: str) -> tuple[Tensor, Tensor]:
        positions, growth = self.teacher.tap_growth(self.factors, self.alive, tap)
        return torch.as_tensor(positions, device=self.device), torch.as_tensor(
            growth, dtype=torch.float32, device=self.device
        )

    def _shrink(self, shape: float) -> None:
        settings, graph = self.settings, self.teacher.graph
        if self.steering is not None:
            share, target = self.share(), self.steering.target
            threshold = self.steering.threshold(self.step, share)
            if share < NEAR_TARGET * target:  # one step must not take more than is left to take
                scores = {name: s * self.alive[name] for name, s in magnitudes(graph, self.network).items()}
                threshold = min(threshold, threshold_for_target(graph, scores, target, **self._rules))
        else:
            # sparsity_weight is the budget taken off over the phase, so rho = budget / sum of learning rates.
            threshold = (settings.sparsity_weight or 0.0) * shape / self._cosines
        proximal_step_(graph, self.network, threshold, self.alive, revive=settings.revive, **self._rules)

    def _shape(self, step: int) -> float:
        """Warm-up, then a cosine to zero."""
        return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def _watch(self, total: Tensor, fake: Tensor) -> None:
        finite = torch.isfinite(total.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        if (self.step + 1) % CHECK_EVERY and self.step + 1 < self.steps:
            return
        if not bool(self._finite):
            raise TrialFailed("nan", f"the losses stopped being numbers before step {self.step + 1}")
        if float(fake.detach().float().std(dim=(2, 3)).mean()) < 1e-3:
            raise TrialFailed("collapse", f"all pictures had become one flat colour by step {self.step + 1}")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")


def _split(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights (with biases and shifts), prunable scales, ranges of quantizers."""
    scales = [norm.weight for norm in norms(network).values()]
    scales += [conv.gate for conv in convolutions(network).values() if conv.gate is not None]
    ranges = [m.change for m in network.modules() if isinstance(m, (ActivationQuantizer, WeightQuantizer))]
    special = {id(p) for p in (*scales, *ranges)}
    return [p for p in network.parameters() if id(p) not in special], scales, ranges

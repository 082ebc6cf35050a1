"""The minimax loop of GAN Slimming: three players, every step (Wang et al., ECCV 2020, Algorithm 1).

Weights by Adam, prunable scales by SGD followed by the proximal step, the discriminator by its own Adam, all
from one forward pass of the student. ``Training`` runs one phase of it; the discriminator outlives the phases,
because cutting the student does not change what it looks at.

Nothing in a step waits for the device but the look every ``CHECK_EVERY`` steps and, while the student shrinks, the
channels that died.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gs_search.errors import TrialFailed
from gs_search.slimming.channels import Alive, ChannelGraph, tensor_of
from gs_search.slimming.discriminator import Adversary, mean_of
from gs_search.slimming.distillation import Distillation
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.importance import Scaling
from gs_search.slimming.layers import norms, slim_layers
from gs_search.slimming.objective import critic_feature_loss, critic_features, generator_loss
from gs_search.slimming.output_quantizer import OutputQuantizer
from gs_search.slimming.perceptual import PerceptualCache
from gs_search.slimming.precision import settled
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer
from gs_search.slimming.sparsity import Rules, Steering, magnitudes, proximal_step_, threshold_for_target
from gs_search.slimming.teacher import Batch, Teacher, record_features
from gs_search.study.settings import SlimmingSettings

__all__ = ["LessonSource", "RealPictures", "Training"]

CHECK_EVERY = 20
"""Steps between two looks at whether the losses are still numbers; looking waits for the device."""

WARM_UP = 5
"""Steps over which the learning rates rise: Adam's first steps have full size whatever the gradient."""

NEAR_TARGET = 2.0
"""Share of multiply-adds, in targets, below which steering looks how far a step would go."""

FLAT = 0.02
"""Share of the standard deviation of the teacher's pictures below which the student's are one flat colour."""

RealPictures = Callable[[int, int], Tensor]
"""(step, count) to target-domain pictures, count x 3 x H x W in [-1, 1]; the same for the same step."""


class LessonSource(Protocol):
    """What a training needs of its data: ``lessons.Lessons``, or any object like it."""

    @property
    def featured(self) -> int:
        """Views that have features: the first ones."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Any, device: torch.device | str = "cpu") -> Batch: ...


class Training:
    """One phase: a network, its optimizers, a schedule of ``steps``.

    The network runs in evaluation mode, as it will run later: BatchNorms keep the teacher's statistics, which the
    repair restores, and dropout is off, for the teacher's answers have none.

    Args:
        teacher: whose answers the lessons hold.
        network: the masked network (with ``alive`` changing) or an extracted student.
        scaling: what was done to the scales, from ``Teacher.student``.
        alive: channels of the teacher that ``network`` has; updated in place by proximal steps.
        steps: length of this phase's cosine.
        sparsity: whether scales are thresholded in this phase (the network is then not extracted yet).
        rate_factor: on the learning rates of weights and scales.
        real: target-domain pictures for the discriminator, or None for the teacher's.
        perceptual: from ``distillation.perceptual_of``.
        team: with whom it trains; ``run_step`` then takes and tells this process's part.

    Raises:
        TrialFailed: a loss became NaN or infinite (cause ``nan``), or all pictures became alike (``collapse``).
    """

    def __init__(
        self,
        teacher: Teacher,
        network: nn.Module,
        scaling: Scaling,
        alive: Alive,
        settings: SlimmingSettings,
        adversary: Adversary,
        *,
        steps: int,
        sparsity: bool,
        rate_factor: float = 1.0,
        real: RealPictures | None = None,
        perceptual: PerceptualCache | None = None,
        team: Team = ALONE,
    ) -> None:
        self.device = next(network.parameters()).device
        settings = settled(settings, self.device)
        self.teacher, self.network, self.alive, self.settings = teacher, network.eval(), alive, settings
        self.adversary, self.steps, self.sparsity, self.real = adversary, steps, sparsity, real
        self.scaling, self.team = scaling, team
        self.step = 0
        if self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)  # no gain on CPUs
        self.distillation = Distillation(
            teacher, scaling, alive, settings, extracted=not sparsity, perceptual=perceptual, team=team
        ).to(self.device)
        self._player = team.replica(_Player(network, self.distillation.maps))
        weights, scales, ranges = _split(network, teacher.graph)
        self._rates = (
            settings.learning_rate * rate_factor,
            settings.scale_learning_rate * rate_factor,
            settings.range_learning_rate,
        )
        maps = list(self.distillation.maps.values())
        self.weight_optimizer = torch.optim.Adam(
            [
                {"params": weights + maps, "lr": self._rates[0], "weight_decay": settings.weight_decay},
                {"params": ranges, "lr": self._rates[2]},
            ],
            betas=(0.5, 0.999),
            fused=True,
        )
        self.scale_optimizer = torch.optim.SGD(
            [{"params": scales}], lr=self._rates[1], momentum=settings.scale_momentum, fused=True
        )
        self.steering = Steering(settings.target_gflops_ratio, steps) if settings.target_gflops_ratio else None
        self._rules = Rules.of(settings)
        self._dense = teacher.graph.macs(teacher.graph.all_alive())
        self._cosines = sum(self._shape(k) for k in range(steps)) or 1.0
        self._finite: Tensor | None = None

    def share(self) -> float:
        """Share of the teacher's multiply-adds that is alive."""
        return self.teacher.graph.macs(self.alive) / self._dense

    def run_step(self, *batches: Batch) -> dict[str, Tensor]:
        """One step of all players; returns the value of every term (tensors: no waiting for the device).

        Args:
            batches: this process's pictures of the step, in equal parts that go through the networks one after the
                other and whose gradients are averaged, as those of as many processes are.
        """
        settings, critic = self.settings, self.adversary.network
        shape = self._shape(self.step)
        for group, rate in zip(self.weight_optimizer.param_groups, (self._rates[0], self._rates[2]), strict=True):
            group["lr"] = rate * shape
        self.scale_optimizer.param_groups[0]["lr"] = self._rates[1] * shape
        critic.requires_grad_(False)  # its gradient is not wanted in the student's step
        self.weight_optimizer.zero_grad(set_to_none=True)
        self.scale_optimizer.zero_grad(set_to_none=True)
        mean_squares = self.distillation.mean_squares(batches)
        fakes, found, totals = [], [], []
        for batch in batches:
            with record_features(self.network, self.teacher.taps) as features, self._autocast():
                fake = self._player(batch.inputs)
                terms = self.distillation.terms(fake, features, batch, mean_squares) | self._adversarial(fake, batch)
            total = torch.stack([weight * value for weight, value in terms.values()]).sum()
            (total / len(batches)).backward()
            fakes.append(fake.detach())
            found.append({name: value.detach() for name, (_, value) in terms.items()})
            totals.append(total.detach())
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        if self.sparsity:
            self._shrink(shape)
        values = {name: mean_of([one[name] for one in found]) for name in found[0]}
        fake, wanted = _joined(fakes), _joined([batch.outputs for batch in batches])
        if settings.adversarial_weight:
            real = wanted if self.real is None else self._real(len(fake))
            values["discriminator"] = self.adversary.learn(real, fake.float(), self._autocast(), len(batches))
        self._watch(mean_of(totals), fake, wanted)
        self.step += 1
        return values

    def _real(self, count: int) -> Tensor:
        assert self.real is not None
        return self.team.part(self.real(self.step, count * self.team.size)).to(self.device)

    def _adversarial(self, fake: Tensor, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        settings, critic = self.settings, self.adversary.network
        if not settings.adversarial_weight:
            return {}
        if not settings.critic_feature_weight:
            scores = critic(fake)
            return {"adversarial": (settings.adversarial_weight, generator_loss(scores, settings.adversarial_loss))}
        scores, seen = critic_features(critic, fake)
        with torch.no_grad():
            _, wanted = critic_features(critic, batch.outputs)
        return {
            "adversarial": (settings.adversarial_weight, generator_loss(scores, settings.adversarial_loss)),
            "critic_feature": (settings.critic_feature_weight, critic_feature_loss(seen, wanted)),
        }

    def _shrink(self, shape: float) -> None:
        settings, graph, units = self.settings, self.teacher.graph, self.scaling.units
        if self.steering is not None:
            share, target = self.share(), self.steering.target
            threshold = self.steering.threshold(self.step, share)
            if share < NEAR_TARGET * target:  # one step must not take more than is left to take
                scores = {name: s * self.alive[name] for name, s in magnitudes(graph, self.network, units).items()}
                threshold = min(threshold, threshold_for_target(graph, scores, target, self._rules))
        else:
            # sparsity_weight is the budget taken off over the phase, so rho = budget / sum of learning rates.
            threshold = (settings.sparsity_weight or 0.0) * shape / self._cosines
        proximal_step_(graph, self.network, threshold, self.alive, self._rules, units, revive=settings.revive)

    def _shape(self, step: int) -> float:
        """Warm-up, then a cosine to zero."""
        return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def _watch(self, total: Tensor, fake: Tensor, wanted: Tensor) -> None:
        finite = torch.isfinite(total)
        self._finite = finite if self._finite is None else self._finite & finite
        if (self.step + 1) % CHECK_EVERY and self.step + 1 < self.steps:
            return
        if not self.team.all(self._finite):
            raise TrialFailed("nan", f"the losses stopped being numbers before step {self.step + 1}")
        spread, usual = (float(self.team.mean(p.float().std(dim=(2, 3)).mean())) for p in (fake, wanted))
        if spread < FLAT * usual:
            raise TrialFailed("collapse", f"all pictures had become one flat colour by step {self.step + 1}")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def state_dict(self) -> dict[str, Any]:
        """What the phase needs to go on, besides the network's and the discriminator's states."""
        return {
            "step": self.step,
            "weights": self.weight_optimizer.state_dict(),
            "scales": self.scale_optimizer.state_dict(),
            "maps": {name: value.detach() for name, value in self.distillation.maps.items()},
            "finite": self._finite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.step, self._finite = state["step"], state["finite"]
        self.weight_optimizer.load_state_dict(state["weights"])
        self.scale_optimizer.load_state_dict(state["scales"])
        with torch.no_grad():
            for name, value in state["maps"].items():
                self.distillation.maps[name].copy_(value)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Player(nn.Module):
    """The student, with all else that its gradient trains."""

    def __init__(self, network: nn.Module, maps: nn.Module) -> None:
        super().__init__()
        self.network, self.maps = network, maps

    def forward(self, pictures: Tensor) -> Tensor:
        return cast(Tensor, self.network(pictures))


def _split(
    network: nn.Module, graph: ChannelGraph
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights (with biases and shifts), prunable scales, ranges of quantizers."""
    scales = [norm.weight for norm in norms(network).values()]
    scales += [layer.gate for layer in slim_layers(network).values() if layer.gate is not None]
    own = {slot.module for group in graph.groups.values() for slot in group.slots if slot.role == "scale"}
    scales += [cast(nn.Parameter, tensor_of(network, name)) for name in sorted(own)]
    learned = (ActivationQuantizer, WeightQuantizer, OutputQuantizer)
    ranges = [m.change for m in network.modules() if isinstance(m, learned)]
    special = {id(p) for p in (*scales, *ranges)}
    return [p for p in network.parameters() if id(p) not in special], scales, ranges

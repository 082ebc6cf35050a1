"""Training a teacher on pairs: pix2pix (Isola et al., CVPR 2017), for whoever has pictures and what became of them.

The difference to the target, and least-squares adversarial losses of a discriminator that sees a picture beside what it
was made of; Adam with a rate that falls linearly to zero in the second half. The generator is a CycleGAN ResNet.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gs_search.data import DataSource, batch
from gs_search.errors import TrialFailed
from gs_search.networks.patchgan import PatchGan
from gs_search.networks.resnet import ResnetGenerator
from gs_search.slimming.cyclegan import OnStep, initialised, squared_distance

__all__ = ["PairedSettings", "train_on_pairs"]


@dataclass(frozen=True, kw_only=True)
class PairedSettings:
    """How a teacher is trained on pairs. The rate is five times the paper's, for a hundredth of its steps."""

    difference_weight: float = 100.0
    """Weight of the mean absolute difference to the target, as in the paper."""
    learning_rate: float = 1e-3
    """Adam's, of both networks, for the first half of the steps."""
    batch_size: int = 4
    """Pairs a step."""
    initial_std: float = 0.02
    """Standard deviation of the initial weights."""


def train_on_pairs(
    data: DataSource,
    *,
    width: int,
    blocks: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
    settings: PairedSettings | None = None,
) -> ResnetGenerator:
    """Train a generator from the sources of ``data`` to their targets.

    The same seed gives the same weights on a CPU with one thread.

    Args:
        data: of kind ``pairs``: source and target of one number belong together.
        width: channels of the generator's first layer; the discriminator has twice as many.
        blocks: residual blocks of the generator.
        steps: training steps.
        seed: decides initial weights, order and crops of the pictures.
        device: where to train.
        on_step: called after each step with its number, from 1, and the losses.
        settings: the rest, pix2pix's by default.

    Returns:
        The generator in evaluation mode, on ``device``.

    Raises:
        TrialFailed: cause ``nan``, when a loss is no longer finite.
    """
    settings = settings or PairedSettings()
    sources, targets = data.source("train"), data.target("train")
    assert data.kind == "pairs" and targets is not None, data.kind
    chance, order = (torch.Generator().manual_seed(seed) for _ in range(2))
    game = _Game(width, blocks, settings, chance, torch.device(device))
    for step in range(1, steps + 1):
        chosen = torch.randint(len(sources), (settings.batch_size,), generator=order).tolist()
        source, target = (batch(pictures, chosen, step).to(device) for pictures in (sources, targets))
        losses = game.step(source, target, settings.learning_rate * min(1.0, 2.0 * (steps - step + 1) / steps))
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise TrialFailed("nan", f"the teacher's training diverged at step {step} of {steps}")
        if on_step is not None:
            on_step(step, losses)
    return game.generator.eval()


class _Game:
    """Generator, discriminator and their optimizers."""

    def __init__(
        self, width: int, blocks: int, settings: PairedSettings, chance: torch.Generator, device: torch.device
    ) -> None:
        self.settings = settings
        made = initialised(ResnetGenerator(width, blocks, affine=True), settings.initial_std, chance)
        self.generator = made.to(device)
        self._judge = PatchGan(2 * width, inputs=6).initialise(chance, settings.initial_std).to(device)
        self._optimizer, self._judge_optimizer = (
            torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(0.5, 0.999))
            for network in (self.generator, self._judge)
        )

    def step(self, source: Tensor, target: Tensor, rate: float) -> dict[str, float]:
        """Train both on real pairs (N x 3 x H x W each)."""
        groups = (self._optimizer.param_groups, self._judge_optimizer.param_groups)
        for group in itertools.chain.from_iterable(groups):
            group["lr"] = rate
        painted = self.generator(source)
        self._judge.requires_grad_(False)
        deceit = squared_distance(self._judge(torch.cat([source, painted], 1)), 1.0)
        difference = F.l1_loss(painted, target)
        self._optimizer.zero_grad()
        (deceit + self.settings.difference_weight * difference).backward()
        self._optimizer.step()
        self._judge.requires_grad_(True)
        both = torch.cat([torch.cat([source, target], 1), torch.cat([source, painted.detach()], 1)])
        real, fake = self._judge(both).chunk(2)
        judge = (squared_distance(real, 1.0) + squared_distance(fake, 0.0)) / 2
        self._judge_optimizer.zero_grad()
        judge.backward()
        self._judge_optimizer.step()
        values = torch.stack([x.detach() for x in (deceit, difference, judge)]).tolist()
        return dict(zip(("adversarial", "difference", "discriminator"), values, strict=True))

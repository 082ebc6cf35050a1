"""Training a teacher: CycleGAN (Zhu et al., ICCV 2017) on two unpaired sets of pictures.

Least-squares adversarial losses, cycle consistency and identity, a buffer of past translations for the
discriminators, Adam with a rate that falls linearly to zero in the second half. Run as a module it makes the
teacher that this package ships; ``gs_search/assets/README.md`` has the command and what came out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from gs_search.data import DataSource, PictureSet, batch, open_data
from gs_search.errors import BadInput, DataError, TrialFailed
from gs_search.networks.architectures import Architecture
from gs_search.networks.patchgan import PatchGan
from gs_search.networks.resnet import ResnetGenerator
from gs_search.slimming.objective import ImageBuffer
from gs_search.system.files import draft_of

__all__ = ["CycleGanSettings", "OnStep", "initialised", "save_teacher", "squared_distance", "train_teacher"]

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class CycleGanSettings:
    """How a teacher is trained. The rate is five times the paper's, for a hundredth of its steps."""

    cycle_weight: float = 10.0
    """Weight of the difference between a picture and its translation there and back."""
    identity_weight: float = 2.0
    """Weight of the change to a picture that is in the target domain already; it keeps colours."""
    learning_rate: float = 1e-3
    """Adam's, of all four networks, for the first half of the steps."""
    batch_size: int = 4
    """Pictures of each domain a step; for equal time, more steps teach more than larger batches."""
    buffer_size: int = 50
    """Past translations that the discriminators may see again."""
    initial_std: float = 0.02
    """Standard deviation of the initial weights."""


def train_teacher(
    data: DataSource,
    *,
    width: int,
    blocks: int,
    image_px: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
    settings: CycleGanSettings | None = None,
) -> ResnetGenerator:
    """Train a generator from the source domain of ``data`` to its target domain, and the way back with it.

    The same seed gives the same weights on a CPU with one thread.

    Args:
        data: needs a target domain (kinds ``drawn`` and ``folders``).
        width: channels of the generator's first layer; the discriminators have twice as many.
        blocks: residual blocks of the generator.
        image_px: side of the pictures of ``data``.
        steps: training steps.
        seed: decides initial weights, order and crops of the pictures.
        device: where to train.
        on_step: called after each step with its number, from 1, and the losses of the forward direction.
        settings: the rest, CycleGAN's by default.

    Returns:
        The generator in evaluation mode, on ``device``.

    Raises:
        DataError: the data have no target domain.
        TrialFailed: cause ``nan``, when a loss is no longer finite.
    """
    settings = settings or CycleGanSettings()
    real_set = data.target("train")
    if real_set is None:
        raise DataError(f"data of kind {data.kind}: no target domain to train a teacher; name a checkpoint")
    assert data.image_px == image_px, (data.image_px, image_px)
    pair = _Pair(width, blocks, settings, seed, torch.device(device))
    order = torch.Generator().manual_seed(seed)
    sources, targets = data.source("train"), real_set
    for step in range(1, steps + 1):
        a = _draw(sources, settings.batch_size, order, step).to(device)
        b = _draw(targets, settings.batch_size, order, step).to(device)
        losses = pair.step(a, b, rate=settings.learning_rate * min(1.0, 2.0 * (steps - step + 1) / steps))
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise TrialFailed("nan", f"the teacher's training diverged at step {step} of {steps}")
        if on_step is not None:
            on_step(step, losses)
    return pair.forward_generator.eval()


def _draw(pictures: PictureSet, count: int, order: torch.Generator, step: int) -> Tensor:
    indices = torch.randint(len(pictures), (count,), generator=order).tolist()
    return batch(pictures, indices, step)


class _Pair:
    """Both generators, both discriminators and their optimizers."""

    def __init__(self, width: int, blocks: int, settings: CycleGanSettings, seed: int, device: torch.device) -> None:
        self.settings = settings
        chance = torch.Generator().manual_seed(seed)
        self.forward_generator, self._backward_generator = (
            initialised(ResnetGenerator(width, blocks, affine=True), settings.initial_std, chance).to(device)
            for _ in range(2)
        )
        self._judge_a, self._judge_b = (
            PatchGan(2 * width).initialise(chance, settings.initial_std).to(device) for _ in range(2)
        )
        self._generators = nn.ModuleList([self.forward_generator, self._backward_generator])
        self._judges = nn.ModuleList([self._judge_a, self._judge_b])
        self._generator_optimizer, self._judge_optimizer = (
            torch.optim.Adam(nets.parameters(), settings.learning_rate, betas=(0.5, 0.999))
            for nets in (self._generators, self._judges)
        )
        self._buffer_a, self._buffer_b = (ImageBuffer(settings.buffer_size, chance) for _ in range(2))

    def step(self, a: Tensor, b: Tensor, rate: float) -> dict[str, float]:
        """Train the generators, then the discriminators, on real ``a`` and ``b`` (N x 3 x H x W)."""
        optimizers = (self._generator_optimizer, self._judge_optimizer)
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
            group["lr"] = rate
        # Two passes instead of four: norms are per picture, so that a batch of both is the same.
        fake_b, same_b = self.forward_generator(torch.cat([a, b])).split([len(a), len(b)])
        fake_a, same_a = self._backward_generator(torch.cat([b, a])).split([len(b), len(a)])
        cycle = F.l1_loss(self._backward_generator(fake_b), a) + F.l1_loss(self.forward_generator(fake_a), b)
        identity = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
        self._judges.requires_grad_(False)
        deceit = squared_distance(self._judge_b(fake_b), 1.0)
        loss = deceit + squared_distance(self._judge_a(fake_a), 1.0)
        loss = loss + self.settings.cycle_weight * cycle + self.settings.identity_weight * identity
        self._generator_optimizer.zero_grad()
        loss.backward()
        self._generator_optimizer.step()
        self._judges.requires_grad_(True)

        past_a, past_b = self._buffer_a.swap(fake_a.detach()), self._buffer_b.swap(fake_b.detach())
        judged_a = self._judge_a(torch.cat([a, past_a])).split([len(a), len(past_a)])
        judged_b = self._judge_b(torch.cat([b, past_b])).split([len(b), len(past_b)])
        # Halved, as CycleGAN does, which slows the discriminators down against the generators.
        judge_b = (squared_distance(judged_b[0], 1.0) + squared_distance(judged_b[1], 0.0)) / 2
        judge = judge_b + (squared_distance(judged_a[0], 1.0) + squared_distance(judged_a[1], 0.0)) / 2
        self._judge_optimizer.zero_grad()
        judge.backward()
        self._judge_optimizer.step()
        names = ("adversarial", "cycle", "identity", "discriminator")
        values = torch.stack([x.detach() for x in (deceit, cycle, identity, judge_b)]).tolist()
        return dict(zip(names, values, strict=True))


def squared_distance(scores: Tensor, truth: float) -> Tensor:
    """Least-squares GAN: mean squared distance of scores of any shape to one number."""
    return (scores - truth).square().mean()


def initialised(network: ResnetGenerator, std: float, chance: torch.Generator) -> ResnetGenerator:
    """Draw all convolutions from N(0, std) with zero biases; returns the network."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std, generator=chance)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def save_teacher(path: Path, generator: ResnetGenerator, architecture: Architecture, **notes: object) -> None:
    """Write a generator as safetensors that ``load_generator`` reads; ``notes`` go into its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    metadata = {"architecture": json.dumps(architecture.to_json())}
    metadata |= {name: json.dumps(value) for name, value in notes.items()}
    try:
        with draft_of(path) as draft:
            save_file(tensors, draft, metadata)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from None


@dataclass(frozen=True)
class _DrawnData:
    """The data that the shipped teacher is trained on."""

    train: int = 1024
    kind: Literal["drawn"] = "drawn"
    path: None = None
    side: None = None
    val: int = 2
    test: int = 0
    reference: int = 2


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m gs_search.slimming.cyclegan", description="Train a teacher on drawn horses and zebras."
    )
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    for name, default in (("width", 16), ("blocks", 3), ("image-px", 64), ("steps", 3000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    options = parser.parse_args(arguments)
    start = time.process_time()

    def report(step: int, losses: dict[str, float]) -> None:
        if step % 20 == 0:
            line = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"{step}/{options.steps}  {time.process_time() - start:.0f} s  {line}", flush=True)

    torch.set_num_threads(1)
    config = _DrawnData()
    generator = train_teacher(
        open_data(config, options.image_px, options.seed),
        width=options.width,
        blocks=options.blocks,
        image_px=options.image_px,
        steps=options.steps,
        seed=options.seed,
        on_step=report,
    )
    architecture = Architecture("cyclegan_resnet", options.width, options.blocks)
    training = {name: getattr(options, name) for name in ("steps", "seed", "image_px")}
    save_teacher(options.out, generator, architecture, data="drawn", training=training)


if __name__ == "__main__":
    _main(sys.argv[1:])

"""A training step as the public code of GAN Slimming computes it, in plain torch and without this package's slimming.

What costs time there costs time here: VGG16's features of student and teacher in every step, one forward pass of
the discriminator for each kind of picture, gradients of the discriminator computed and thrown away in the
generator's step, per-tensor weight ranges fetched with ``.item()`` in every forward pass. Numbers of that code:
distillation weight 20, style weight 1e5, LSGAN on the mean of the patch map, activations clamped to [0, 4] with
2^8 + 1 codes. Written from the description of its behaviour; none of its lines are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ReferenceRates", "ReferenceStep", "fake_quantize", "vgg16_stages"]

CUTS = (4, 9, 16, 23)
"""Where torchvision's VGG16 has just passed relu1_2, relu2_2, relu3_3 and relu4_3."""

STYLE_WEIGHT = 1e5
DISTILL_WEIGHT = 20.0
BUFFER = 50
ACTIVATION_RANGE = 4.0
BITS = 8


def vgg16_stages(seed: int) -> list[nn.Sequential]:
    """VGG16 up to relu4_3 in four stages, with seeded random weights: time and equality need no others."""
    from torchvision.models import vgg16  # type: ignore[import-untyped]

    torch.manual_seed(seed)
    layers = vgg16(weights=None).features.requires_grad_(False).eval()
    return [layers[first:end] for first, end in zip((0, *CUTS), CUTS, strict=False)]


@dataclass(frozen=True, kw_only=True)
class ReferenceRates:
    """Learning rates and their company; the defaults are the reference code's."""

    weights: float = 1e-5
    scales: float = 0.1
    discriminator: float = 1e-5
    momentum: float = 0.5
    weight_decay: float = 1e-3
    discriminator_weight_decay: float = 1e-3
    rho: float = 0.01


class ReferenceStep:
    """The three players with their optimizers; ``run`` is one step.

    Args:
        student: a ResNet generator; changed in place.
        discriminator: N x 3 x H x W to a patch map; changed in place.
        stages: of ``vgg16_stages``.
        rates: of the three optimizers.
        patches_first: average the patch map before the loss, as the reference code does (else after the square).
        bf16: whether the networks run under autocast (the reference code's do not).
    """

    def __init__(
        self,
        student: nn.Module,
        discriminator: nn.Module,
        stages: list[nn.Sequential],
        rates: ReferenceRates,
        *,
        patches_first: bool = True,
        bf16: bool = False,
    ) -> None:
        self.student, self.discriminator, self.stages, self.rates = student, discriminator, stages, rates
        self.patches_first, self.bf16 = patches_first, bf16
        norms = {n: m for n, m in student.named_modules() if isinstance(m, nn.InstanceNorm2d)}
        scales = [norm.weight for norm in norms.values()]
        # The residual stream keeps its width: neither the second norm of a block nor that of the last strided
        # convolution is thresholded.
        self.prunable = [m.weight for n, m in norms.items() if n != "down.4" and not n.endswith("branch.6")]
        special = {id(scale) for scale in scales}
        self.weight_optimizer = torch.optim.Adam(
            [p for p in student.parameters() if id(p) not in special],
            lr=rates.weights,
            betas=(0.5, 0.999),
            weight_decay=rates.weight_decay,
        )
        self.scale_optimizer = torch.optim.SGD(scales, lr=rates.scales, momentum=rates.momentum)
        self.discriminator_optimizer = torch.optim.Adam(
            discriminator.parameters(),
            lr=rates.discriminator,
            betas=(0.5, 0.999),
            weight_decay=rates.discriminator_weight_decay,
        )
        self.buffer: list[Tensor] = []
        self.dice = torch.Generator().manual_seed(0)

    def run(self, inputs: Tensor, teacher: Tensor, *, share: float = 1.0, discriminator_share: float = 1.0) -> Any:
        """One step on N x 3 x H x W inputs and the teacher's pictures of them, both in [-1, 1].

        Args:
            share: of the learning rates of the student, by the schedule.
            discriminator_share: of the discriminator's.

        Returns:
            the terms of the losses: ``content``, ``style``, ``adversarial``, ``discriminator``.
        """
        rates = self.rates
        self.weight_optimizer.param_groups[0]["lr"] = rates.weights * share
        self.scale_optimizer.param_groups[0]["lr"] = rates.scales * share
        self.discriminator_optimizer.param_groups[0]["lr"] = rates.discriminator * discriminator_share
        with self._autocast():
            fake = self.student(inputs)
            scores = self.discriminator(fake)
        content, style = self._distance(fake.float(), teacher)
        adversarial = F.mse_loss(*self._against(scores, 1.0))
        loss = DISTILL_WEIGHT * (content + STYLE_WEIGHT * style) + adversarial
        self.weight_optimizer.zero_grad()
        self.scale_optimizer.zero_grad()
        loss.backward()  # the discriminator's gradients with it, for nothing
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        with torch.no_grad():
            for scale in self.prunable:
                scale.copy_(scale.sign() * (scale.abs() - rates.rho * rates.scales * share).clamp_min(0.0))

        self.discriminator_optimizer.zero_grad()
        with self._autocast():
            real_scores = self.discriminator(teacher)
            fake_scores = self.discriminator(self._replayed(fake.detach().float()))
        real, old = F.mse_loss(*self._against(real_scores, 1.0)), F.mse_loss(*self._against(fake_scores, 0.0))
        discriminator = 0.5 * (real + old)
        discriminator.backward()
        self.discriminator_optimizer.step()
        terms = {"content": content, "style": style, "adversarial": adversarial, "discriminator": discriminator}
        return {name: value.item() for name, value in terms.items()}

    def _distance(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Content and style: both pictures go through VGG16, every time. Pictures are mapped to [0, 1] only."""
        with self._autocast():
            ours, theirs = self._features(student), self._features(teacher)
        content = F.l1_loss(ours[0].float(), theirs[0].float())
        style = torch.stack([F.mse_loss(_gram(a.float()), _gram(b.float())) for a, b in zip(ours, theirs, strict=True)])
        return content, style.sum()

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x, features = (pictures + 1) / 2, []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def _against(self, scores: Tensor, target: float) -> tuple[Tensor, Tensor]:
        scores = scores.float()
        if self.patches_first:
            scores = scores.mean(dim=(1, 2, 3))
        return scores, torch.full_like(scores, target)

    def _replayed(self, batch: Tensor) -> Tensor:
        answer = []
        for picture in batch:
            if len(self.buffer) < BUFFER:
                self.buffer.append(picture.clone())
                answer.append(picture)
            elif torch.rand((), generator=self.dice) < 0.5:
                place = int(torch.randint(BUFFER, (), generator=self.dice))
                answer.append(self.buffer[place])
                self.buffer[place] = picture.clone()
            else:
                answer.append(picture)
        return torch.stack(answer)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)


def _gram(features: Tensor) -> Tensor:
    """N x C x h x w to N x C x C inner products over C * h * w."""
    count, channels, height, width = features.shape
    flat = features.view(count, channels, height * width)
    return flat @ flat.transpose(1, 2) / (channels * height * width)


def fake_quantize(student: nn.Module) -> nn.Module:
    """Give every convolution the reference code's fake quantization, in place: all weights, all inputs but pixels."""
    first = True
    for module in student.modules():
        if type(module) in (nn.Conv2d, nn.ConvTranspose2d):
            module.__class__ = _QuantConv2d if isinstance(module, nn.Conv2d) else _QuantConvTranspose2d
            cast(Any, module).pixels = first
            first = False
    return student


class _RoundWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        largest = weight.abs().max().item()  # one range a tensor, fetched to Python in every pass
        levels = 2 ** (BITS - 1) - 1
        return torch.round(weight / largest * levels) / levels * largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _RoundActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        levels = 2**BITS
        return torch.round(x.clamp(0, ACTIVATION_RANGE) / ACTIVATION_RANGE * levels) / levels * ACTIVATION_RANGE

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * ((x >= 0) & (x <= ACTIVATION_RANGE))


def _rounded(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x if module.pixels else cast(Tensor, _RoundActivation.apply(x))
    return x, cast(Tensor, _RoundWeight.apply(module.weight))


class _QuantConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        x, weight = _rounded(self, x)
        return self._conv_forward(x, weight, self.bias)


class _QuantConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x, weight = _rounded(self, x)
        padding: Any = self.output_padding
        stride: Any = self.stride
        return F.conv_transpose2d(x, weight, self.bias, stride, cast(Any, self.padding), padding)

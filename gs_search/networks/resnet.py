"""CycleGAN's ResNet generator (Zhu et al., ICCV 2017; Johnson et al., ECCV 2016), and its popular relatives.

7x7 stem, two strided convolutions, residual blocks, two transposed convolutions, 7x7 head with tanh. Every
convolution but the last is followed by a norm: official checkpoints have InstanceNorm without scales, GAN Slimming
needs affine norms (``gs_search.slimming`` adds the missing scales itself), pix2pix's has BatchNorm.

CUT (Park et al., ECCV 2020) strides and enlarges by fixed binomial filters, PyTorch-GAN enlarges by repeated pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["NORMS", "PADDINGS", "UPSAMPLINGS", "Norm", "ResidualBlock", "ResnetGenerator", "make_norm"]

Norm = nn.BatchNorm2d | nn.InstanceNorm2d | nn.Identity

NORMS = ("instance", "batch", "none")
"""Norms by the reference code's names for them."""

PADDINGS: dict[str, Callable[[int], nn.Module]] = {
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "zero": lambda margin: nn.Identity(),  # the convolution itself pads
}
"""Margins of residual blocks by the reference code's names for them."""

UPSAMPLINGS = ("transposed", "nearest", "blur")
"""``transposed``: strided transposed convolutions (CycleGAN). ``nearest``: repeated pixels, then a convolution
(PyTorch-GAN). ``blur``: a fixed filter of 1 3 3 1, which is a bilinear enlargement, then a convolution (CUT)."""


def make_norm(kind: str, channels: int, *, affine: bool = True, eps: float = 1e-5) -> Norm:
    """A norm by its name in ``NORMS``."""
    if kind == "none":
        return nn.Identity()
    made = nn.BatchNorm2d if kind == "batch" else nn.InstanceNorm2d
    return made(channels, eps=eps, affine=affine)


class ResidualBlock(nn.Module):
    """``x + branch(x)`` with two padded 3x3 convolutions.

    Once all inner channels are pruned the branch is a constant per channel: extraction then replaces it by that
    constant (``constant``), so that the block is the identity where the constant is zero. The reference code emits
    ``2 x`` there.
    """

    def __init__(
        self,
        width: int,
        *,
        affine: bool = True,
        eps: float = 1e-5,
        norm: str = "instance",
        padding: str = "reflect",
        bias: bool = True,
    ) -> None:
        super().__init__()
        own = 1 if padding == "zero" else 0
        self.branch: nn.Module = nn.Sequential(
            PADDINGS[padding](1),
            nn.Conv2d(width, width, 3, padding=own, bias=bias),
            make_norm(norm, width, affine=affine, eps=eps),
            nn.ReLU(),
            PADDINGS[padding](1),
            nn.Conv2d(width, width, 3, padding=own, bias=bias),
            make_norm(norm, width, affine=affine, eps=eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.branch(x))

    @torch.no_grad()
    def constant(self) -> Tensor:
        """What the branch adds to each channel (C) when all its inner channels are dead."""
        assert isinstance(self.branch, nn.Sequential)
        conv, norm = cast(nn.Conv2d, self.branch[5]), self.branch[6]
        if isinstance(norm, nn.InstanceNorm2d):  # takes off any constant
            return norm.bias.clone()
        training, zeros = norm.training, conv.weight.new_zeros(1, conv.in_channels, 3, 3)
        norm.eval()
        added = norm(conv(zeros))[0, :, 0, 0]
        norm.train(training)
        return cast(Tensor, added)


class ResnetGenerator(nn.Module):
    """N x 3 x H x W in [-1, 1] to the same; H and W are multiples of 4.

    ``width=64, blocks=9`` is CycleGAN's at 256 px: 11.378 M weights and biases of convolutions (11,383,555
    parameters with GAN Slimming's 13 affine norms), 49.55 G multiply-adds in convolutions.

    Args:
        width: channels of the stem; the body has four times as many.
        blocks: residual blocks.
        affine: whether norms have scales and shifts.
        norm: a name of ``NORMS``.
        padding: of the residual blocks, a name of ``PADDINGS``; stem and head always reflect.
        bias: whether the convolutions before norms have biases; the head's always has one.
        antialias: CUT's way down: convolutions keep the size, and a fixed filter of 1 2 1 halves it behind them.
        upsampling: a name of ``UPSAMPLINGS``.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        *,
        affine: bool = True,
        norm: str = "instance",
        padding: str = "reflect",
        bias: bool = True,
        antialias: bool = False,
        upsampling: str = "transposed",
    ) -> None:
        super().__init__()

        def normed(channels: int) -> list[nn.Module]:
            return [make_norm(norm, channels, affine=affine), nn.ReLU()]

        def down(channels: int) -> list[nn.Module]:
            stride = 1 if antialias else 2
            conv = nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=1, bias=bias)
            # Two means of neighbours are the filter 1 2 1; without weights, no training can change it.
            blur: list[nn.Module] = [nn.ReflectionPad2d(1), nn.AvgPool2d(2, 1), nn.AvgPool2d(2, 2)]
            return [conv, *normed(2 * channels), *(blur if antialias else [])]

        def up(channels: int) -> list[nn.Module]:
            half = channels // 2
            if upsampling == "transposed":
                return [
                    nn.ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1, bias=bias),
                    *normed(half),
                ]
            enlarge = (
                nn.Upsample(scale_factor=2, mode="nearest")
                if upsampling == "nearest"
                else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            )
            return [enlarge, nn.Conv2d(channels, half, 3, padding=1, bias=bias), *normed(half)]

        w = width
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7, bias=bias), *normed(w))
        self.down = nn.Sequential(*down(w), *down(2 * w))
        self.body = nn.Sequential(
            *(ResidualBlock(4 * w, affine=affine, norm=norm, padding=padding, bias=bias) for _ in range(blocks))
        )
        self.up = nn.Sequential(*up(4 * w), *up(2 * w))
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.up(self.body(self.down(self.stem(x))))))

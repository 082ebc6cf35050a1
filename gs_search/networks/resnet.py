"""CycleGAN's ResNet generator (Zhu et al., ICCV 2017; Johnson et al., ECCV 2016).

7x7 stem, two strided convolutions, residual blocks, two transposed convolutions, 7x7 head with tanh. Every
convolution but the last is followed by an InstanceNorm; official checkpoints have plain ones, GAN Slimming
needs affine ones (``gs_search.slimming`` adds the missing scales itself).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["ResidualBlock", "ResnetGenerator"]


class ResidualBlock(nn.Module):
    """``x + branch(x)`` with two reflection-padded 3x3 convolutions.

    Once all inner channels are pruned the branch is a constant per channel: ``collapse`` then replaces it by
    that constant (the second norm's shift), so that the block is the identity where the shift is zero. The
    reference code emits ``2 x`` there.
    """

    def __init__(self, width: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.branch: nn.Module = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, eps=eps, affine=affine),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, eps=eps, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.branch(x))


class ResnetGenerator(nn.Module):
    """N x 3 x H x W in [-1, 1] to the same; H and W are multiples of 4.

    ``width=64, blocks=9`` is CycleGAN's at 256 px: 11.378 M weights and biases of convolutions (11,383,555
    parameters with GAN Slimming's 13 affine norms), 49.55 G multiply-adds in convolutions.
    """

    def __init__(self, width: int = 64, blocks: int = 9, *, affine: bool = True) -> None:
        super().__init__()

        def norm(channels: int) -> list[nn.Module]:
            return [nn.InstanceNorm2d(channels, affine=affine), nn.ReLU()]

        w = width
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), *norm(w))
        self.down = nn.Sequential(
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            *norm(2 * w),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),
            *norm(4 * w),
        )
        self.body = nn.Sequential(*(ResidualBlock(4 * w, affine=affine) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(4 * w, 2 * w, 3, stride=2, padding=1, output_padding=1),
            *norm(2 * w),
            nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1),
            *norm(w),
        )
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.up(self.body(self.down(self.stem(x))))))

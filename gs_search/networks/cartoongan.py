"""CartoonGAN's generator (Chen et al., CVPR 2018), as the authors released it for PyTorch.

It differs from CycleGAN's: an un-normalised convolution before every normalised one on the way down and up,
8 residual blocks, norms with eps 1e-9, and pictures in BGR order. Here the network takes and returns RGB, like
every generator of this package; the channel order is turned inside.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gs_search.networks.resnet import ResidualBlock

__all__ = ["CartoonGenerator"]

EPS = 1e-9


class CartoonGenerator(nn.Module):
    """N x 3 x H x W RGB in [-1, 1] to the same; H and W are multiples of 4.

    ``width=64, blocks=8``: 11,129,667 parameters, 54.383 G multiply-adds at 256 px.
    """

    def __init__(self, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        w = width

        def norm(channels: int) -> list[nn.Module]:
            return [nn.InstanceNorm2d(channels, eps=EPS, affine=True), nn.ReLU()]

        def down(channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
                *norm(2 * channels),
            ]

        def up(channels: int) -> list[nn.Module]:
            half = channels // 2
            return [
                nn.ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1),
                nn.Conv2d(half, half, 3, padding=1),
                *norm(half),
            ]

        self.stem = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), *norm(w))
        self.down = nn.Sequential(*down(w), *down(2 * w))
        self.body = nn.Sequential(*(ResidualBlock(4 * w, eps=EPS) for _ in range(blocks)))
        self.up = nn.Sequential(*up(4 * w), *up(2 * w))
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        bgr = self.head(self.up(self.body(self.down(self.stem(x.flip(1))))))
        return cast(Tensor, bgr.flip(1))

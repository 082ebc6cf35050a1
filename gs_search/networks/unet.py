"""pix2pix's U-Net generator (Isola et al., CVPR 2017), also one of CycleGAN's generators.

Strided convolutions halve the picture down to a point; transposed ones double it back, each reading also what
the way down had at its size. The reference code nests one block in the next; here the two ways are two lists, so
that a dependency graph sees plain concatenations.

The reference's activations work in place, which means that its skips carry what has passed a leaky ReLU. Ours
carry the same, on purpose, although the ReLU that reads a skip would make the same of the values before.

Evaluation is deterministic. Dropout, which pix2pix leaves on when it tests, has no weights and is left out.
BatchNorm uses its running statistics; pix2pix tests with the statistics of the one picture it is given, which is
what ``norm="instance"`` computes from the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gs_search.networks.resnet import make_norm

__all__ = ["UnetGenerator"]


class UnetGenerator(nn.Module):
    """N x 3 x H x W in [-1, 1] to the same; H and W are multiples of 2 ** ``downs``.

    ``width=64, downs=8`` is ``unet_256``: 54,413,955 parameters, 6.048 G multiply-adds in convolutions at 256 px
    (18.140 G where transposed ones are counted at their output size); ``downs=7`` is ``unet_128``. Pictures of
    other sizes fail at a concatenation, except that a single row or column beyond a multiple is lost.

    Args:
        width: channels after the first convolution; they double with each halving, up to eight times as many.
        downs: how many times the picture is halved, at least 2 (the reference code's least is 5).
        norm: ``batch`` (pix2pix), ``instance`` (CycleGAN) or ``none``.
        affine: whether norms have scales and shifts: pix2pix's have, CycleGAN's have none.
        bias: whether the convolutions before norms have biases: CycleGAN's have; None where norms have no shifts.
    """

    def __init__(
        self, width: int = 64, downs: int = 8, *, norm: str = "batch", affine: bool = True, bias: bool | None = None
    ) -> None:
        super().__init__()
        if downs < 2:
            raise ValueError(f"downs must be at least 2, not {downs}")
        widths = [width * min(2**level, 8) for level in range(downs)]
        bias = not affine if bias is None else bias

        def normed(channels: int) -> nn.Module:
            return make_norm(norm, channels, affine=affine)

        self.down = nn.ModuleList()
        for level, channels in enumerate(widths):
            conv = nn.Conv2d(widths[level - 1] if level else 3, channels, 4, stride=2, padding=1, bias=bias)
            # No norm at either end: not on the picture's own convolution, nor where one pixel may be all there is.
            if level == downs - 1:
                self.down.append(nn.Sequential(conv))
            elif level == 0:
                self.down.append(nn.Sequential(conv, nn.LeakyReLU(0.2)))
            else:
                self.down.append(nn.Sequential(conv, normed(channels), nn.LeakyReLU(0.2)))
        self.up = nn.ModuleList()
        for level in reversed(range(downs)):
            channels = widths[level] * (1 if level == downs - 1 else 2)
            if level:
                conv_up = nn.ConvTranspose2d(channels, widths[level - 1], 4, stride=2, padding=1, bias=bias)
                self.up.append(nn.Sequential(nn.ReLU(), conv_up, normed(widths[level - 1])))
            else:
                conv_up = nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1)
                self.up.append(nn.Sequential(nn.ReLU(), conv_up, nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for up, skip in zip(list(self.up)[1:], reversed(skips), strict=True):
            x = up(torch.cat([skip, x], 1))
        return x

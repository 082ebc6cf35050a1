"""The 70x70 PatchGAN discriminator of pix2pix and CycleGAN (Isola et al., CVPR 2017)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["PatchGan"]


class PatchGan(nn.Module):
    """N x 3 x H x W to N x 1 x h x w, one raw score for each patch (no sigmoid).

    ``width=64, layers=3`` with affine norms is the reference code's: 2,766,529 parameters. ``inputs=6`` judges a
    picture beside what it was made of.
    """

    def __init__(self, width: int = 64, layers: int = 3, *, affine: bool = True, inputs: int = 3) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for layer in range(1, layers + 1):
            wider = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            modules += [
                nn.Conv2d(channels, wider, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(wider, affine=affine),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        modules.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.model = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(x))

    def initialise(self, generator: torch.Generator, std: float = 0.02) -> PatchGan:
        """Draw all convolutions from N(0, std) with zero biases, as pix2pix does; returns itself."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data.normal_(0.0, std, generator=generator)
                if module.bias is not None:
                    module.bias.data.zero_()
        return self

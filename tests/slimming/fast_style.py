"""Engstrom's fast style transfer, written from the description of its weights: a generator as people have it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"


class Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=1e-3)


class Layer(nn.Module):
    """Convolution with TensorFlow's ``same`` padding, norm, and a ReLU where asked for."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.kernel, self.stride, self.relu = kernel, stride, relu
        self.conv, self.norm = nn.Conv2d(inputs, outputs, kernel, stride, bias=False), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length in (x.shape[3], x.shape[2]):
            whole = max((-(-length // self.stride) - 1) * self.stride + self.kernel - length, 0)
            pads += [whole // 2, whole - whole // 2]
        x = self.norm(self.conv(F.pad(x, pads)))
        return torch.relu(x) if self.relu else x


class Enlarge(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.ConvTranspose2d(inputs, outputs, 3, 2, bias=False), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        return torch.relu(self.norm(self.conv(x)[:, :, :height, :width]))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = Layer(channels, channels, 3), Layer(channels, channels, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.b(self.a(x)))


class FastStyle(nn.Module):
    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.stem = Layer(3, width, 9)
        self.down1, self.down2 = Layer(width, 2 * width, 3, 2), Layer(2 * width, 4 * width, 3, 2)
        self.body = nn.Sequential(*(Block(4 * width) for _ in range(blocks)))
        self.up1, self.up2 = Enlarge(4 * width, 2 * width), Enlarge(2 * width, width)
        self.head = Layer(width, 3, 9, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down2(self.down1(self.stem((x + 1) * 127.5)))
        y = self.head(self.up2(self.up1(self.body(x))))
        return ((150 * torch.tanh(y) + 127.5) / 127.5 - 1).clamp(-1, 1)


def fast_style(style: str) -> nn.Module:
    """The generator with the public weights of a style."""
    generator = FastStyle()
    generator.load_state_dict(torch.load(ASSETS / f"fast_style_{style}.pth", weights_only=True))
    return generator.eval()

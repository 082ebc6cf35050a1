"""The public generators in plain PyTorch, by the order of layers that their papers' code has; and files of them.

Written for the tests from the published layouts, without anything of the package: what is loaded has to paint the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]


class Down(nn.Module):
    """CUT's filter of 1 2 1 over every second pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        side = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (torch.outer(side, side) / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [1] * 4, mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class Up(nn.Module):
    """CUT's filter of 1 3 3 1 between the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        side = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (torch.outer(side, side) / 16).expand(channels, 1, 4, 4).clone())

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, [1] * 4, mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


class Resnet(nn.Module):
    """CycleGAN's (``block="conv_block"``), pix2pix's with batch norms and dropout, PyTorch-GAN's and CUT's."""

    def __init__(
        self, width: int = 8, blocks: int = 2, *, channels: tuple[int, int] = (3, 3), norm: str = "instance",
        bias: bool | None = None, padding: str = "reflect", dropout: bool = False, ways: str = "cyclegan",
        block: str = "conv_block", root: str = "model",
    ) -> None:  # fmt: skip
        super().__init__()
        bias = norm == "instance" if bias is None else bias
        make: Callable[[int], nn.Module] = {
            "instance": nn.InstanceNorm2d,
            "affine": lambda c: nn.InstanceNorm2d(c, affine=True),
            "batch": nn.BatchNorm2d,
            "none": lambda c: nn.Identity(),
        }[norm]
        pads: dict[str, list[nn.Module]] = {
            "reflect": [nn.ReflectionPad2d(1)], "replicate": [nn.ReplicationPad2d(1)], "zero": [],
        }  # fmt: skip

        def three(c: int) -> nn.Module:
            return nn.Conv2d(c, c, 3, padding=1 if padding == "zero" else 0, bias=bias)

        def branch(c: int) -> nn.Sequential:
            middle = [nn.Dropout(0.5)] if dropout else []
            first = [*pads[padding], three(c), make(c), nn.ReLU(True), *middle]
            return nn.Sequential(*first, *pads[padding], three(c), make(c))

        class Block(nn.Module):
            def __init__(self, c: int) -> None:
                super().__init__()
                self.add_module(block, branch(c))

            def forward(self, x: Tensor) -> Tensor:
                return x + getattr(self, block)(x)

        w = width
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], w, 7, bias=bias), make(w), nn.ReLU(True)]
        for c in (w, 2 * w):
            blur = ways in ("cut", "cut-down")
            conv = nn.Conv2d(c, 2 * c, 3, stride=1 if blur else 2, padding=1, bias=bias)
            layers += [conv, make(2 * c), nn.ReLU(True), *([Down(2 * c)] if blur else [])]
        layers += [Block(4 * w) for _ in range(blocks)]
        for c in (4 * w, 2 * w):
            if ways in ("cyclegan", "cut-down"):
                layers.append(nn.ConvTranspose2d(c, c // 2, 3, stride=2, padding=1, output_padding=1, bias=bias))
            else:
                enlarge = Up(c) if ways == "cut" else nn.Upsample(scale_factor=2)
                layers += [enlarge, nn.Conv2d(c, c // 2, 3, padding=1, bias=bias)]
            layers += [make(c // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(w, channels[1], 7), nn.Tanh()]
        self.add_module(root, nn.Sequential(*layers))
        self.root = root

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.root)(x)


class UnetLevel(nn.Module):
    """One level of pix2pix's U-Net around the next one; activations in place, as published."""

    def __init__(
        self, outer: int, inner: int, inside: nn.Module | None, norm: str, bias: bool, ends: tuple[int, int] | None
    ) -> None:
        super().__init__()
        make: Callable[[int], nn.Module] = {"batch": nn.BatchNorm2d, "none": lambda c: nn.Identity()}.get(
            norm, nn.InstanceNorm2d
        )
        doubled = inner * (1 if inside is None else 2)
        down = nn.Conv2d(ends[0] if ends else outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(doubled, ends[1] if ends else outer, 4, 2, 1, bias=bias or ends is not None)
        if ends:
            assert inside is not None
            self.model = nn.Sequential(down, inside, nn.ReLU(True), up, nn.Tanh())
        elif inside is None:
            self.model = nn.Sequential(nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, make(outer))
        else:
            layers = [nn.LeakyReLU(0.2, True), down, make(inner), inside, nn.ReLU(True), up, make(outer)]
            self.model = nn.Sequential(*layers)
        self.outermost = ends is not None

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)
        return y if self.outermost else torch.cat([x, y], 1)


class Unet(nn.Module):
    def __init__(
        self, width: int = 4, downs: int = 5, *, channels: tuple[int, int] = (3, 3), norm: str = "batch",
        bias: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        bias = norm == "instance" if bias is None else bias
        widths = [width * min(2**level, 8) for level in range(downs)]
        inside: UnetLevel | None = None
        for level in reversed(range(downs)):
            outer = widths[level - 1] if level else 0
            inside = UnetLevel(outer, widths[level], inside, norm, bias, None if level else channels)
        assert inside is not None
        self.model = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def settled(network: nn.Module) -> nn.Module:
    """Random weights of a size that paints something, and running statistics that matter; in evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.2, 2.0)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.3)
            elif tensor.dim() == 1 and name.endswith("weight"):
                tensor.normal_(1, 0.2)
            elif tensor.dim() == 4 and name.endswith("weight"):
                tensor.normal_(0, 0.1)
            elif name.endswith("bias"):
                tensor.normal_(0, 0.1)
    return network.eval()

"""AnimeGANv2's generator (Chen, Liu and Chen, ISICA 2019; version 2 of their code), as in its PyTorch port.

7x7 stem, two strided convolutions, inverted residual blocks with a depthwise convolution inside, two bilinear
enlargements, 1x1 head with tanh. Every convolution but the head's is followed by a norm over all channels and
pixels of a picture (a GroupNorm of one group, the original's LayerNorm).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["AnimeGenerator", "InvertedResidualBlock", "NormedConv"]

EXPANSION = 2
"""Inner channels of an inverted residual block for each of its input channels."""


class NormedConv(nn.Sequential):
    """Reflection padding, convolution, norm over the whole picture, leaky ReLU; a stride of 2 halves H and W."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        # left, right, top, bottom: where it strides, only the far sides are padded, as in the original
        margins = (0, 1, 0, 1) if stride == 2 else (kernel // 2,) * 4
        super().__init__(
            nn.ReflectionPad2d(margins) if any(margins) else nn.Identity(),
            nn.Conv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=bias),
            nn.GroupNorm(1, outputs),
            nn.LeakyReLU(0.2),
        )


class InvertedResidualBlock(nn.Module):
    """Widen by a 1x1 convolution, filter each channel by itself, narrow by a 1x1 convolution.

    The input is added where it has as many channels as the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = EXPANSION * inputs
        self.branch: nn.Module = nn.Sequential(
            NormedConv(inputs, inner, 1),
            NormedConv(inner, inner, groups=inner, bias=True),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.GroupNorm(1, outputs),
        )
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return cast(Tensor, x + y if self.residual else y)


class AnimeGenerator(nn.Module):
    """N x 3 x H x W in [-1, 1] to the same; H and W are multiples of 4.

    ``width=32, blocks=4``: 2,143,552 parameters, 26.285 G multiply-adds in convolutions at 256 px.

    Args:
        width: channels of the stem; the body has eight times as many.
        blocks: inverted residual blocks, of which the first one doubles the channels.
        align_corners: how the enlargements place their pixels. True in the port's network unless it is called
            otherwise, as its command line does; the weights do not tell.
    """

    def __init__(self, width: int = 32, blocks: int = 4, *, align_corners: bool = True) -> None:
        super().__init__()
        w = width

        def enlarge() -> nn.Module:
            return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)

        self.stem = NormedConv(3, w, 7)
        self.down = nn.Sequential(
            NormedConv(w, 2 * w, stride=2),
            NormedConv(2 * w, 2 * w),
            NormedConv(2 * w, 4 * w, stride=2),
            NormedConv(4 * w, 4 * w),
        )
        self.body = nn.Sequential(
            NormedConv(4 * w, 4 * w),
            *(InvertedResidualBlock(8 * w if block else 4 * w, 8 * w) for block in range(blocks)),
            NormedConv(8 * w, 4 * w),
        )
        self.up = nn.Sequential(
            enlarge(),
            NormedConv(4 * w, 4 * w),
            NormedConv(4 * w, 4 * w),
            enlarge(),
            NormedConv(4 * w, 2 * w),
            NormedConv(2 * w, 2 * w),
            NormedConv(2 * w, w, 7),
        )
        self.head = nn.Sequential(nn.Conv2d(w, 3, 1, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.up(self.body(self.down(self.stem(x))))))

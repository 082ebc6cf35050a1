"""Convolutions in sub-pixel form: the same numbers from kernels that integer runtimes have and fill.

A transposed convolution of stride s is one plain convolution with s * s times the outputs, whose channels are then
dealt out to the s x s pixels of each place (Shi et al., CVPR 2016). A wide convolution with few outputs, as the first
and the last one, wastes the lanes of a vector unit; with stride r and r * r times the outputs it computes the same from
a kernel that is r - 1 wider, with zeros. Both are exact: taps of the old kernel are put in other places, none changes,
so that codes of quantized weights move too. Every format is exported from these modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SubPixelConv2d", "Taps", "kernel_form", "wide_factor"]

WIDE = 5
"""Sides of a kernel from which a convolution with few outputs matters."""

FACTORS = {4: 4, 16: 2}
"""Most outputs to sub-pixels a side: measured, with int8 kernels of 16 lanes (``README.md`` here)."""


@dataclass(frozen=True)
class Taps:
    """Where the taps of a kernel go: for rows and columns, for each of r phases, the old tap of each new one, or -1."""

    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]

    @property
    def factor(self) -> int:
        """r."""
        return len(self.rows)

    def deal(self, kernel: Tensor) -> Tensor:
        """O x I x k x k' to (O * r * r) x I x K x K', of the same type."""
        padded = F.pad(kernel, (0, 1, 0, 1))  # where -1 points to
        phases = [padded[:, :, list(row)][..., list(column)] for row in self.rows for column in self.columns]
        return torch.stack(phases, dim=1).flatten(0, 1)


class SubPixelConv2d(nn.Module):
    """A convolution, the dealing out of its channels, and a crop where the picture does not divide.

    Attributes:
        conv: N x C_in x H x W to N x (C_out * r * r) x h x w, without padding of its own.
        taps: how its kernel came about.
        pads: zeros before it: left, right, top, bottom; negative ones crop.
        excess: rows and columns too many at the end.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.ConvTranspose2d,
        weight: Tensor,
        bias: Tensor | None,
        taps: Taps,
        *,
        stride: int,
        pads: tuple[int, int, int, int],
        excess: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        dealt = taps.deal(kernel_form(layer, weight))
        self.conv = nn.utils.skip_init(
            nn.Conv2d,
            layer.in_channels,
            len(dealt),
            (dealt.shape[2], dealt.shape[3]),
            stride=stride,
            groups=layer.groups,
            bias=bias is not None,
            dtype=weight.dtype,
        )
        self.taps, self.pads, self.excess = taps, pads, excess
        with torch.no_grad():
            self.conv.weight.copy_(dealt)
            if bias is not None:
                self.conv.bias.copy_(bias.repeat_interleave(taps.factor**2))

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pads):
            x = F.pad(x, self.pads)
        y = F.pixel_shuffle(self.conv(x), self.taps.factor)
        rows, columns = self.excess
        if rows or columns:
            y = y[:, :, : y.shape[2] - rows, : y.shape[3] - columns]
        return y

    @classmethod
    def of_transposed(cls, layer: nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None) -> SubPixelConv2d | None:
        """Rewrite a transposed convolution with a weight of its shape; None for dilated or unevenly strided ones."""
        stride, across = layer.stride
        if across != stride or stride < 2 or tuple(layer.dilation) != (1, 1):
            return None
        padding = cast("tuple[int, int]", layer.padding)
        sides = zip(layer.kernel_size, padding, layer.output_padding, strict=True)
        rows, columns = (_phases(kernel, stride, margin, extra) for kernel, margin, extra in sides)
        return cls(
            layer,
            weight,
            bias,
            Taps(rows.taps, columns.taps),
            stride=1,
            pads=(columns.before, columns.after, rows.before, rows.after),
            excess=(rows.excess, columns.excess),
        )

    @classmethod
    def of_wide(cls, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, factor: int) -> SubPixelConv2d | None:
        """Rewrite a convolution of stride 1 whose output sides ``factor`` divides; None where that is not exact."""
        if tuple(layer.stride) != (1, 1) or tuple(layer.dilation) != (1, 1) or layer.groups != 1:
            return None
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            return None
        rows, columns = (_shifted(kernel, factor) for kernel in layer.kernel_size)
        top, left = layer.padding
        return cls(layer, weight, bias, Taps(rows, columns), stride=factor, pads=(left, left, top, top))


def wide_factor(layer: nn.Module) -> int:
    """Into how many sub-pixels a side a convolution is worth dealing out; 1 where it fills a vector unit as it is."""
    if not isinstance(layer, nn.Conv2d) or min(layer.kernel_size) < WIDE:
        return 1
    return next((factor for outputs, factor in FACTORS.items() if layer.out_channels <= outputs), 1)


def kernel_form(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight as C_out x (C_in / groups) x k x k', whatever the kind of its layer."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return weight
    inputs, each, *kernel = weight.shape
    return weight.view(layer.groups, inputs // layer.groups, each, *kernel).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class _Side:
    taps: tuple[tuple[int, ...], ...]
    before: int
    after: int
    excess: int


def _phases(kernel: int, stride: int, padding: int, extra: int) -> _Side:
    """Along one side of a transposed convolution: taps of each phase, padding before and after, pixels too many.

    Output s * q + phase reads input q + offset through the tap phase + padding - s * offset.
    """
    reached = (divmod(phase + padding - tap, stride) for phase in range(stride) for tap in range(kernel))
    offsets = sorted(offset for offset, rest in reached if rest == 0)
    low, high = offsets[0], offsets[-1]
    taps = tuple(
        tuple(
            tap if 0 <= (tap := phase + padding - stride * offset) < kernel else -1 for offset in range(low, high + 1)
        )
        for phase in range(stride)
    )
    # The output has s * (H - 1) + k - 2 p + extra pixels, thus H + more places.
    beyond = kernel - 2 * padding + extra - stride
    more = -(-beyond // stride)
    return _Side(taps, -low, more + high, stride * more - beyond)


def _shifted(kernel: int, factor: int) -> tuple[tuple[int, ...], ...]:
    """Along one side of a plain convolution: in each phase the whole kernel, one place further."""
    places = range(kernel + factor - 1)
    return tuple(
        tuple(place - phase if 0 <= place - phase < kernel else -1 for place in places) for phase in range(factor)
    )

"""What an integer device keeps of a convolution's output: 256 codes for each channel, calibrated and then learned.

Each channel has a step and a whole number as the code of zero, which both the training (``quantize: deploy``) and the
export use: what was trained is what runs. (One signed grid for a whole output costs 4 to 5 dB more.) Where a layer
is all that reads an output, its input's grid is the output's, and there is none here.

Step and code of zero are learned together, so that both ends of the range may move: the step by the gradient of LSQ
(Esser et al., ICLR 2020), the code of zero by that of LSQ+ (Bhalgat et al., CVPR workshops 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["OUTPUT_BITS", "OutputGrid", "OutputQuantizer", "best_grid", "count_values", "output_grid"]

OUTPUT_BITS = 8

TOP = 255
"""The largest code."""

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
"""Shares of the way from the mean to the ends of a channel's range that are tried."""

TRIED = 8
"""Pairs of shares whose rounding error is really added up: those that promise least."""

BINS = 4_096
"""Parts of a channel's range in which its values are counted: 16 for each code."""

SAMPLE = 65_536
"""Values of a channel that are counted; its ends are those of all."""

CLIP = 0.7
BEYOND = 0.0005
"""Share of the ends that the calibration ``clip`` keeps, share of the values that ``quantile`` cuts off."""

FARTHEST = 128
"""By how many of its own widths a range may lie away from 0, so that codes of zero stay 16-bit numbers."""


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """``value = step * (code - zero)`` for each channel, codes 0 to 255.

    Attributes:
        step: C, float32, above 0.
        zero: C, whole numbers; inside 0..255 unless a norm behind takes every constant off again.
    """

    step: Tensor
    zero: Tensor

    def codes(self, y: Tensor) -> Tensor:
        """Bytes of ``y``, N x C x H x W."""
        step, zero = self._as(y)
        return (torch.round(y / step) + zero).clamp(0, TOP).to(torch.uint8)

    def round(self, y: Tensor) -> Tensor:
        """The values that the codes of ``y`` stand for, in ``y``'s type."""
        step, zero = self._as(y)
        return (y / step).round_().clamp_(-zero, TOP - zero).mul_(step).to(y.dtype)

    def _as(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Step and zero to go with ``y``; in bfloat16 they would be off by more than the codes are apart."""
        dtype = torch.promote_types(y.dtype, torch.float32)
        return self.step.to(dtype).view(1, -1, 1, 1), self.zero.to(dtype).view(1, -1, 1, 1)

    @classmethod
    def of_range(cls, low: Tensor, high: Tensor, *, centred: bool) -> OutputGrid:
        """The finest grid that reaches from ``low`` to ``high`` (C each).

        Args:
            centred: whether the range may lie anywhere, because an instance norm follows; else it is widened to
                hold 0.
        """
        if not centred:
            low, high = low.clamp(max=0), high.clamp(min=0)
        width = (high - low).double()
        # A channel that never changes needs no steps, but a division by them.
        largest = torch.maximum(low.abs(), high.abs()).double()
        floor = torch.maximum(width.max() * 1e-6, largest / FARTHEST)
        step = (torch.maximum(width, floor.clamp_min(1e-12)) / TOP).float()
        zero = torch.round(-low.double() / step.double()).float()
        return cls(step, zero if centred else zero.clamp(0, TOP))


class OutputQuantizer(nn.Module):
    """An output, N x C x H x W, to its nearest of 256 codes with a grid for each channel.

    ``change`` is what is learned, 2 x C: of the step, as a share of it; of the code of zero, as a share of 255.

    Args:
        grid: where to begin.
        centred: whether the codes of zero may leave 0..255, because an instance norm follows.
    """

    base: Tensor
    zero_base: Tensor
    bits = OUTPUT_BITS

    def __init__(self, grid: OutputGrid, *, centred: bool) -> None:
        super().__init__()
        self.centred = centred
        self.register_buffer("base", grid.step.detach().clone())
        self.register_buffer("zero_base", grid.zero.detach().clone().to(grid.step.dtype))
        self.change = nn.Parameter(torch.zeros(2, len(grid.step), device=grid.step.device))

    @classmethod
    def blank(cls, channels: int, *, centred: bool) -> OutputQuantizer:
        """One whose numbers are yet to be filled in."""
        return cls(OutputGrid(torch.ones(channels), torch.zeros(channels)), centred=centred)

    @property
    def step(self) -> Tensor:
        """Size of one code of each channel, always positive."""
        return self.base * (1 + self.change[0].clamp(-0.9, 9.0))

    @property
    def zero(self) -> Tensor:
        """Code of the value 0 of each channel, a whole number."""
        return self._place().round()

    @property
    def grid(self) -> OutputGrid:
        """What it rounds to now."""
        return OutputGrid(self.step.detach(), self.zero.detach())

    def codes(self, y: Tensor) -> Tensor:
        """Codes of ``y``, 0 to 255, as bytes."""
        return self.grid.codes(y)

    def forward(self, y: Tensor) -> Tensor:
        """Fake quantization: the values that the codes stand for, in ``y``'s type."""
        if not torch.is_grad_enabled():
            return self.grid.round(y)
        step, place = self.step.view(1, -1, 1, 1), self._place().view(1, -1, 1, 1)
        return cast(Tensor, _RoundToGrid.apply(y, step, place))

    @torch.no_grad()
    def settle(self) -> None:
        """Fold what was learned into ``base`` and ``zero_base``, which are what is stored."""
        step, zero = self.step, self.zero
        self.base.copy_(step)
        self.zero_base.copy_(zero)
        self.change.zero_()

    def keep(self, channels: Tensor) -> None:
        """Drop all channels but these."""
        self.base, self.zero_base = self.base[channels].clone(), self.zero_base[channels].clone()
        self.change = nn.Parameter(self.change.data[:, channels].clone())

    def _place(self) -> Tensor:
        low, high = (-TOP * FARTHEST, TOP * FARTHEST) if self.centred else (0, TOP)
        return (self.zero_base + TOP * self.change[1]).clamp(low, high)


class _RoundToGrid(torch.autograd.Function):
    """``clamp(round(y / step), -zero, 255 - zero) * step`` with ``zero`` the rounded ``place``.

    The gradient passes rounding as if it were not there, and stops outside the range. With v = y / step, the step's is
    round(v) - v inside the range and the bound outside; that of the place is -step outside, where the range's end moves
    with it, and 0 inside.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, step: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(y, step, place)
        zero = place.round()
        return (y / step).round_().clamp_(-zero, TOP - zero).mul_(step).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        y, step, place = ctx.saved_tensors
        zero = place.round()
        scaled = y / step
        clamped = scaled.clamp(-zero, TOP - zero)
        inside = clamped == scaled
        of_step = of_place = None
        if ctx.needs_input_grad[1]:
            error = clamped.round_().sub_(scaled.mul_(inside))
            of_step = error.mul_(gradient).sum_to_size(step.shape)
        if ctx.needs_input_grad[2]:
            of_place = (gradient * ~inside).to(step.dtype).sum_to_size(place.shape) * -step
        return gradient * inside, of_step, of_place


def output_grid(y: Tensor, *, centred: bool, method: str = "mse") -> OutputGrid:
    """Calibrate a grid on outputs.

    Args:
        y: N x C x H x W.
        centred: see ``OutputGrid.of_range``.
        method: see ``best_grid``.
    """
    low, high = y.amin(dim=(0, 2, 3)).float(), y.amax(dim=(0, 2, 3)).float()
    # An odd stride, because a transposed convolution writes its even and its odd places with other weights.
    stride = 2 * (max(1, y.numel() // (y.shape[1] * SAMPLE)) // 2) + 1
    return best_grid(low, high, count_values(y.flatten(2)[:, :, ::stride], low, high), centred=centred, method=method)


def count_values(y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How many values of each channel (dimension 1) lie in each of ``BINS`` equal parts of its range: C x BINS."""
    channels = y.shape[1]
    rows = y.transpose(0, 1).flatten(1)
    width = ((high - low) / BINS).clamp_min(torch.finfo(torch.float32).tiny)
    place = ((rows - low[:, None]) / width[:, None]).long().clamp_(0, BINS - 1)
    place += torch.arange(channels, device=y.device)[:, None] * BINS
    return torch.bincount(place.flatten(), minlength=channels * BINS).view(channels, BINS)


def best_grid(low: Tensor, high: Tensor, counts: Tensor, *, centred: bool, method: str = "mse") -> OutputGrid:
    """The grid of each channel from the ends of its range (C each) and ``count_values``.

    Args:
        method: ``mse``, least squared rounding error among ranges that cut off none, one or both ends; ``max``, the
            whole range; ``clip``, 0.7 of the way to its ends; ``quantile``, all but 0.05 % of the values.
    """
    values = low[:, None] + (torch.arange(BINS, device=low.device) + 0.5) * ((high - low) / BINS)[:, None]
    middle = ((values * counts).sum(dim=1) / counts.sum(dim=1)) if centred else torch.zeros_like(low)
    below, above = (low - middle).clamp(max=0), (high - middle).clamp(min=0)

    def grid(left: Tensor | float, right: Tensor | float) -> OutputGrid:
        return OutputGrid.of_range(middle + below * left, middle + above * right, centred=centred)

    if method == "quantile":
        total = counts.cumsum(dim=1).double() / counts.sum(dim=1, keepdim=True)
        first = (total < BEYOND / 2).sum(dim=1, keepdim=True)
        last = (total < 1 - BEYOND / 2).sum(dim=1, keepdim=True).clamp(max=BINS - 1)
        ends = values.gather(1, first)[:, 0], values.gather(1, last)[:, 0]
        return OutputGrid.of_range(*ends, centred=centred)
    if method != "mse":
        share = CLIP if method == "clip" else 1.0
        return grid(share, share)
    shares = torch.tensor(CLIPS, device=low.device)
    promising = _promising(values, counts, middle, below, above, shares)
    best = grid(1.0, 1.0)
    least = torch.full_like(low, torch.inf)
    for pair in promising:
        tried = grid(shares[pair // len(shares)], shares[pair % len(shares)])
        rounded = tried.round(values.view(1, len(low), BINS, 1)).view_as(values)
        error = ((rounded - values).square() * counts).sum(dim=1)
        better = error < least
        best = OutputGrid(torch.where(better, tried.step, best.step), torch.where(better, tried.zero, best.zero))
        least = torch.minimum(error, least)
    return best


def _promising(values: Tensor, counts: Tensor, middle: Tensor, below: Tensor, above: Tensor, shares: Tensor) -> Tensor:
    """For each channel the pairs of shares, numbered, whose error is likely least: ``TRIED`` x C.

    A step's rounding costs a twelfth of its square for each value, and what lies beyond an end costs the same whatever
    becomes of the other end, so that twenty sums tell of a hundred pairs.
    """
    cut_below = [((middle + below * s)[:, None] - values).clamp_min(0).square().mul(counts).sum(1) for s in shares]
    cut_above = [(values - (middle + above * s)[:, None]).clamp_min(0).square().mul(counts).sum(1) for s in shares]
    width = above * shares[None, :, None] - below * shares[:, None, None]  # left x right x C
    error = torch.stack(cut_below)[:, None] + torch.stack(cut_above)[None] + counts.sum(1) * (width / TOP).square() / 12
    return error.flatten(0, 1).topk(TRIED, dim=0, largest=False, sorted=True).indices.sort(dim=0).values

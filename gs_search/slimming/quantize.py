"""Quantizers of weights and activations with straight-through gradients and learned ranges.

Weights: symmetric, one range per output channel, ``2^b - 1`` levels. Activations (the inputs of layers): one range
per layer, ``2^b`` codes, unsigned where the stream cannot be negative and signed where it can. The range is learned
by the gradient of LSQ (Esser et al., ICLR 2020). It is stored as ``base * (1 + change)``: ``change`` is what is
learned, so that one learning rate suits ranges of every size, and sliced channels keep theirs to the last bit.

The reference code rounds weights per tensor, so that slicing a layer changes the other channels' codes; clamps
signed streams to [0, 4]; and uses ``2^b + 1`` codes. See ``tests/slimming/test_traps.py``.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = [
    "FLOAT_BITS",
    "ActivationQuantizer",
    "WeightQuantizer",
    "activation_range",
    "best_weight_range",
    "holds_pixels",
    "weight_rows",
]

FLOAT_BITS = 32
"""The bit-width that means "not quantized"."""

SMALLEST_RANGE = 1e-8
"""Range of a channel that holds nothing but zeros (the reference code stops there with an assertion)."""

WEIGHT_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
ACTIVATION_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.22, 0.15)
"""Shares of the largest magnitude tried as range; the one of least squared error is taken."""

CLIP = 0.7
QUANTILE = 0.9995
"""What the calibrations ``clip`` and ``quantile`` take of the magnitudes."""


class _FakeQuantize(torch.autograd.Function):
    """``clamp(round(x / step), low, high) * step`` with LSQ's gradients, in few passes over ``x``.

    The gradient passes rounding as if it were not there, and stops outside the range. With v = x / step, the step's
    is round(v) - v inside the range and the bound outside (Esser et al., ICLR 2020, equations 3 and 5).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        scaled = x / step
        ctx.save_for_backward(scaled, step)
        ctx.bounds = low, high
        return scaled.round().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scaled, step = ctx.saved_tensors
        low, high = ctx.bounds
        clamped = scaled.clamp(low, high)
        inside = clamped == scaled
        of_step = None
        if ctx.needs_input_grad[1]:
            error = clamped.round_().sub_(scaled * inside)
            of_step = error.mul_(gradient).sum_to_size(step.shape)
        return gradient * inside, of_step, None, None


class _Quantizer(nn.Module):
    """Range, codes and fake quantization; subclasses say which codes exist and how the range broadcasts."""

    base: Tensor

    def __init__(self, bits: int, low: int, high: int, ranges: Tensor) -> None:
        super().__init__()
        if bits not in range(2, 9):
            raise ValueError(f"bits must lie between 2 and 8 (or be 32 for float), not {bits}")
        self.bits, self.low, self.high = bits, low, high
        self.register_buffer("base", ranges.detach().clone().clamp_min(SMALLEST_RANGE) / high)
        self.change = nn.Parameter(torch.zeros_like(self.base))

    @property
    def step(self) -> Tensor:
        """Size of one code, always positive."""
        return self.base * (1 + self.change.clamp(-0.9, 9.0))

    zero_point = 0
    """The code of the value 0: ranges are symmetric where signed, and begin at 0 where not."""

    def broadcast(self, step: Tensor, like: Tensor) -> Tensor:
        """The step in a shape that multiplies a tensor shaped as ``like``."""
        return step

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x`` as int16."""
        scaled = x / self.broadcast(self.step.to(x.dtype), x)
        return torch.round(scaled).clamp(self.low, self.high).to(torch.int16)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization: the values that the codes stand for, in ``x``'s type."""
        step = self.broadcast(self.step.to(x.dtype), x)
        if not torch.is_grad_enabled():
            return (x / step).round_().clamp_(self.low, self.high).mul_(step)
        return cast(Tensor, _FakeQuantize.apply(x, step, self.low, self.high))

    @torch.no_grad()
    def set_range(self, ranges: Tensor) -> None:
        """Set the largest magnitude that has a code, and forget what was learned."""
        self.base.copy_(ranges.clamp_min(SMALLEST_RANGE) / self.high)
        self.change.zero_()

    @torch.no_grad()
    def settle(self) -> None:
        """Fold what was learned into ``base``, so that the step is one stored number."""
        self.base.copy_(self.step)
        self.change.zero_()


class WeightQuantizer(_Quantizer):
    """``weight`` to its nearest of ``2^b - 1`` symmetric levels, one range for each output channel.

    Args:
        bits: 2 to 8.
        ranges: largest magnitude with a code, one for each output channel.
        axis: dimension of the output channels in the weight (0; 1 for transposed convolutions).
        groups: of a transposed convolution, whose weight is C_in x C_out / groups x h x w.
    """

    def __init__(self, bits: int, ranges: Tensor, axis: int = 0, groups: int = 1) -> None:
        high = 2 ** (bits - 1) - 1
        super().__init__(bits, -high, high, ranges)
        self.axis, self.groups = axis, groups

    def broadcast(self, step: Tensor, like: Tensor) -> Tensor:
        rest = [1] * (like.dim() - 2)
        if self.axis == 0:
            return step.view(-1, 1, *rest)
        if self.groups == 1:
            return step.view(1, -1, *rest)
        each = like.shape[0] // self.groups
        return step.view(self.groups, 1, -1).expand(-1, each, -1).reshape(like.shape[0], -1, *rest)

    def keep(self, channels: Tensor, groups: int = 1) -> None:
        """Drop all output channels but ``channels``, which leaves so many groups."""
        self.groups = groups
        self.base = self.base[channels].clone()
        self.change = nn.Parameter(self.change.data[channels].clone())


class ActivationQuantizer(_Quantizer):
    """A stream to its nearest of ``2^b`` codes with one range.

    Args:
        bits: 2 to 8.
        range_: largest magnitude with a code (scalar tensor).
        signed: codes -2^(b-1) .. 2^(b-1) - 1, else 0 .. 2^b - 1.
    """

    def __init__(self, bits: int, range_: Tensor, *, signed: bool) -> None:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        super().__init__(bits, low, high, range_.reshape(()))
        self.signed = signed


def weight_rows(weight: Tensor, axis: int, groups: int = 1) -> Tensor:
    """A weight as one row for each output channel, whatever the kind of its layer."""
    if axis == 0:
        return weight.flatten(1)
    inputs, outputs = weight.shape[:2]
    return weight.view(groups, inputs // groups, outputs, -1).transpose(1, 2).reshape(groups * outputs, -1)


@torch.no_grad()
def best_weight_range(weight: Tensor, bits: int, axis: int = 0, groups: int = 1) -> Tensor:
    """Per-channel range of least squared rounding error among ``WEIGHT_CLIPS`` of the largest magnitude."""
    rows = weight_rows(weight, axis, groups)
    largest = rows.abs().amax(dim=1).clamp_min(SMALLEST_RANGE)
    high = 2 ** (bits - 1) - 1
    return _least_error(rows, largest, -high, high, WEIGHT_CLIPS)


@torch.no_grad()
def activation_range(sample: Tensor, bits: int, *, signed: bool, method: str = "mse") -> Tensor:
    """Range of a stream, from a sample of its values (any shape), as a scalar tensor.

    Args:
        method: ``max``, the largest magnitude; ``clip``, 0.7 of it; ``quantile``, the 99.95 % quantile of the
            magnitudes; ``mse``, the range of least squared rounding error at these bits.
    """
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    row = sample.reshape(1, -1).float()
    largest = row.abs().amax(dim=1).clamp_min(SMALLEST_RANGE)
    if method == "mse":
        return _least_error(row, largest, low, high, ACTIVATION_CLIPS).reshape(())
    if method == "quantile":
        place = max(1, round(QUANTILE * row.numel()))  # torch.quantile refuses more than 16 million values
        return row.abs().flatten().kthvalue(place).values.clamp_min(SMALLEST_RANGE)
    return (largest * (CLIP if method == "clip" else 1.0)).reshape(())


def holds_pixels(x: Tensor, pictures: Tensor) -> bool:
    """Whether a layer's input has the pictures' own values, perhaps mirrored or in another order, and no others."""
    return bool(torch.isin(x.unique(), pictures.unique()).all())


def _least_error(rows: Tensor, largest: Tensor, low: int, high: int, clips: tuple[float, ...]) -> Tensor:
    best = largest.clone()
    least = torch.full_like(largest, torch.inf)
    for clip in clips:
        ranges = largest * clip
        step = (ranges / high)[:, None]
        error = (torch.round(rows / step).clamp(low, high) * step - rows).square().sum(dim=1)
        better = error < least
        best, least = torch.where(better, ranges, best), torch.where(better, error, least)
    return best

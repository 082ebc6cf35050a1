"""The 8-bit grids on which the exported network computes, and the student made to compute on them.

Inputs of convolutions keep the student's own quantizers. What an integer device rounds besides are the outputs of
convolutions: they get one grid for each channel, with a whole number as the code of zero, of least squared error on
calibration pictures. (One grid for the whole output costs 4 to 5 dB.) A student that was trained with
quantized outputs keeps what it was trained with. Codes are unsigned bytes everywhere.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gs_search.slimming.layers import SlimLayer, slim_layers
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer, activation_range, best_weight_range

__all__ = ["InputGrid", "OutputGrid", "calibrate_outputs", "complete", "last_of", "on_grids", "tap_of"]

BITS = 8
"""Bits of what the student leaves open."""

SAMPLE = 200_000
"""Values of a stream from which a missing range is calibrated."""

CHUNK = 4
"""Pictures at once."""

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
"""Shares of the way from the mean to the ends of a channel's range that are tried."""

BINS = 4_096
"""Parts of a channel's range in which its values are counted: 16 for each code."""


@dataclass(frozen=True)
class InputGrid:
    """How one convolution reads its input: ``value = scale * (code - zero)``, codes ``low`` to ``high``.

    Attributes:
        pixels: the input is a picture in [-1, 1], whose codes are its bytes: ``value = scale * code - 1``.
    """

    scale: float
    zero: int
    low: int
    high: int
    pixels: bool = False

    @classmethod
    def of(cls, quantizer: ActivationQuantizer) -> InputGrid:
        """The grid of a trained quantizer; signed codes move up by 128, which changes no value."""
        zero = 128 if quantizer.signed else 0
        return cls(float(quantizer.step.detach().float()), zero, quantizer.low + zero, quantizer.high + zero)

    @classmethod
    def of_pixels(cls) -> InputGrid:
        return cls(2 / 255, 0, 0, 255, pixels=True)

    def codes(self, x: Tensor) -> Tensor:
        """Bytes of ``x``."""
        scale = torch.tensor(self.scale, dtype=torch.float32).to(x.dtype)
        shifted = x + 1 if self.pixels else x
        return (torch.round(shifted / scale) + self.zero).clamp(self.low, self.high).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for, in double precision."""
        value = (codes.double() - self.zero) * float(torch.tensor(self.scale, dtype=torch.float32))
        return value - 1 if self.pixels else value


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """``value = step * (code - zero)`` for each channel.

    Attributes:
        step: C, float32, above 0.
        zero: C, whole numbers; inside 0..255 unless a norm behind takes every constant off again.
    """

    step: Tensor
    zero: Tensor

    def codes(self, y: Tensor) -> Tensor:
        """Bytes of ``y``, N x C x H x W."""
        step, zero = (values.to(y.dtype).view(1, -1, 1, 1) for values in (self.step, self.zero))
        return (torch.round(y / step) + zero).clamp(0, 255).to(torch.uint8)

    def round(self, y: Tensor) -> Tensor:
        """The values that the codes of ``y`` stand for, in ``y``'s type."""
        step, zero = (values.to(y.dtype).view(1, -1, 1, 1) for values in (self.step, self.zero))
        return ((torch.round(y / step) + zero).clamp(0, 255) - zero) * step

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
        floor = torch.maximum(width.max() * 1e-6, torch.maximum(low.abs(), high.abs()).double() * 1e-6)
        step = (torch.maximum(width, floor.clamp_min(1e-12)) / 255).float()
        zero = torch.round(-low.double() / step.double())
        return cls(step, zero if centred else zero.clamp(0, 255))

    @classmethod
    def of(cls, quantizer: ActivationQuantizer, channels: int) -> OutputGrid:
        """The grid of a trained quantizer of outputs: the same for all channels."""
        zero = 128 if quantizer.signed else 0
        return cls(quantizer.step.detach().float().expand(channels).clone(), torch.full((channels,), float(zero)))


def tap_of(network: nn.Module, name: str) -> nn.Module:
    """The module whose output a layer hands on: a batch norm right behind it, which is part of it, or itself."""
    place, _, own = name.rpartition(".")
    parent = network.get_submodule(place)
    if isinstance(parent, nn.Sequential):
        behind = [child for key, child in parent.named_children() if key.isdigit() and int(key) == int(own) + 1]
        if behind and isinstance(behind[0], nn.BatchNorm2d):
            return behind[0]
    return network.get_submodule(name)


def last_of(network: nn.Module, name: str) -> nn.BatchNorm2d | None:
    """The batch norm that is part of a layer, or None."""
    tap = tap_of(network, name)
    return tap if isinstance(tap, nn.BatchNorm2d) else None


@torch.no_grad()
def complete(student: nn.Module, pictures: Tensor) -> tuple[nn.Module, list[str]]:
    """A copy of a student in which every layer has quantizers of input and weight, and what was added.

    What it has is left alone. The layer that reads the picture needs no quantizer of its input: pixels are codes.

    Args:
        pictures: N x 3 x H x W in [-1, 1], for the ranges of inputs.
    """
    student = copy.deepcopy(student)
    added: list[str] = []
    first = _first_layer(student, pictures[:1])
    handles = []
    for name, layer in slim_layers(student).items():
        if layer.weight_quantizer is None:
            groups = layer.num_groups if layer.out_axis == 1 else 1
            ranges = best_weight_range(layer.weight, BITS, layer.out_axis, groups)
            layer.weight_quantizer = WeightQuantizer(BITS, ranges, layer.out_axis, groups)
            added.append(f"{name}: weight")
        if layer.input_quantizer is None and name != first:

            def before(module: SlimLayer, inputs: tuple[Tensor, ...], name: str = name) -> None:
                if module.input_quantizer is None:
                    x = inputs[0]
                    sample = x.flatten()[:: max(1, x.numel() // SAMPLE)]
                    signed = bool(x.min() < 0)
                    range_ = activation_range(sample, BITS, signed=signed)
                    module.input_quantizer = ActivationQuantizer(BITS, range_, signed=signed)
                    added.append(f"{name}: input")

            handles.append(layer.register_forward_pre_hook(before))
    try:
        if handles:
            student(pictures)
    finally:
        for handle in handles:
            handle.remove()
    return student.eval().requires_grad_(False), added


@torch.no_grad()
def calibrate_outputs(
    student: nn.Module, pictures: Tensor, wanted: Collection[str], centred: Collection[str]
) -> dict[str, OutputGrid]:
    """Find the grids of the outputs of the layers ``wanted``, of those with a quantizer of their own from that.

    Args:
        pictures: N x 3 x H x W in [-1, 1].
        centred: layers whose output is read by an instance norm alone.
    """
    grids: dict[str, OutputGrid] = {}
    layers = slim_layers(student)
    for name in wanted:
        quantizer = layers[name].output_quantizer
        if quantizer is not None:
            grids[name] = OutputGrid.of(quantizer, layers[name].num_outputs)
    open_ = [name for name in wanted if name not in grids]
    spans: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, Tensor] = {}

    def widen(name: str, y: Tensor) -> None:
        low, high = y.amin(dim=(0, 2, 3)), y.amax(dim=(0, 2, 3))
        if name in spans:
            low, high = torch.minimum(low, spans[name][0]), torch.maximum(high, spans[name][1])
        spans[name] = low, high

    def count(name: str, y: Tensor) -> None:
        counts[name] = counts.get(name, 0) + _histogram(y, *spans[name])

    for visit in (widen, count):
        with _watch(student, open_, visit):
            for chunk in pictures.split(CHUNK):
                student(chunk)
    return grids | {name: _least_error(*spans[name], counts[name], centred=name in centred) for name in open_}


def _histogram(y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How many values of each channel lie in each of ``BINS`` equal parts of its range: C x BINS."""
    channels = y.shape[1]
    rows = y.transpose(0, 1).flatten(1)
    width = ((high - low) / BINS).clamp_min(torch.finfo(torch.float32).tiny)
    place = ((rows - low[:, None]) / width[:, None]).long().clamp_(0, BINS - 1)
    place += torch.arange(channels)[:, None] * BINS
    return torch.bincount(place.flatten(), minlength=channels * BINS).view(channels, BINS)


def _least_error(low: Tensor, high: Tensor, counts: Tensor, *, centred: bool) -> OutputGrid:
    """The grid of least squared rounding error for each channel, among ranges that cut off none, one or both ends."""
    values = low[:, None] + (torch.arange(BINS) + 0.5) * ((high - low) / BINS)[:, None]
    middle = ((values * counts).sum(dim=1) / counts.sum(dim=1)) if centred else torch.zeros_like(low)
    below, above = (low - middle).clamp(max=0), (high - middle).clamp(min=0)
    best = OutputGrid.of_range(low, high, centred=centred)
    least = torch.full_like(low, torch.inf)
    for left, right in itertools.product(CLIPS, CLIPS):
        grid = OutputGrid.of_range(middle + below * left, middle + above * right, centred=centred)
        rounded = grid.round(values.view(1, len(low), BINS, 1)).view_as(values)
        error = ((rounded - values).square() * counts).sum(dim=1)
        step = torch.where(error < least, grid.step, best.step)
        best = OutputGrid(step, torch.where(error < least, grid.zero, best.zero))
        least = torch.minimum(error, least)
    return best


@contextmanager
def on_grids(
    student: nn.Module, grids: Mapping[str, OutputGrid], shifts: Mapping[str, Tensor] | None = None
) -> Iterator[nn.Module]:
    """While open, ``student`` rounds its outputs to ``grids``: it computes what the exported file is to compute.

    Args:
        shifts: layer to what is added to its output before (C), by the rounding of its bias.
    """
    shifts = shifts or {}
    layers = slim_layers(student)

    def rounded(name: str, y: Tensor) -> Tensor | None:
        if layers[name].output_quantizer is not None:  # it has rounded already
            return None
        if name in shifts:
            y = y + shifts[name].to(y.dtype).view(1, -1, 1, 1)
        return grids[name].round(y) if name in grids else y

    with _watch(student, {*grids, *shifts}, rounded):
        yield student


@contextmanager
def _watch(student: nn.Module, names: Collection[str], visit: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """While open, ``visit`` sees what every layer of ``names`` hands on, and may replace it."""
    handles = []
    for name in names:

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> Tensor | None:
            return visit(name, output)

        handles.append(tap_of(student, name).register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_layer(student: nn.Module, picture: Tensor) -> str:
    """The layer that a picture reaches first."""
    order: list[str] = []
    handles = []
    for name, layer in slim_layers(student).items():
        handles.append(layer.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name)))
    try:
        student(picture)
    finally:
        for handle in handles:
            handle.remove()
    return order[0]

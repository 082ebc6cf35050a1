"""The 8-bit grids on which the exported network computes, and the student made to compute on them.

Inputs of convolutions keep the student's own quantizers. What an integer device rounds besides are the outputs of
convolutions: they get one grid for each channel, with a whole number as the code of zero, of least squared error on
calibration pictures; a student that was trained with ``quantize: deploy`` keeps the grids it was trained on. Codes are
unsigned bytes everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gs_search.slimming.layers import SlimLayer, output_module, slim_layers
from gs_search.slimming.output_quantizer import OutputGrid, best_grid, count_values
from gs_search.slimming.quantize import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    best_weight_range,
    holds_pixels,
)

__all__ = ["InputGrid", "calibrate_outputs", "complete", "last_of", "on_grids"]

BITS = 8
"""Bits of what the student leaves open."""

SAMPLE = 200_000
"""Values of a stream from which a missing range is calibrated."""

CHUNK = 4
"""Pictures at once."""


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


def last_of(network: nn.Module, name: str) -> nn.BatchNorm2d | None:
    """The batch norm that is part of a layer, or None."""
    last = output_module(network, name)
    return last if isinstance(last, nn.BatchNorm2d) else None


@torch.no_grad()
def complete(student: nn.Module, pictures: Tensor) -> tuple[nn.Module, list[str]]:
    """A copy of a student in which every layer has quantizers of input and weight, and what was added.

    What it has is left alone. A layer that reads the picture itself needs no quantizer of its input: pixels are codes.

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
    student: nn.Module,
    pictures: Tensor,
    wanted: Collection[str],
    centred: Collection[str],
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, OutputGrid]:
    """Find the grids of the outputs of the layers ``wanted``; of those that were trained on one, it is that one.

    Args:
        pictures: N x 3 x H x W in [-1, 1].
        centred: layers whose output is read by an instance norm alone.
        tick: told how many pictures have been looked at; each is twice.
    """
    grids: dict[str, OutputGrid] = {}
    for name in wanted:
        quantizer = output_module(student, name).output_quantizer
        if quantizer is not None:
            grids[name] = quantizer.grid
    open_ = [name for name in wanted if name not in grids]
    spans: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, Tensor] = {}

    def widen(name: str, y: Tensor) -> None:
        low, high = y.amin(dim=(0, 2, 3)), y.amax(dim=(0, 2, 3))
        if name in spans:
            low, high = torch.minimum(low, spans[name][0]), torch.maximum(high, spans[name][1])
        spans[name] = low, high

    def count(name: str, y: Tensor) -> None:
        counts[name] = counts.get(name, 0) + count_values(y, *spans[name])

    done = 0
    for visit in (widen, count) if open_ else ():
        with _watch(student, open_, visit):
            for chunk in pictures.split(CHUNK):
                student(chunk)
                done += len(chunk)
                tick(done)
    return grids | {name: best_grid(*spans[name], counts[name], centred=name in centred) for name in open_}


@contextmanager
def on_grids(
    student: nn.Module, grids: Mapping[str, OutputGrid], shifts: Mapping[str, Tensor] | None = None
) -> Iterator[nn.Module]:
    """While open, ``student`` rounds its outputs to ``grids``: it computes what the exported file is to compute.

    Args:
        student: without quantizers of its outputs.
        shifts: layer to what is added to its output before (C), by the rounding of its bias.
    """
    shifts = shifts or {}

    def rounded(name: str, y: Tensor) -> Tensor:
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

        handles.append(output_module(student, name).register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_layer(student: nn.Module, picture: Tensor) -> str | None:
    """The layer that a picture reaches first; None where its values are changed on the way."""
    order: list[tuple[str, bool]] = []
    handles = []
    for name, layer in slim_layers(student).items():

        def before(module: SlimLayer, inputs: tuple[Tensor, ...], name: str = name) -> None:
            order.append((name, not order and holds_pixels(inputs[0], picture)))

        handles.append(layer.register_forward_pre_hook(before))
    try:
        student(picture)
    finally:
        for handle in handles:
            handle.remove()
    return order[0][0] if order[0][1] else None

"""From a student to the plain network that is exported, and to the whole numbers of its convolutions.

``lower`` copies a student into plain torch modules: gates and batch norms move into weights and biases, norms over
groups become what every format knows, transposed convolutions and the last one take their sub-pixel form where asked.
Without sub-pixel form this is the float network. ``integer_layers`` gives what an integer file stores of each
convolution: codes, steps, bias.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.export.grids import InputGrid, last_of
from gs_search.export.subpixel import SubPixelConv2d, Taps, kernel_form, wide_factor
from gs_search.slimming.layers import (
    SlimBatchNorm2d,
    SlimConv2d,
    SlimConvTranspose2d,
    SlimGroupNorm,
    SlimLayer,
    SlimLinear,
    slim_layers,
    stays_float,
)
from gs_search.slimming.output_quantizer import OutputGrid

__all__ = ["MIDDLE", "IntegerLayer", "PlainGroupNorm", "Sums", "integer_layers", "lower", "pairs_fit"]


PROBE_PX = 32
"""Side of a picture, or a little more, on which is seen how large a layer's output is."""

MIDDLE = 128
"""Code of zero where outputs are rounded to whole numbers."""

WORD = 32767
"""Largest number of 16 bits."""


@dataclass(frozen=True)
class Sums:
    """How a layer adds up, for each of its O channels.

    Attributes:
        steps: size of one code of the weight, in steps of the output, float32.
        unit: size of one code of the sum: a step of the input times one of the weight, float32.
        bias: int32, in units.
        shift: what rounding it to units adds to the layer's output, float64, for each of its C_out channels.
    """

    steps: np.ndarray
    unit: np.ndarray
    bias: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class IntegerLayer:
    """One convolution as an integer file stores it; channels are those of the sub-pixel form, if it has one.

    Attributes:
        name: of the student's layer.
        weight_name: of its weight in the lowered network, and so in the float graph.
        kernel: C_out x I x k x k' codes, int8, before their taps are dealt out.
        taps: how they are; None for a plain convolution.
        bits: of the codes.
        steps: C_out, float64, above 0: size of one code, gate and batch norm included.
        bias: C_out, float64.
        input: how it reads.
    """

    name: str
    weight_name: str
    kernel: np.ndarray
    taps: Taps | None
    bits: int
    steps: np.ndarray
    bias: np.ndarray
    input: InputGrid

    @property
    def factor(self) -> int:
        """Sub-pixels a side."""
        return 1 if self.taps is None else self.taps.factor

    @property
    def may_saturate(self) -> bool:
        """Whether its codes, as signed bytes, can give a wrong sum on an x86 processor without VNNI (``pairs_fit``)."""
        return not pairs_fit(self.kernel, self.input.high)

    def sums(self, grid: OutputGrid | None) -> Sums:
        """The scales and whole numbers with which the layer rounds to ``grid``, or, without one, to its reader's."""
        step, offset = np.ones(len(self.steps)), np.zeros(len(self.steps))
        if grid is not None:
            step, offset = grid.step.double().numpy(), (grid.zero - MIDDLE).double().numpy()
        steps = (self.steps / step).astype(np.float32)
        unit = np.float32(self.input.scale) * steps
        wanted = self.bias / step + offset
        if self.input.pixels:  # the codes stand for the picture plus 1
            wanted = wanted - steps.astype(np.float64) * self.kernel.astype(np.int64).sum(axis=(1, 2, 3))
        bias = np.round(wanted / unit.astype(np.float64))
        if np.abs(bias).max() > np.iinfo(np.int32).max:
            raise UnsupportedNetwork(f"layer {self.name}: its bias is too large for 32-bit whole numbers")
        each = self.factor**2
        return Sums(
            steps=steps.repeat(each),
            unit=unit.repeat(each),
            bias=bias.astype(np.int32).repeat(each),
            shift=(bias * unit - wanted) * step,
        )


class PlainGroupNorm(nn.Module):
    """A norm over groups of channels from operators that runtimes have: instance norms over flattened groups."""

    def __init__(self, sizes: list[int], weight: Tensor, bias: Tensor, eps: float) -> None:
        super().__init__()
        self.sizes, self.eps = sizes, eps
        self.weight = nn.Parameter(weight.detach().view(1, -1, 1, 1).clone())
        self.bias = nn.Parameter(bias.detach().view(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        even = len(set(self.sizes)) == 1
        parts = [x] if even else list(x.split(self.sizes, dim=1))
        groups = len(self.sizes) if even else 1
        normed = [
            nn.functional.instance_norm(part.flatten(2).reshape(part.shape[0], groups, -1), eps=self.eps).reshape_as(
                part
            )
            for part in parts
        ]
        return (normed[0] if even else torch.cat(normed, dim=1)) * self.weight + self.bias


class PlainAffine(nn.Module):
    """A batch norm in evaluation as a product and a sum: torch's exporter would merge it into a convolution before it,
    whose weights then were not those that the codes stand for.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        shift = shift if norm.bias is None else shift + norm.bias.double()
        self.weight = nn.Parameter(scale.float().view(1, -1, 1, 1), requires_grad=False)
        self.bias = nn.Parameter(shift.float().view(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


def pairs_fit(kernel: np.ndarray, highest: int) -> bool:
    """Whether no two products of a signed weight and an unsigned input exceed 16 bits together, whichever they are.

    Where x86 has no VNNI, ONNX Runtime adds up products of unsigned and signed bytes by two in 16 bits that saturate
    (``vpmaddubsw``). Which two depends on the kernel that it takes: inputs of one place, or neighbours across places.
    So all pairs of one output's weights must fit.

    Args:
        kernel: codes, whole numbers, one row of any shape for each output.
        highest: code of the input, from 0 on.
    """
    rows = kernel.reshape(len(kernel), -1).astype(np.int64)
    if rows.shape[1] < 2:
        return bool((highest * np.abs(rows) <= WORD).all())
    ends = np.sort(rows, axis=1)
    largest = np.maximum(ends[:, -2:], 0).sum(axis=1).max()
    smallest = np.minimum(ends[:, :2], 0).sum(axis=1).min()
    return bool(highest * largest <= WORD and -highest * smallest <= WORD + 1)


@torch.no_grad()
def lower(student: nn.Module, *, multiple: int | None = None) -> nn.Module:
    """Return the plain network of a student: what it computes without rounding activations, in evaluation mode.

    Weights are those that the codes stand for. The student is left as it was.

    Args:
        multiple: divides the sides of all pictures that it will see; convolutions then take the sub-pixel form that
            they have.

    Raises:
        UnsupportedNetwork: a layer has no counterpart.
    """
    network = copy.deepcopy(student)
    factors = {} if multiple is None else _factors(student, multiple)
    for name, layer in slim_layers(network).items():
        batch_norm = last_of(network, name)
        scale, shift = _affine(layer, batch_norm)
        weight = layer.weight if layer.weight_quantizer is None else layer.weight_quantizer(layer.weight)
        _replace(network, name, _plain(name, layer, weight, scale, shift, factors.get(name)))
        if batch_norm is not None:
            place, _, own = name.rpartition(".")
            _replace(network, f"{place}.{int(own) + 1}", nn.Identity())
    for name, module in list(network.named_modules()):
        if isinstance(module, SlimGroupNorm):
            _replace(network, name, PlainGroupNorm(module.sizes, module.weight, module.bias, module.eps))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:  # one that is no part of a layer
            _replace(network, name, PlainAffine(module))
        elif isinstance(module, SlimBatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return network.eval().requires_grad_(False)


@torch.no_grad()
def integer_layers(student: nn.Module, lowered: nn.Module) -> list[IntegerLayer]:
    """The whole numbers of all convolutions that an integer file can hold, in order of definition.

    Args:
        student: with quantizers of weights, and of every input but the picture's.
        lowered: of the same student, in sub-pixel form.

    Left out, and so left float, is what ``stays_float`` says.
    """
    found = []
    for name, layer in slim_layers(student).items():
        quantizer = layer.weight_quantizer
        assert quantizer is not None
        if stays_float(layer):
            continue
        scale, shift = (values.double() for values in _affine(layer, last_of(student, name)))
        codes, steps = quantizer.codes(layer.weight), quantizer.step.double()
        codes = torch.where(_as_channels(scale, layer) < 0, -codes, codes)
        steps = (steps * scale.abs()).clamp_min(torch.finfo(torch.float32).tiny * 1e6)
        place = lowered.get_submodule(name)
        rewritten = isinstance(place, SubPixelConv2d)
        grid = InputGrid.of_pixels() if layer.input_quantizer is None else InputGrid.of(layer.input_quantizer)
        found.append(
            IntegerLayer(
                name=name,
                weight_name=f"{name}.conv.weight" if rewritten else f"{name}.weight",
                kernel=kernel_form(layer, codes).to(torch.int8).contiguous().numpy(),
                taps=place.taps if isinstance(place, SubPixelConv2d) else None,
                bits=quantizer.bits,
                steps=steps.numpy(),
                bias=shift.numpy(),
                input=grid,
            )
        )
    return found


def _affine(layer: SlimLayer, batch_norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Scale and shift for each output channel: gate, bias and a batch norm in one."""
    scale = torch.ones(layer.num_outputs, dtype=torch.float64)
    shift = torch.zeros_like(scale) if layer.bias is None else layer.bias.double()
    if layer.gate is not None:
        scale, shift = layer.gate.double(), shift * layer.gate.double()
    if batch_norm is not None:
        assert batch_norm.running_mean is not None and batch_norm.running_var is not None
        own = batch_norm.weight.double() / torch.sqrt(batch_norm.running_var.double() + batch_norm.eps)
        scale, shift = scale * own, (shift - batch_norm.running_mean.double()) * own + batch_norm.bias.double()
    return scale, shift


def _as_channels(values: Tensor, layer: SlimLayer) -> Tensor:
    """One value for each output channel in a shape that multiplies the weight."""
    if layer.out_axis == 0:
        return values.view(-1, *[1] * (layer.weight.dim() - 1))
    inputs, each = layer.weight.shape[:2]
    groups = layer.num_groups
    spread = values.view(groups, 1, each).expand(groups, inputs // groups, each)
    return spread.reshape(inputs, each, 1, 1)


def _plain(name: str, layer: SlimLayer, weight: Tensor, scale: Tensor, shift: Tensor, factor: int | None) -> nn.Module:
    weight = (weight.double() * _as_channels(scale, layer)).float()
    bias = shift.float() if layer.bias is not None or bool((shift != 0).any()) else None
    rewritten: nn.Module | None = None
    if factor is not None and isinstance(layer, SlimConvTranspose2d):
        rewritten = SubPixelConv2d.of_transposed(layer, weight, bias)
    elif factor is not None and factor > 1 and isinstance(layer, SlimConv2d):
        rewritten = SubPixelConv2d.of_wide(layer, weight, bias, factor)
    if rewritten is not None:
        return rewritten
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        SlimConv2d: nn.Conv2d,
        SlimConvTranspose2d: nn.ConvTranspose2d,
        SlimLinear: nn.Linear,
    }
    if type(layer) not in kinds:
        raise UnsupportedNetwork(f"layer {name}: {type(layer).__name__} cannot be exported")
    plain: Any = copy.copy(layer)
    plain._parameters, plain._modules = {}, {}
    plain.__class__ = kinds[type(layer)]
    plain.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    for extra in ("input_quantizer", "weight_quantizer", "output_quantizer", "gate"):
        plain.__dict__.pop(extra, None)
    return cast(nn.Module, plain)


@torch.no_grad()
def _factors(student: nn.Module, multiple: int) -> dict[str, int]:
    """Sub-pixels a side of each layer; 1 where its output is not as large as the picture, whose sides alone divide."""
    px = multiple * max(2, -(-PROBE_PX // multiple))
    factors: dict[str, int] = {}
    handles = []
    for name, layer in slim_layers(student).items():

        def record(module: SlimLayer, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            factor = wide_factor(module)
            factors[name] = factor if tuple(output.shape[2:]) == (px, px) and multiple % factor == 0 else 1

        handles.append(layer.register_forward_hook(record))
    try:
        student(torch.zeros(1, 3, px, px))
    finally:
        for handle in handles:
            handle.remove()
    return factors


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    place, _, own = name.rpartition(".")
    setattr(network.get_submodule(place), own, module)

"""Repair in closed form: refit every kept convolution to the teacher's by least squares.

After channels are cut, each convolution's inputs are no longer what its weights were trained on. One walk over
the layers, in the order in which a picture passes them, refits each convolution to the *teacher's* output of
that layer (before norm and gate), given the inputs that the already repaired *student* really delivers. Ranges of
activations are calibrated and weights rounded inside the walk, so that later layers are fitted to the error of
earlier ones: rounding afterwards costs decibels, rounding inside costs a tenth of one.

Targets are sampled at fixed random positions and do not depend on what is cut or on the rescale of channels
(``sparsity.rescale_`` changes scales and readers, not what a convolution puts out), so they are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gs_search.settings import SlimmingSettings
from gs_search.slimming.channels import Alive, ChannelGraph
from gs_search.slimming.layers import SlimConv, convolutions
from gs_search.slimming.quantize import (
    FLOAT_BITS,
    ActivationQuantizer,
    WeightQuantizer,
    best_activation_range,
    best_weight_range,
)

__all__ = ["RepairTargets", "attach_quantizers", "record_targets", "repair_"]

POSITIONS = 12_000
"""Equations for each layer; the unknowns of a 3x3 convolution with 128 inputs are 1,153."""

RIDGE = 1e-2
"""Ridge, as a share of the mean diagonal of the normal equations; it pulls towards the sliced weights."""

SAMPLE = 200_000
"""Values of a stream from which its range is calibrated."""


@dataclass(frozen=True)
class RepairTargets:
    """The teacher's pre-norm outputs at sampled positions.

    Attributes:
        pictures: K x 3 x H x W in [-1, 1], diverse ones (32 rather than 8 are worth 1 dB at equal equations).
        positions: layer to flat positions (picture, row, column) of its output map.
        outputs: layer to P x C_out values at these positions (float16).
    """

    pictures: Tensor
    positions: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@torch.no_grad()
def record_targets(teacher: nn.Module, pictures: Tensor, *, positions: int = POSITIONS, seed: int = 0) -> RepairTargets:
    """Run the teacher (a slimmable network) once and sample every convolution's output."""
    generator = torch.Generator().manual_seed(seed)
    places: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, conv in convolutions(teacher).items():

        def record(module: SlimConv, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            if module.gate is not None:
                output = output / module.gate.view(1, -1, 1, 1)
            total = output.shape[0] * output.shape[2] * output.shape[3]
            chosen = torch.randperm(total, generator=generator)[:positions].sort().values.to(output.device)
            places[name] = chosen
            outputs[name] = output.permute(0, 2, 3, 1).reshape(total, -1)[chosen].half()

        handles.append(conv.register_forward_hook(record))
    teacher(pictures)
    for handle in handles:
        handle.remove()
    return RepairTargets(pictures, places, outputs)


@torch.no_grad()
def attach_quantizers(graph: ChannelGraph, network: nn.Module, settings: SlimmingSettings, pictures: Tensor) -> None:
    """Give every convolution the quantizers that ``settings`` ask for, calibrated on ``pictures``, in place.

    The first convolution's input is not quantized at 8 bits: pixels are 8-bit codes already.
    """

    def calibrate(name: str, conv: SlimConv, x: Tensor) -> None:
        _quantize(graph, name, conv, x, settings)

    _walk(network, pictures, calibrate)


@torch.no_grad()
def repair_(
    graph: ChannelGraph,
    student: nn.Module,
    alive: Alive,
    targets: RepairTargets,
    settings: SlimmingSettings,
    *,
    refit: bool = True,
    ridge: float = RIDGE,
) -> None:
    """Refit, round and calibrate an extracted student in one walk, in place.

    Args:
        alive: channels that the extraction kept.
        refit: whether weights are refitted (else only quantizers are attached).
        ridge: see ``RIDGE``.
    """

    def fit(name: str, conv: SlimConv, x: Tensor) -> None:
        x = _quantize(graph, name, conv, x, settings)
        if conv.in_channels == 0 or not refit:
            return
        keep = torch.as_tensor(graph.kept(alive, name, "out", graph.layers[name].outputs), device=x.device)
        wanted = targets.outputs[name].to(x.device)[:, keep].float()
        rows = _patches(conv, x, targets.positions[name].to(x.device))
        if conv.groups > 1:
            _fit_depthwise(conv, rows, wanted, ridge)
        else:
            _fit_dense(conv, rows.flatten(1), wanted, ridge)
        if conv.weight_quantizer is not None:
            bits, axis = conv.weight_quantizer.bits, conv.out_axis
            conv.weight_quantizer.set_range(best_weight_range(conv.weight, bits, axis))
        if conv.bias is not None and conv.groups == 1:
            effective = conv.weight if conv.weight_quantizer is None else conv.weight_quantizer(conv.weight)
            conv.bias.copy_(wanted.mean(0) - rows.flatten(1).mean(0) @ _matrix(conv, effective))

    _walk(student, targets.pictures, fit)


def _walk(network: nn.Module, pictures: Tensor, visit: object) -> None:
    handles = []
    for name, conv in convolutions(network).items():

        def before(module: SlimConv, inputs: tuple[Tensor, ...], name: str = name) -> None:
            visit(name, module, inputs[0])  # type: ignore[operator]

        handles.append(conv.register_forward_pre_hook(before))
    network(pictures)
    for handle in handles:
        handle.remove()


def _quantize(graph: ChannelGraph, name: str, conv: SlimConv, x: Tensor, settings: SlimmingSettings) -> Tensor:
    """Attach calibrated quantizers to one convolution and return its input as it will see it."""
    layer = graph.layers[name]
    bits = settings.bits("activation_bits", layer.group)
    conv.input_quantizer = None
    pixels = layer.group == "stem" and bits >= 8
    if bits != FLOAT_BITS and not pixels:
        sample = x.flatten()
        sample = sample[:: max(1, sample.numel() // SAMPLE)]
        signed = bool(x.min() < 0)
        conv.input_quantizer = ActivationQuantizer(
            bits, best_activation_range(sample, bits, signed=signed), signed=signed
        ).to(x.device)
        x = conv.input_quantizer(x)
    bits = settings.bits("weight_bits", layer.group)
    conv.weight_quantizer = None
    if bits != FLOAT_BITS:
        ranges = best_weight_range(conv.weight, bits, conv.out_axis)
        conv.weight_quantizer = WeightQuantizer(bits, ranges, conv.out_axis).to(x.device)
    return x


def _patches(conv: SlimConv, x: Tensor, positions: Tensor) -> Tensor:
    """Inputs that each output position sees: P x taps x C (taps row by row; zeros outside the picture)."""
    count, channels, height, width = x.shape
    kh, kw = conv.kernel_size
    (sh, sw), (dh, dw) = conv.stride, conv.dilation
    ph, pw = (int(p) for p in conv.padding)  # string paddings are refused by trace
    ys, xs = torch.arange(kh, device=x.device) * dh, torch.arange(kw, device=x.device) * dw
    if conv.out_axis == 1:
        out_h = (height - 1) * sh - 2 * ph + dh * (kh - 1) + int(conv.output_padding[0]) + 1
        out_w = (width - 1) * sw - 2 * pw + dw * (kw - 1) + int(conv.output_padding[1]) + 1
    else:
        out_h = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
        out_w = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    picture, row, column = positions // (out_h * out_w), positions // out_w % out_h, positions % out_w
    if conv.out_axis == 1:
        tall, wide = row[:, None] + ph - ys, column[:, None] + pw - xs
        valid_y, valid_x = tall % sh == 0, wide % sw == 0
        tall, wide = torch.div(tall, sh, rounding_mode="floor"), torch.div(wide, sw, rounding_mode="floor")
    else:
        tall, wide = row[:, None] * sh - ph + ys, column[:, None] * sw - pw + xs
        valid_y, valid_x = torch.ones_like(tall, dtype=torch.bool), torch.ones_like(wide, dtype=torch.bool)
    valid_y &= (tall >= 0) & (tall < height)
    valid_x &= (wide >= 0) & (wide < width)
    index = (picture[:, None, None] * height + tall[:, :, None]) * width + wide[:, None, :]
    index = torch.where(valid_y[:, :, None] & valid_x[:, None, :], index, count * height * width).flatten(1)
    flat = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels), x.new_zeros(1, channels)])
    return flat[index].float()


def _matrix(conv: SlimConv, weight: Tensor) -> Tensor:
    """A dense convolution's weight as (taps * C_in) x C_out, in the order of ``_patches``."""
    taps_first = weight.permute(2, 3, 1, 0) if conv.out_axis == 0 else weight.permute(2, 3, 0, 1)
    return taps_first.reshape(-1, taps_first.shape[-1])


def _fit_dense(conv: SlimConv, rows: Tensor, wanted: Tensor, ridge: float) -> None:
    """``min |rows W + b - wanted|^2 + ridge |W - W_sliced|^2``, with the bias free."""
    before = _matrix(conv, conv.weight).clone()
    mean_in, mean_out = rows.mean(0), wanted.mean(0)
    rows = rows - mean_in
    normal = (rows.T @ rows).double()
    right = (rows.T @ (wanted - mean_out - rows @ before)).double()
    normal.diagonal().add_(ridge * normal.diagonal().mean().clamp_min(1e-12))
    change = torch.cholesky_solve(right, torch.linalg.cholesky(normal)).float()
    kh, kw = conv.kernel_size
    matrix = (before + change).view(kh, kw, conv.in_channels, conv.out_channels)
    conv.weight.copy_(matrix.permute(3, 2, 0, 1) if conv.out_axis == 0 else matrix.permute(2, 3, 0, 1))


def _fit_depthwise(conv: SlimConv, rows: Tensor, wanted: Tensor, ridge: float) -> None:
    """The same, channel by channel: rows are P x taps x C."""
    before = conv.weight[:, 0].flatten(1).clone()
    mean_in, mean_out = rows.mean(0), wanted.mean(0)
    centred = rows - mean_in
    normal = torch.einsum("ptc,puc->ctu", centred, centred).double()
    residual = wanted - mean_out - torch.einsum("ptc,ct->pc", centred, before)
    right = torch.einsum("ptc,pc->ct", centred, residual).double()
    scale = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    normal += ridge * scale[:, None, None] * torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
    change = torch.linalg.solve(normal, right[..., None])[..., 0].float()
    conv.weight.copy_((before + change).view_as(conv.weight))
    if conv.bias is not None:
        conv.bias.copy_(mean_out - torch.einsum("tc,ct->c", mean_in, before + change))

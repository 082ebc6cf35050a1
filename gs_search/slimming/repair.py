"""Repair in closed form: refit every kept layer to the teacher's by least squares.

After channels are cut, each layer's inputs are no longer what its weights were trained on. One walk over the
layers, in the order in which a picture passes them, refits each to the *teacher's* output of that layer (before
norm and gate), given the inputs that the already repaired *student* really delivers. Ranges of activations are
calibrated and weights rounded inside the walk, so that later layers are fitted to the error of earlier ones:
rounding afterwards costs decibels, rounding inside costs a tenth of one.

Targets are sampled at fixed random positions and do not depend on what is cut or on the rescale of channels
(``importance.rescale_`` changes scales and readers, not what a layer puts out), so they are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gs_search.slimming.channels import Alive, ChannelGraph
from gs_search.slimming.gptq import round_in_turn
from gs_search.slimming.im2col import Patches, as_matrix, from_matrix
from gs_search.slimming.layers import SlimLayer, output_module, slim_layers, stays_float
from gs_search.slimming.output_quantizer import OutputQuantizer, output_grid
from gs_search.slimming.quantize import (
    FLOAT_BITS,
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    best_weight_range,
    holds_pixels,
)
from gs_search.study.settings import SlimmingSettings

__all__ = ["Refit", "RepairTargets", "attach_quantizers", "record_targets", "repair_"]

POSITIONS = 16_000
"""Equations for each layer; the unknowns of a 3x3 convolution with 128 inputs are 1,153."""

RIDGE = 1e-2
"""Ridge, as a share of the mean diagonal of the normal equations; it pulls towards the sliced weights."""

ENOUGH = 2.0
"""Equations for each unknown below which a layer keeps its sliced weights, and only its bias is refitted: fewer
are fitted to the pictures at hand and to nothing else."""

SAMPLE = 200_000
"""Values of a stream from which its range is calibrated."""

CHUNK = 4_096
"""Equations held at once while the normal equations are summed."""

BLOCK = 192
"""Columns of a block of the normal equations."""

IN_TURN_BITS = 3
"""Widest weights that are rounded one after the other, later ones making up for earlier ones: of 4 bits and more
nothing is gained (``benchmarks.walk``)."""


@dataclass(frozen=True)
class Refit:
    """What the walk did to one layer.

    Attributes:
        equations: sampled positions of its output.
        unknowns: weights and bias of one output channel.
        refitted: whether the equations sufficed for the weights (and held only numbers).
    """

    name: str
    equations: int
    unknowns: int
    refitted: bool


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
    """Run the teacher (a slimmable network) once and sample every layer's output.

    Args:
        pictures: N x 3 x H x W in [-1, 1]; all are in memory at once, with their largest two layers.
        positions: sampled places of each layer's output maps, over all pictures together.
    """
    generator = torch.Generator().manual_seed(seed)
    places: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, layer in slim_layers(teacher).items():

        def record(module: SlimLayer, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            if name in places:  # a layer that is used twice is fitted to its first use
                return
            if module.gate is not None:
                output = output / module.as_channels(module.gate)
            rows = module.positions(output)
            chosen = torch.randperm(len(rows), generator=generator)[:positions].sort().values.to(output.device)
            places[name] = chosen
            outputs[name] = rows[chosen].half()

        handles.append(layer.register_forward_hook(record))
    teacher(pictures)
    for handle in handles:
        handle.remove()
    return RepairTargets(pictures, places, outputs)


@torch.no_grad()
def attach_quantizers(graph: ChannelGraph, network: nn.Module, settings: SlimmingSettings, pictures: Tensor) -> None:
    """Give every layer the quantizers that ``settings`` ask for, calibrated on ``pictures``, in place.

    The first convolution's input is not quantized at 8 bits where it is the picture: pixels are 8-bit codes already.
    """
    _walk(
        graph, network, pictures, settings, lambda name, layer, x: _quantize(graph, name, layer, x, settings, pictures)
    )


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
    in_turn_bits: int = IN_TURN_BITS,
) -> list[Refit]:
    """Refit, round and calibrate an extracted student in one walk, in place.

    Args:
        alive: channels that the extraction kept.
        refit: whether weights are refitted (else only quantizers are attached).
        ridge: see ``RIDGE``.
        in_turn_bits: see ``IN_TURN_BITS``.

    Returns:
        what was done to each layer, in the order of the walk; empty without ``refit``.
    """
    done: list[Refit] = []

    def fit(name: str, layer: SlimLayer, x: Tensor) -> None:
        x = _quantize(graph, name, layer, x, settings, targets.pictures)
        if layer.num_inputs == 0 or not refit or not layer.plain:
            return
        keep = torch.as_tensor(graph.kept(alive, name, "out", graph.layers[name].outputs), device=x.device)
        wanted = targets.outputs[name].to(x.device)[:, keep].float()
        centred = layer.bias is not None or _instance_normed(graph, student, name)
        sums = _Sums.of(layer, x, targets.positions[name].to(x.device), wanted, centred=centred)
        unknowns = sums.normal.shape[1] + 1
        enough = len(wanted) >= ENOUGH * unknowns
        solved = sums.solve(as_matrix(layer, layer.weight), ridge) if enough else None
        if solved is not None:
            layer.weight.copy_(from_matrix(layer, solved))
        if layer.weight_quantizer is not None:
            bits, axis, groups = layer.weight_quantizer.bits, layer.out_axis, layer.num_groups
            layer.weight_quantizer.set_range(best_weight_range(layer.weight, bits, axis, groups))
            if solved is not None and bits <= in_turn_bits:
                layer.weight.copy_(from_matrix(layer, sums.round(layer, ridge)))
        if layer.bias is not None:
            weight = layer.weight if layer.weight_quantizer is None else layer.weight_quantizer(layer.weight)
            layer.bias.copy_(sums.bias(as_matrix(layer, weight)))
        done.append(Refit(name, len(wanted), unknowns, solved is not None))

    _walk(graph, student, targets.pictures, settings, fit)
    return done


@dataclass(frozen=True)
class _Sums:
    """Normal equations of a layer, for each of its G groups, in double precision.

    Attributes:
        normal: G x U x U; U = taps * inputs of a group.
        right: G x U x C_out / G.
        mean_in, mean_out: G x U, G x C_out / G; zero where the layer can express no mean.
    """

    normal: Tensor
    right: Tensor
    mean_in: Tensor
    mean_out: Tensor

    @classmethod
    def of(cls, layer: SlimLayer, x: Tensor, positions: Tensor, wanted: Tensor, *, centred: bool) -> _Sums:
        """Sum over all positions, ``CHUNK`` at a time; ``wanted`` is P x C_out."""
        outputs = wanted.unflatten(1, (layer.num_groups, -1)).transpose(0, 1)  # G x P x C_out / G
        normal, right, total = (torch.zeros((), dtype=torch.float64, device=x.device) for _ in range(3))
        patches = Patches(layer, x)
        # Sums of squares about a first guess of the means: about zero, a stream far from it would cancel out.
        shift = patches(positions[:CHUNK]).mean(dim=1, keepdim=True) if centred else torch.zeros((), device=x.device)
        for start in range(0, len(positions), CHUNK):
            rows, wishes = patches(positions[start : start + CHUNK]) - shift, outputs[:, start : start + CHUNK]
            normal = normal + _squares(rows).double()
            right = right + (rows.mT @ wishes).double()
            total = total + rows.sum(dim=1).double()
        mean_in, mean_out = total / len(positions), outputs.double().mean(dim=1)
        if not centred:
            return cls(normal, right, torch.zeros_like(mean_in), torch.zeros_like(mean_out))
        normal = normal - len(positions) * mean_in[:, :, None] * mean_in[:, None, :]
        right = right - len(positions) * mean_in[:, :, None] * mean_out[:, None, :]
        return cls(normal, right, mean_in + shift[:, 0].double(), mean_out)

    def solve(self, before: Tensor, ridge: float) -> Tensor | None:
        """``min |rows W + b - wanted|^2 + ridge * mean diagonal * |W - before|^2``; G x U x C_out / G.

        None where the sums hold what is no number: a student that has diverged.
        """
        factor, failed = torch.linalg.cholesky_ex(self.ridged(ridge))
        if bool(failed.any()):
            return None
        right = self.right - self.normal @ before.double()
        return before + torch.cholesky_solve(right, factor).float()

    def ridged(self, ridge: float) -> Tensor:
        """The normal matrices with the ridge on their diagonals."""
        normal = self.normal.clone()
        diagonal = normal.diagonal(dim1=1, dim2=2)
        diagonal += ridge * diagonal.mean(dim=1, keepdim=True).clamp_min(1e-12)
        return normal

    def round(self, layer: SlimLayer, ridge: float) -> Tensor:
        """The layer's solved weight on its quantizer's grid; G x U x C_out / G."""
        quantizer = layer.weight_quantizer
        assert quantizer is not None
        steps = quantizer.step.view(layer.num_groups, -1)
        each = zip(as_matrix(layer, layer.weight), self.ridged(ridge), steps, strict=True)
        return torch.stack([round_in_turn(m, n, s, quantizer.low, quantizer.high) for m, n, s in each])

    def bias(self, matrix: Tensor) -> Tensor:
        """The bias with which ``matrix`` meets the mean output."""
        return (self.mean_out - (self.mean_in[:, None, :] @ matrix.double())[:, 0]).flatten().float()


def _squares(rows: Tensor) -> Tensor:
    """``rows.mT @ rows``; of a wide one only the blocks above the diagonal are multiplied, the others mirrored."""
    width = rows.shape[2]
    if len(rows) > 1 or width <= 2 * BLOCK:
        return rows.mT @ rows
    squares = rows.new_empty(1, width, width)
    for start in range(0, width, BLOCK):
        own = slice(start, start + BLOCK)
        squares[0, own, start:] = rows[0, :, own].T @ rows[0, :, start:]
        squares[0, start:, own] = squares[0, own, start:].T
    return squares


def _instance_normed(graph: ChannelGraph, student: nn.Module, name: str) -> bool:
    """Whether norms that subtract each channel's own mean follow, so that a bias would change nothing."""
    if name in graph.centred:
        return True
    for group in graph.groups.values():
        if any(s.module == name and s.role == "out" for s in group.slots):
            following = [student.get_submodule(s.module) for s in group.slots if s.role == "norm"]
            return bool(following) and all(isinstance(norm, nn.InstanceNorm2d) for norm in following)
    return False


def _walk(
    graph: ChannelGraph,
    network: nn.Module,
    pictures: Tensor,
    settings: SlimmingSettings,
    visit: Callable[[str, SlimLayer, Tensor], object],
) -> None:
    """Run the network once; ``visit`` every layer just before its first use, then calibrate its output."""
    handles = []
    visited: set[str] = set()
    layers = slim_layers(network)
    for name, layer in layers.items():

        def before(module: SlimLayer, inputs: tuple[Tensor, ...], name: str = name) -> None:
            if name not in visited:
                output_module(network, name).output_quantizer = None
                visit(name, module, inputs[0])

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> Tensor:
            if name not in visited and _rounds(graph, name, layers[name], settings):
                centred = name in graph.centred
                grid = output_grid(output, centred=centred, method=settings.calibration)
                quantizer = OutputQuantizer(grid, centred=centred)
                output_module(network, name).output_quantizer = quantizer
                output = quantizer(output)
            visited.add(name)
            return output

        handles.append(layer.register_forward_pre_hook(before))
        handles.append(output_module(network, name).register_forward_hook(after))
    try:
        network(pictures)
    finally:
        for handle in handles:
            handle.remove()


def _rounds(graph: ChannelGraph, name: str, layer: SlimLayer, settings: SlimmingSettings) -> bool:
    """Whether a layer rounds what it hands on: where it runs in whole numbers, and no reader of it alone does."""
    group = graph.layers[name].group
    bits = {settings.bits("weight_bits", group), settings.bits("activation_bits", group)}
    if settings.quantize != "deploy" or bits == {FLOAT_BITS} or stays_float(layer):
        return False
    reader = graph.feeds.get(name)
    return reader is None or settings.bits("activation_bits", graph.layers[reader].group) == FLOAT_BITS


def _calibrated(x: Tensor, bits: int, settings: SlimmingSettings, *, signed: bool) -> ActivationQuantizer:
    sample = x.flatten()
    if settings.calibration in ("mse", "quantile"):  # the others ask for the one largest value
        sample = sample[:: max(1, sample.numel() // SAMPLE)]
    range_ = activation_range(sample, bits, signed=signed, method=settings.calibration)
    return ActivationQuantizer(bits, range_, signed=signed).to(x.device)


def _quantize(
    graph: ChannelGraph, name: str, layer: SlimLayer, x: Tensor, settings: SlimmingSettings, pictures: Tensor
) -> Tensor:
    """Attach calibrated quantizers to one layer and return its input as it will see it."""
    group = graph.layers[name].group
    bits = settings.bits("activation_bits", group)
    layer.input_quantizer = None
    pixels = group == "stem" and bits >= 8 and holds_pixels(x, pictures)
    if bits != FLOAT_BITS and not pixels:
        layer.input_quantizer = _calibrated(x, bits, settings, signed=bool(x.min() < 0))
        x = layer.input_quantizer(x)
    bits = settings.bits("weight_bits", group)
    layer.weight_quantizer = None
    if bits != FLOAT_BITS:
        groups = layer.num_groups if layer.out_axis == 1 else 1
        ranges = best_weight_range(layer.weight, bits, layer.out_axis, groups)
        layer.weight_quantizer = WeightQuantizer(bits, ranges, layer.out_axis, groups).to(x.device)
    return x

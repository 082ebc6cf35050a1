"""What a channel is worth, and making the scales say so.

In a real teacher |scale| alone may be nothing but its initialisation, and coupled groups then die together over a
cliff. ``rescale_`` therefore gives every channel a scale that means the *rank* of its importance inside its group,
without changing what the network computes: the layers that read the channel are divided by what its scale grew.

Where that is impossible (a sigmoid, a BatchNorm or GroupNorm between the scale and its readers), scales stay as they
are, and a unit of scale is worth more in some channels than in others: ``Scaling.units``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.slimming.adoption import in_double
from gs_search.slimming.channels import ChannelGraph, ChannelGroup, Slot
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.sparsity import magnitude

__all__ = ["Scaling", "group_factors", "rescale_", "stiff_groups", "taylor_scores", "weight_scores"]

RANKS = (0.03, 0.97)
"""Scales after a rank rescale: the least and the most important channel of each group."""

ALLOCATION = 0.5
"""Power with which a group's worth shapes where the cuts fall: 0 cuts the same share of every group."""

STRONGEST = 3.0
"""Largest factor between a group and the usual one."""

PROBES = 2
"""Random directions in which the change of a picture is measured."""


@dataclass(frozen=True)
class Scaling:
    """How the scales of a copy of the teacher were made to mean importance.

    Attributes:
        growth: group to the factor by which each of its channels' signals has grown.
        units: group to the importance of a scale of one in each of its channels.
    """

    growth: Mapping[str, np.ndarray]
    units: Mapping[str, np.ndarray]

    @classmethod
    def none(cls, graph: ChannelGraph) -> Scaling:
        """Scales taken as they are."""
        ones = {name: np.ones(group.size) for name, group in graph.groups.items()}
        return cls(ones, ones)


@torch.no_grad()
def weight_scores(graph: ChannelGraph, network: nn.Module) -> dict[str, Tensor]:
    """``rms |scale_c| * ||weights that read c||`` of every channel: cheap, and needs no picture."""
    layers = slim_layers(network)
    scores = {}
    for name, group in graph.groups.items():
        own = magnitude(group, network)
        reading = torch.zeros_like(own)
        for slot in _readers(graph, group):
            weight = layers[slot.module].weight
            norm = weight.transpose(0, 1 - layers[slot.module].out_axis).flatten(1).square().sum(dim=1)
            reading.index_add_(0, torch.as_tensor(slot.channels, device=own.device), norm[slot.positions])
        scores[name] = own * reading.sqrt() if bool(reading.any()) else own  # read by functions alone
    return scores


def taylor_scores(graph: ChannelGraph, network: nn.Module, pictures: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """How far the picture moves when a channel goes, to first order in the picture (second in its squared error).

    The squared change ``|sum over the channel's scales and shifts of s * d G(x) / d s|^2``, estimated without bias by
    random directions v of +-1: ``(s * d <v, G(x)> / d s)^2`` (Molchanov et al., CVPR 2019, with the distance to the
    teacher as the loss, whose own gradient vanishes at the teacher).

    Args:
        pictures: N x 3 x H x W in [-1, 1].

    Returns:
        group to the root mean square over pictures and directions, a vector of the group's size.
    """
    network = copy.deepcopy(network).eval()
    network.requires_grad_(False)
    places = {name: group.scales(network) for name, group in graph.groups.items()}
    wanted: list[Tensor] = []
    for scale, shift, _ in (entry for entries in places.values() for entry in entries):
        wanted += [scale.requires_grad_()] + ([shift.requires_grad_()] if shift is not None else [])
    if not wanted:  # no group: all channels stay
        return {}
    chance = torch.Generator().manual_seed(seed)
    total = {name: torch.zeros(group.size, device=pictures.device) for name, group in graph.groups.items()}
    for picture in pictures.split(1):
        output = network(picture)
        for probe in range(PROBES):
            direction = (torch.randint(2, output.shape, generator=chance) * 2.0 - 1.0).to(output.device)
            found = torch.autograd.grad(
                (output * direction).sum(), wanted, retain_graph=probe + 1 < PROBES, allow_unused=True
            )
            slopes = {id(t): g for t, g in zip(wanted, found, strict=True) if g is not None}
            for name, entries in places.items():
                change = torch.zeros_like(total[name])
                for scale, shift, slot in entries:
                    effect = torch.zeros_like(scale)
                    for tensor in (scale, shift):
                        if tensor is not None and id(tensor) in slopes:
                            effect = effect + tensor.detach() * slopes[id(tensor)]
                    channels = torch.as_tensor(slot.channels, device=change.device)
                    change.index_add_(0, channels, effect.detach()[slot.positions])
                total[name] += change.square()
    return {name: (value / (PROBES * len(pictures))).sqrt() for name, value in total.items()}


def group_factors(graph: ChannelGraph, scores: Mapping[str, Tensor]) -> dict[str, float]:
    """How much more a group's channels are worth than others of the same rank: where the cuts are to fall.

    The square root of ``sqrt(mean score^2 / multiply-adds of a channel)``, over its geometric mean over groups. Scores
    must compare across groups, as ``taylor_scores`` do. The square root, because scores say what the *first* channel
    to go costs: taken whole they empty cheap groups (``benchmarks.walk``).
    """
    worth = {}
    for name, group in graph.groups.items():
        cost = 0.0
        for slot in group.slots:
            if slot.role in ("in", "out"):
                layer = graph.layers[slot.module]
                other = layer.outputs if slot.role == "in" else layer.inputs
                cost += layer.macs_per_pair * (1 if layer.depthwise else other) * len(slot.positions) / group.size
        worth[name] = float(scores[name].double().square().mean() / max(cost, 1.0)) ** (ALLOCATION / 2)
    usual = float(np.exp(np.mean(np.log([max(value, 1e-30) for value in worth.values()])))) if worth else 1.0
    return {name: float(np.clip(value / usual, 1 / STRONGEST, STRONGEST)) for name, value in worth.items()}


@torch.no_grad()
def rescale_(
    graph: ChannelGraph,
    network: nn.Module,
    scores: Mapping[str, Tensor],
    stiff: Iterable[str] = (),
    factors: Mapping[str, float] | None = None,
) -> Scaling:
    """Make each scale mean the rank of its channel's score inside its group, times the group's factor, in place.

    The root mean square of a channel's coupled scales becomes its rank, spread evenly over ``RANKS``, and the weights
    that read the channel are divided by the same factor. Exact (to rounding) where only positively homogeneous
    functions (identity, ReLU, leaky ReLU, padding, sums) lie between; ``stiff`` names the groups where others do,
    which get units instead.
    """
    stiff = set(stiff)
    growth, units = {}, {}
    for name, group in graph.groups.items():
        own = magnitude(group, network)
        order = scores[name].argsort().argsort().to(own.dtype)
        wanted = RANKS[0] + (RANKS[1] - RANKS[0]) * order / max(group.size - 1, 1)
        wanted = wanted * (1.0 if factors is None else factors[name])
        factor = torch.where(own > 0, wanted / own.clamp_min(1e-12), torch.ones_like(own))
        if name in stiff:
            growth[name], units[name] = np.ones(group.size), factor.cpu().numpy()
            continue
        _grow(graph, network, group, factor)
        growth[name], units[name] = factor.cpu().numpy(), np.ones(group.size)
    return Scaling(growth, units)


@torch.no_grad()
def stiff_groups(graph: ChannelGraph, network: nn.Module, picture: Tensor) -> frozenset[str]:
    """Groups whose channels cannot grow without changing the network (tried out, in double precision).

    Args:
        picture: one that the network was traced with, 1 x 3 x H x W.
    """
    chance = torch.Generator().manual_seed(0)
    factors = {
        name: 10 ** (torch.rand(g.size, generator=chance, dtype=torch.float64) * 4 - 2)
        for name, g in graph.groups.items()
    }
    before = copy.deepcopy(network).cpu().double()
    with in_double():
        wanted = before(picture.cpu().double())

    def changes(names: Iterable[str]) -> bool:
        grown = copy.deepcopy(before)
        for name in names:
            _grow(graph, grown, graph.groups[name], factors[name])
        with in_double():
            painted = grown(picture.cpu().double())
        return not bool((painted - wanted).abs().max() < 1e-7 * wanted.abs().max().clamp_min(1.0))

    if not changes(graph.groups):
        return frozenset()
    return frozenset(name for name in graph.groups if changes([name]))


def _grow(graph: ChannelGraph, network: nn.Module, group: ChannelGroup, factor: Tensor) -> None:
    """Multiply the group's scales and shifts by ``factor`` and divide the weights that read it."""
    layers = slim_layers(network)
    for scale, shift, slot in group.scales(network):
        scale[slot.positions] *= factor[slot.channels]
        if shift is not None:
            shift[slot.positions] *= factor[slot.channels]
    for slot in _readers(graph, group):
        layer = layers[slot.module]
        divisor = torch.ones(layer.num_inputs, dtype=layer.weight.dtype, device=layer.weight.device)
        divisor[slot.positions] = factor[slot.channels].to(divisor.dtype)
        axis = 1 - layer.out_axis
        layer.weight /= divisor.view([-1 if dim == axis else 1 for dim in range(layer.weight.dim())])


def _readers(graph: ChannelGraph, group: ChannelGroup) -> list[Slot]:
    return [slot for slot in group.slots if slot.role == "in" and not graph.layers[slot.module].depthwise]

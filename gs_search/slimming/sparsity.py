"""Sparsity of the scales: what they mean, how they shrink, and where a network lands.

The paper adds ``rho * ||gamma||_1`` and takes a proximal step after every gradient step,
``gamma <- sign(gamma) max(|gamma| - rho * lr, 0)`` (Wang et al., ECCV 2020, Algorithm 1). Here the unit is a
group of coupled channels: the root mean square of its coupled scales is thresholded, which for one scale is the
paper's step. A channel whose scales reach zero loses its shifts too, and stays dead unless it may revive.

With momentum ``m`` a gradient moves a scale by ``lr / (1 - m)`` in the long run, so the threshold uses that
length as well; the reference code's does not, which halves its effective rho at its momentum of 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.settings import GROUPS, SlimmingSettings
from gs_search.slimming.channels import Alive, ChannelGraph, ChannelGroup
from gs_search.slimming.layers import convolutions

__all__ = [
    "Steering",
    "cut",
    "cutting_rules",
    "magnitudes",
    "mask_",
    "proximal_step_",
    "rescale_",
    "threshold_for_target",
]

RANKS = (0.03, 0.97)
"""Scales after a rank rescale: the least and the most important channel of each group."""


def magnitude(group: ChannelGroup, network: nn.Module) -> Tensor:
    """Root mean square of the coupled scales of every channel of the group: a vector of ``group.size``."""
    total: Tensor | None = None
    counts: Tensor | None = None
    for scale, _, slot in group.scales(network):
        channels = torch.as_tensor(slot.channels, device=scale.device)
        if total is None or counts is None:
            total = torch.zeros(group.size, dtype=scale.dtype, device=scale.device)
            counts = torch.zeros_like(total)
        total.index_add_(0, channels, scale.detach()[slot.positions].square())
        counts.index_add_(0, channels, torch.ones_like(scale.detach()[slot.positions]))
    assert total is not None and counts is not None, f"group {group.name} has no scales"
    return (total / counts.clamp_min(1)).sqrt()


def magnitudes(graph: ChannelGraph, network: nn.Module) -> dict[str, np.ndarray]:
    """``magnitude`` of every group, as numpy."""
    return {name: magnitude(group, network).cpu().double().numpy() for name, group in graph.groups.items()}


@torch.no_grad()
def rescale_(graph: ChannelGraph, network: nn.Module) -> dict[str, np.ndarray]:
    """Make each scale mean importance, without changing what the network computes.

    Channel ``c`` of a group gets scales whose root mean square is the rank, inside its group, of
    ``rms |scale_c| * ||weights that read c||``, spread evenly over ``RANKS``; the weights that read it are divided
    by the same factor. Exact (to rounding) where only positively homogeneous functions (identity, ReLU, leaky
    ReLU, padding, sums) lie between writer and reader. In a real teacher |scale| alone may be nothing but its
    initialisation, and coupled groups then die together.

    Returns:
        group name to the factor by which each of its channels' signals has grown.
    """
    layers = convolutions(network)
    factors = {}
    for name, group in graph.groups.items():
        own = magnitude(group, network)
        reading = torch.zeros_like(own)
        readers = [slot for slot in group.slots if slot.role == "in" and not graph.layers[slot.module].depthwise]
        for slot in readers:
            weight = layers[slot.module].weight
            axis = 1 - layers[slot.module].out_axis
            norm = weight.transpose(0, axis).flatten(1).square().sum(dim=1)
            reading.index_add_(0, torch.as_tensor(slot.channels, device=own.device), norm[slot.positions])
        importance = own * reading.sqrt()
        order = importance.argsort().argsort().to(own.dtype)
        wanted = RANKS[0] + (RANKS[1] - RANKS[0]) * order / max(group.size - 1, 1)
        factor = torch.where(own > 0, wanted / own.clamp_min(1e-12), torch.ones_like(own))
        for scale, shift, slot in group.scales(network):
            scale[slot.positions] *= factor[slot.channels]
            if shift is not None:
                shift[slot.positions] *= factor[slot.channels]
        for slot in readers:
            weight = layers[slot.module].weight
            shape = (1, -1, 1, 1) if layers[slot.module].out_axis == 0 else (-1, 1, 1, 1)
            divisor = torch.ones(weight.shape[1 - layers[slot.module].out_axis], device=weight.device)
            divisor[slot.positions] = factor[slot.channels]
            weight /= divisor.view(shape)
        factors[name] = factor.cpu().numpy()
    return factors


def cutting_rules(settings: SlimmingSettings) -> dict[str, Any]:
    """The settings that say which channels may go, as ``cut`` and its relatives take them."""
    return {
        "floor": settings.width_floor,
        "multipliers": {group: settings.per_group("sparsity_multiplier", group) for group in GROUPS},
        "prune": settings.prune,
    }


def cut(
    graph: ChannelGraph,
    scores: Mapping[str, np.ndarray],
    threshold: float,
    *,
    floor: int,
    multipliers: Mapping[str, float],
    prune: str,
) -> Alive:
    """Channels that stay when all below ``threshold`` times their layers' multiplier go.

    Every group keeps its ``floor`` best channels, except that a residual block all of whose inner channels fall
    below vanishes as a whole. ``prune="inner"`` leaves groups with several writers (the residual stream) alone.
    """
    alive: Alive = {}
    for name, group in graph.groups.items():
        mask = scores[name] >= threshold * multipliers[group.layers]
        if prune == "inner" and not group.inner:
            mask = np.ones(group.size, dtype=bool)
        if mask.sum() < min(floor, group.size) and (group.block is None or mask.any()):
            mask = mask.copy()
            mask[np.argsort(-scores[name], kind="stable")[:floor]] = True
        alive[name] = mask
    return alive


def threshold_for_target(
    graph: ChannelGraph,
    scores: Mapping[str, np.ndarray],
    target: float,
    *,
    floor: int,
    multipliers: Mapping[str, float],
    prune: str,
) -> float:
    """Smallest threshold at which ``cut`` leaves at most ``target`` of all multiply-adds (bisection).

    Where floors or ``prune`` keep the network above the target, the largest useful threshold.
    """
    dense = graph.macs(graph.all_alive())

    def share(threshold: float) -> float:
        return graph.macs(cut(graph, scores, threshold, floor=floor, multipliers=multipliers, prune=prune)) / dense

    smallest = min((m for m in multipliers.values() if m > 0), default=1.0)
    low, high = 0.0, (max(float(s.max()) for s in scores.values()) + 1e-9) / smallest
    if share(low) <= target:
        return low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) <= target else (middle, high)
    return high


@torch.no_grad()
def mask_(graph: ChannelGraph, network: nn.Module, alive: Alive) -> None:
    """Zero scales and shifts of dead channels, in place."""
    for name, group in graph.groups.items():
        for scale, shift, slot in group.scales(network):
            dead = torch.as_tensor(slot.positions[~alive[name][slot.channels]], device=scale.device)
            scale[dead] = 0.0
            if shift is not None:
                shift[dead] = 0.0


@torch.no_grad()
def proximal_step_(
    graph: ChannelGraph,
    network: nn.Module,
    threshold: float,
    alive: Alive,
    *,
    floor: int,
    multipliers: Mapping[str, float],
    prune: str,
    revive: bool,
) -> None:
    """Soft-threshold all scales in place and update ``alive``; the last ``floor`` channels never reach zero."""
    for name, group in graph.groups.items():
        if prune == "inner" and not group.inner:
            continue
        size = magnitude(group, network)
        shrunk = (size - threshold * multipliers[group.layers]).clamp_min(0.0)
        keep = size.topk(min(floor, group.size)).indices
        shrunk[keep] = torch.maximum(shrunk[keep], 1e-3 * size[keep])
        if not revive:
            shrunk[torch.as_tensor(~alive[name], device=size.device)] = 0.0
        factor = shrunk / size.clamp_min(1e-12)
        for scale, shift, slot in group.scales(network):
            scale[slot.positions] *= factor[slot.channels]
            if shift is not None:
                shift[slot.positions] *= (factor[slot.channels] > 0).to(shift.dtype)
        alive[name] = (shrunk > 0).cpu().numpy()


class Steering:
    """Dual ascent on rho: each step's threshold grows while the network is above its course, and shrinks below.

    The course falls linearly from the whole network to ``target`` at ``RAMP`` of the steps; what is left at the
    end is cut exactly by ``threshold_for_target``.
    """

    RAMP = 0.8
    GAIN = 8.0

    def __init__(self, target: float, steps: int) -> None:
        self.target, self.steps = target, max(steps, 1)
        # Rank-uniform scales lose a share s of their channels when s is taken off them, and multiply-adds go
        # with the square of the channels kept.
        self.start = (1.0 - math.sqrt(target)) / self.steps

    def threshold(self, step: int, share: float) -> float:
        """What to take off every scale at ``step``, given the ``share`` of multiply-adds alive."""
        progress = min(1.0, (step + 1) / (self.RAMP * self.steps))
        course = 1.0 - progress * (1.0 - self.target)
        return self.start * math.exp(self.GAIN * (share - course))

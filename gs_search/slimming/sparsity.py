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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import ConfigError
from gs_search.slimming.channels import Alive, ChannelGraph, ChannelGroup, tensor_of
from gs_search.slimming.layers import SlimGroupNorm, norms
from gs_search.study.settings import GROUPS, SlimmingSettings

__all__ = [
    "Rules",
    "Steering",
    "cut",
    "cut_to_target",
    "magnitudes",
    "mask_",
    "proximal_step_",
    "threshold_for_target",
]

Scores = Mapping[str, np.ndarray]
"""Group name to the importance of each of its channels."""

Units = Mapping[str, np.ndarray]
"""Group name to what one unit of scale is worth in each of its channels; see ``importance.rescale_``."""

SLACK = 1.05
"""How far above its target a student may land where floors hold it."""


@dataclass(frozen=True)
class Rules:
    """Which channels may go.

    Attributes:
        floor: channels that each group keeps.
        round_to: widths are rounded up to a multiple of this.
        prune: ``all``, or ``inner``: groups with several writers (the residual stream) stay whole.
        multipliers: layer group to a factor on the threshold.
    """

    floor: int
    round_to: int
    prune: str
    multipliers: Mapping[str, float]

    @classmethod
    def of(cls, settings: SlimmingSettings) -> Rules:
        """The rules that the settings give."""
        multipliers = {group: settings.per_group("sparsity_multiplier", group) for group in GROUPS}
        return cls(settings.width_floor, settings.round_to, settings.prune, multipliers)


def magnitude(group: ChannelGroup, network: nn.Module, units: np.ndarray | None = None) -> Tensor:
    """Root mean square of the coupled scales of every channel of the group, in units: a vector of ``group.size``."""
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
    size = (total / counts.clamp_min(1)).sqrt()
    return size if units is None else size * torch.as_tensor(units, dtype=size.dtype, device=size.device)


def magnitudes(graph: ChannelGraph, network: nn.Module, units: Units | None = None) -> dict[str, np.ndarray]:
    """``magnitude`` of every group, as numpy."""
    each = units or {}
    return {n: magnitude(g, network, each.get(n)).cpu().double().numpy() for n, g in graph.groups.items()}


def cut(graph: ChannelGraph, scores: Scores, threshold: float, rules: Rules) -> Alive:
    """Channels that stay when all below ``threshold`` times their layers' multiplier go.

    Every group keeps its ``floor`` best channels, except that a residual block all of whose inner channels fall
    below vanishes as a whole.
    """
    alive: Alive = {}
    for name, group in graph.groups.items():
        mask = scores[name] >= threshold * rules.multipliers[group.layers]
        if rules.prune == "inner" and not group.inner:
            mask = np.ones(group.size, dtype=bool)
        count = int(mask.sum())
        if count or group.block is None:
            wanted = max(count, min(rules.floor, group.size))
            wanted = min(-(-wanted // rules.round_to) * rules.round_to, group.size)
            if wanted > count:
                mask = np.zeros(group.size, dtype=bool)
                mask[np.argsort(-scores[name], kind="stable")[:wanted]] = True
        alive[name] = mask
    return alive


def threshold_for_target(graph: ChannelGraph, scores: Scores, target: float, rules: Rules) -> float:
    """Smallest threshold at which ``cut`` leaves at most ``target`` of all multiply-adds (bisection).

    Where floors or ``prune`` keep the network above the target, the largest useful threshold.
    """
    dense = graph.macs(graph.all_alive())

    def share(threshold: float) -> float:
        return graph.macs(cut(graph, scores, threshold, rules)) / dense

    smallest = min((m for m in rules.multipliers.values() if m > 0), default=1.0)
    low, high = 0.0, (max((float(s.max()) for s in scores.values()), default=0.0) + 1e-9) / smallest
    if share(low) <= target:
        return low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) <= target else (middle, high)
    return high


def cut_to_target(graph: ChannelGraph, scores: Scores, target: float, rules: Rules) -> Alive:
    """The cut that leaves at most ``target`` of the multiply-adds, filled up with the best channels that still fit.

    Raises:
        ConfigError: what may not be cut is too large for the target; the message names the largest layers.
    """
    dense = graph.macs(graph.all_alive())
    alive = cut(graph, scores, threshold_for_target(graph, scores, target, rules), rules)
    share = graph.macs(alive) / dense
    if share > SLACK * target:
        raise ConfigError([_unreachable(graph, alive, share, target, rules)])
    if rules.round_to > 1:
        return alive
    order = [
        (score / max(rules.multipliers[graph.groups[name].layers], 1e-9), name, channel)
        for name in graph.groups
        for channel, score in enumerate(scores[name])
        if not alive[name][channel] and score > 0 and alive[name].any()
    ]
    for _, name, channel in sorted(order, reverse=True)[:CANDIDATES]:
        alive[name][channel] = True
        if graph.macs(alive) > target * dense:
            alive[name][channel] = False
    return alive


CANDIDATES = 64
"""Channels just below the threshold that are tried for the room it leaves: equal scores die at once."""


def _unreachable(graph: ChannelGraph, alive: Alive, share: float, target: float, rules: Rules) -> str:
    """Name what holds the network up: the groups whose layers cost most."""
    costs = {
        name: sum(graph.layers[s.module].macs_per_pair * g.size for s in g.slots if s.module in graph.layers)
        for name, g in graph.groups.items()
    }
    held = sorted(costs, key=lambda name: -costs[name])[:3]
    widths = ", ".join(f"{name}: {int(alive[name].sum())} of {graph.groups[name].size} channels" for name in held)
    advice = [
        "raise it",
        "lower width_floor" if rules.floor > 1 else "",
        "lower round_to" if rules.round_to > 1 else "",
    ]
    advice += ["use prune: all" if rules.prune == "inner" else ""]
    return (
        f"target_gflops_ratio {target:g} cannot be reached: the smallest network that the rules allow needs "
        f"{share:.3g} of the teacher's multiply-adds ({widths or 'no layer can be pruned'}); "
        + ", or ".join(filter(None, advice))
    )


@torch.no_grad()
def mask_(graph: ChannelGraph, network: nn.Module, alive: Alive) -> None:
    """Zero scales and shifts of dead channels, in place, and take them out of the statistics of GroupNorms."""
    for name, group in graph.groups.items():
        for scale, shift, slot in group.scales(network):
            dead = torch.as_tensor(slot.positions[~alive[name][slot.channels]], device=scale.device)
            scale[dead] = 0.0
            if shift is not None:
                shift[dead] = 0.0
        for slot in group.slots:
            if slot.axis is not None:
                dead = torch.as_tensor(slot.positions[~alive[name][slot.channels]])
                tensor = tensor_of(network, slot.module)
                tensor.index_fill_(slot.axis, dead.to(tensor.device), 0)
    _mask_group_norms(graph, network, alive)


def _mask_group_norms(graph: ChannelGraph, network: nn.Module, alive: Alive) -> None:
    for name, norm in norms(network).items():
        if isinstance(norm, SlimGroupNorm):
            norm.set_alive(torch.as_tensor(graph.kept(alive, name, "norm", norm.num_channels)))


@torch.no_grad()
def proximal_step_(
    graph: ChannelGraph,
    network: nn.Module,
    threshold: float,
    alive: Alive,
    rules: Rules,
    units: Units,
    *,
    revive: bool,
) -> None:
    """Soft-threshold all scales in place and update ``alive``; the last ``floor`` channels never reach zero."""
    died = False
    for name, group in graph.groups.items():
        if rules.prune == "inner" and not group.inner:
            continue
        size = magnitude(group, network, units[name])
        shrunk = (size - threshold * rules.multipliers[group.layers]).clamp_min(0.0)
        keep = size.topk(min(rules.floor, group.size)).indices
        shrunk[keep] = torch.maximum(shrunk[keep], 1e-3 * size[keep])
        if not revive:
            shrunk[torch.as_tensor(~alive[name], device=size.device)] = 0.0
        factor = shrunk / size.clamp_min(1e-12)
        for scale, shift, slot in group.scales(network):
            scale[slot.positions] *= factor[slot.channels]
            if shift is not None:
                shift[slot.positions] *= (factor[slot.channels] > 0).to(shift.dtype)
        now = (shrunk > 0).cpu().numpy()
        died |= bool((now != alive[name]).any())
        alive[name] = now
    if died:
        _mask_group_norms(graph, network, alive)


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

"""From followed axes to groups of channels: what lives or dies together, what it costs, what stays and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming.axes import PICTURE, AxisTrace, Cost
from gs_search.slimming.axis_rules import rule_of
from gs_search.slimming.channels import ChannelGraph, ChannelGroup, Frozen, Layer, OperationCost, Slot
from gs_search.slimming.layers import SLIM, SlimLayer, is_norm, slim_layers, unowned
from gs_search.study.settings import GROUPS

__all__ = ["AxisGroups", "follow"]

NOTHING_KNOWN = "nothing that is known is at the other end of its channels"
NEVER_RUN = "not used when it paints"

Place = tuple[str, int, int]
"""A tensor's name, one of its axes, a place on it."""


@dataclass(frozen=True)
class AxisGroups:
    """All groups that one pass over a network shows, from which graphs with some of them are made.

    Attributes:
        groups: in the order in which they are written.
        normed: layers whose scale is that of the norm behind them.
    """

    network: nn.Module
    layers: dict[str, Layer]
    feeds: dict[str, str]
    trace: AxisTrace
    groups: dict[str, ChannelGroup]
    normed: frozenset[str]
    _channel: dict[int, tuple[str, int]]

    def graph(self, names: Iterable[str], reasons: Mapping[str, str]) -> ChannelGraph:
        """The graph in which the groups ``names`` may shrink; ``reasons`` says why the others may not."""
        groups = {name: self.groups[name] for name in names}
        members: dict[tuple[str, str], list[tuple[str, Slot]]] = {}
        for group in groups.values():
            for slot in group.slots:
                members.setdefault((slot.module, slot.role), []).append((group.name, slot))
        costs = [self._cost(cost, groups) for cost in self.trace.costs]
        tensors = {slot.module for group in groups.values() for slot in group.slots if slot.axis is not None}
        return ChannelGraph(
            groups=groups,
            layers=self.layers,
            norm_macs={},
            norm_widths={},
            resizes={},
            feeds=self.feeds,
            centred=frozenset(self.normed & self.trace.centred),
            _members=members,
            costs=tuple(costs),
            tensors=tuple(sorted(tensors)),
            frozen=self._frozen(members, costs, reasons),
        )

    def _cost(self, cost: Cost, groups: Mapping[str, ChannelGroup]) -> OperationCost:
        factors: list[tuple[int, tuple[tuple[str, np.ndarray], ...]]] = []
        for axis in cost.factors:
            fixed = 0
            parts: dict[str, list[int]] = {}
            for atom in axis.tolist():
                name, channel = self._channel.get(self.trace.atoms.root(atom), ("", 0))
                if name in groups:
                    parts.setdefault(name, []).append(channel)
                else:
                    fixed += 1
            factors.append((fixed, tuple((name, np.asarray(channels)) for name, channels in parts.items())))
        return OperationCost(cost.kind == "product", cost.each, tuple(factors))

    def _frozen(
        self,
        members: Mapping[tuple[str, str], object],
        costs: list[OperationCost],
        reasons: Mapping[str, str],
    ) -> tuple[Frozen, ...]:
        network, trace = self.network, self.trace
        everything = {name: np.ones(group.size, dtype=bool) for name, group in self.groups.items()}
        each = [cost.macs(everything) for cost in costs]
        macs: dict[str, float] = {}
        sizes: dict[str, int] = {}
        notes: dict[str, list[str]] = {}
        kept: dict[str, float] = {}
        owned: dict[tuple[str, str], list[str]] = {}
        for cost, counted, resolved in zip(trace.costs, each, costs, strict=True):
            lessened = any(parts for _, parts in resolved.factors)
            if cost.within and not lessened:
                kept[cost.module] = kept.get(cost.module, 0.0) + counted
            elif not cost.within and cost.kind == "product":
                macs[cost.module] = macs.get(cost.module, 0.0) + counted
                further = ", though fewer as channels go" if lessened else ""
                notes.setdefault(cost.module, []).append(f"{cost.operation.strip('_')} in floats{further}")
        for name, tensor in unowned(network).items():
            place = name.rpartition(".")[0]
            if isinstance(network.get_submodule(place), nn.PReLU):
                continue
            place = place or name
            sizes[place] = sizes.get(place, 0) + tensor.numel() * tensor.element_size()
            if name not in trace.leaves:
                said = NEVER_RUN
            else:
                axes = [axis for axis in trace.leaves[name].axes if len(axis) > 1]
                reasons_of = [trace.atoms.reason(int(axis[0])) for axis in axes]
                said = next((reason for reason in reasons_of if reason), "of no layer that is known")
            owned.setdefault((place, said), []).append(name.rpartition(".")[2])
        for (place, said), keys in owned.items():
            notes.setdefault(place, []).append(f"{', '.join(keys)}: {said}")

        def why(name: str, layer: SlimLayer, axis: int) -> str:
            return self._why(name, layer, axis, reasons)

        for name, layer in slim_layers(network).items():
            if (name, "out") in members or ((name, "in") in members and why(name, layer, layer.out_axis) == PICTURE):
                continue
            reason = why(name, layer, layer.out_axis)
            if reason == PICTURE:
                reason = why(name, layer, 1 - layer.out_axis)
            if reason == PICTURE:
                continue
            macs[name] = macs.get(name, 0.0) + kept.get(name, 0.0)
            notes.setdefault(name, []).append(reason)
            if reason == NEVER_RUN:
                sizes[name] = sum(t.numel() * t.element_size() for t in layer.parameters(recurse=False))
        dense = sum(each) or 1.0
        return tuple(
            Frozen(name, "; ".join(dict.fromkeys(said)), macs.get(name, 0.0) / dense, sizes.get(name, 0))
            for name, said in notes.items()
        )

    def _why(self, name: str, layer: SlimLayer, axis: int, reasons: Mapping[str, str]) -> str:
        """Why none of the channels on an axis of a layer's weight may go."""
        leaf = self.trace.leaves.get(f"{name}.weight")
        if leaf is None:
            return NEVER_RUN
        atoms = self.trace.atoms
        frozen = [atoms.reason(int(atom)) for atom in leaf.axes[axis]]
        reason = next((reason for reason in frozen if reason is not None), None)
        if reason is not None:
            return reason
        found = {self._channel.get(atoms.root(int(atom)), ("", 0))[0] for atom in leaf.axes[axis]}
        stuck = [reasons[name] for name in sorted(found) if name in reasons]
        return stuck[0] if stuck else NOTHING_KNOWN


def follow(network: nn.Module, picture: Tensor, layers: dict[str, Layer], feeds: dict[str, str]) -> AxisGroups:
    """Run a slimmable network once, following its channels.

    Raises:
        UnsupportedNetwork: a layer's weight is also read by something else.
    """
    trace = AxisTrace(network, picture, rule_of)
    trace.run(picture)
    for layer, reader in trace.outside.items():
        raise UnsupportedNetwork(
            f"layer {layer}: its weight is also read in {reader}, past the layer, where it would not be rounded; give "
            f"{reader} a weight of its own"
        )
    places: dict[int, list[Place]] = {}
    for leaf in trace.leaves.values():
        for axis, atoms in enumerate(leaf.axes):
            for position, root in enumerate(trace.atoms.roots(atoms).tolist()):
                places.setdefault(root, []).append((leaf.name, axis, position))
    read = {root for axis in trace.read for root in trace.atoms.roots(axis).tolist()}
    alike: dict[tuple[tuple[tuple[str, int], int], ...], list[int]] = {}
    for root, found in places.items():
        roles = [role for name, axis, _ in found for role in _roles(network, trace, name, axis)]
        if root in read and trace.atoms.reason(root) is None and _scaled(layers, roles):
            signature = tuple(sorted(Counter((name, axis) for name, axis, _ in found).items()))
            alike.setdefault(signature, []).append(root)
    order = {name: index for index, name in enumerate(layers)}
    groups: list[ChannelGroup] = []
    channel: dict[int, tuple[str, int]] = {}
    names: Counter[str] = Counter()
    for roots in alike.values():
        slots: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for number, root in enumerate(roots):
            for name, axis, position in places[root]:
                for key in _roles(network, trace, name, axis):
                    positions, channels = slots.setdefault(key, ([], []))
                    positions.append(position)
                    channels.append(number)
        writers = [n for n, role in slots if role == "out" and not layers[n].depthwise]
        first = min(writers, key=lambda name: order[name]) if writers else next(n for n, _ in slots)
        names[first] += 1
        label = first if names[first] == 1 else f"{first}#{names[first]}"
        near = first if first in layers else next((n for n, _ in slots if n in layers), None)
        for number, root in enumerate(roots):
            channel[root] = label, number
        groups.append(
            ChannelGroup(
                name=label,
                size=len(roots),
                slots=tuple(
                    Slot(name, role, np.asarray(p), np.asarray(c), trace.shifts.get(name) if role == "scale" else None)
                    for (name, role), (p, c) in slots.items()
                ),
                layers=layers[near].group if near is not None else GROUPS[2],
                inner=len(writers) == 1,
                block=None,
            )
        )
    groups.sort(key=lambda group: order.get(group.name.partition("#")[0], len(order)))
    normed = frozenset(name for name in trace.ruled if trace.read_by.get(name) == {"norm"})
    return AxisGroups(network, layers, feeds, trace, {g.name: g for g in groups}, normed, channel)


def _scaled(layers: Mapping[str, Layer], roles: list[tuple[str, str]]) -> bool:
    """Whether a channel has a scale, or a layer writes it that can be given one."""
    return any(role in ("norm", "scale") or (role == "out" and not layers[n].depthwise) for n, role in roles)


def _roles(network: nn.Module, trace: AxisTrace, name: str, axis: int) -> list[tuple[str, str]]:
    """What an axis of a tensor is to the layer that owns it: (module or tensor, role); none where another says it."""
    place, _, own = name.rpartition(".")
    module = network.get_submodule(place)
    if isinstance(module, SLIM):
        if own != "weight" or axis > 1:
            return []
        if module.num_groups > 1:
            return [(place, "out"), (place, "in")] if axis == 0 else []
        return [(place, "out" if axis == module.out_axis else "in")]
    if is_norm(module):
        return [(place, "norm")] if own == "weight" else []
    if isinstance(module, nn.PReLU):
        return [(place, "slope")] if module.num_parameters > 1 else []
    scale = [(name, "scale")] if name in trace.shifts and axis == 0 else []
    return [(name, f"axis {axis}"), *scale]

"""Groups of coupled channels by a graph library, torch-pruning (Fang et al., CVPR 2023), for layers that it knows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from gs_search.networks.resnet import ResidualBlock
from gs_search.slimming.channels import (
    FVCORE_PER_PIXEL,
    FVCORE_PER_VALUE,
    ChannelGraph,
    ChannelGroup,
    Frozen,
    Layer,
    Slot,
)
from gs_search.slimming.layers import SlimLayer, is_norm, norm_width, norms, slim_layers

__all__ = ["library_graph"]


def library_graph(
    network: nn.Module,
    picture: Tensor,
    described: Mapping[str, Layer],
    norm_area: Mapping[str, int],
    feeds: dict[str, str],
    centred: Iterable[str],
) -> ChannelGraph | None:
    """The graph library's groups; None where it does not carry through or has met channels that it does not know.

    Args:
        network: slimmable, with parameters that want gradients.
        norm_area: norm to the places of all that it normalises.
        feeds, centred: see ``ChannelGraph``.
    """
    layers = slim_layers(network)
    found = _coupled(network, layers, picture, described)
    if found is None:
        return None
    coupled, resizes = found
    groups = {group.name: group for group in coupled}
    members: dict[tuple[str, str], list[tuple[str, Slot]]] = {}
    for group in groups.values():
        for slot in group.slots:
            members.setdefault((slot.module, slot.role), []).append((group.name, slot))
    scaled = {name: module for name, module in norms(network).items() if name in norm_area}
    each = {n: next(v for kind, v in FVCORE_PER_VALUE.items() if isinstance(m, kind)) for n, m in scaled.items()}
    norm_macs = {name: each[name] * norm_area[name] for name in scaled}
    graph = ChannelGraph(
        groups=groups,
        layers=dict(described),
        norm_macs=norm_macs,
        norm_widths={name: norm_width(module) for name, module in scaled.items()},
        resizes=resizes,
        feeds=feeds,
        centred=frozenset(centred),
        _members=members,
    )
    dense = graph.macs(graph.all_alive())
    frozen = [
        Frozen(
            name,
            "a grouped convolution keeps its channels",
            layer.macs_per_pair * layer.inputs * layer.outputs / dense,
            0,
        )
        for name, layer in described.items()
        if layers[name].num_groups > 1 and not layer.depthwise
    ]
    return replace(graph, frozen=tuple(frozen))


def _coupled(
    network: nn.Module, layers: Mapping[str, SlimLayer], picture: Tensor, described: Mapping[str, Layer]
) -> tuple[list[ChannelGroup], dict[str, tuple[float, int]]] | None:
    """All groups; and every enlargement's count for one channel, with its channels. None where it is out of depth."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(network, example_inputs=picture, verbose=False)
    except Exception:  # the library raises whatever the network's own forward or its tracing raise
        return None
    names = {module: name for name, module in network.named_modules()}
    order = list(described)
    resizes: dict[str, tuple[float, int]] = {}
    for node in graph.module2node.values():
        each = FVCORE_PER_PIXEL.get(type(node.grad_fn).__name__)
        if each is not None:
            resizes[node.name] = (
                each * math.prod(node.grad_fn._saved_output_size),
                node.grad_fn._saved_self_sym_sizes[1],
            )
    groups, written = [], set()
    for root in order:
        if root in written or layers[root].num_groups > 1:
            continue
        prune = graph.get_pruner_of_module(layers[root]).prune_out_channels
        try:
            found = graph.get_pruning_group(layers[root], prune, list(range(described[root].outputs)))
        except Exception:
            return None
        slots: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        grouped = False
        for item in found:
            module = item.dep.target.module
            if isinstance(module, nn.Parameter):
                return None
            if item.dep.target.name in resizes:
                slots.setdefault((item.dep.target.name, "resize"), (list(item.idxs), list(item.root_idxs)))
            if module not in names or not isinstance(module, nn.Module):
                continue
            name = names[module]
            if name in layers:
                roles = ["out"] if graph.is_out_channel_pruning_fn(item.dep.handler) else ["in"]
                if described[name].depthwise:
                    roles = ["out", "in"]
                elif layers[name].num_groups > 1:
                    grouped = True  # but not depthwise: keeps its widths
            elif is_norm(module):
                roles = ["norm"]
            elif isinstance(module, nn.PReLU):
                if module.num_parameters == 1:
                    continue
                roles = ["slope"]
            elif any(True for _ in module.parameters(recurse=False)):
                return None  # a layer with weights that we do not know how to slice
            else:
                continue
            for role in roles:
                if max(item.idxs, default=0) >= _width(module, role):
                    return None  # channels are rearranged on the way (PixelShuffle), which the library gets wrong
                positions, channels = slots.setdefault((name, role), ([], []))
                if not set(item.idxs) <= set(positions):
                    positions.extend(item.idxs)
                    channels.extend(item.root_idxs)
        writers = [name for name, role in slots if role == "out" and not described[name].depthwise]
        written.update(writers)
        readers = [name for name, role in slots if role == "in" and not described[name].depthwise]
        if grouped or not readers:  # nothing reads them: the picture itself
            continue
        block = _residual_block(network, writers)
        groups.append(
            ChannelGroup(
                name=root,
                size=described[root].outputs,
                slots=tuple(
                    Slot(name, role, np.asarray(positions), np.asarray(channels))
                    for (name, role), (positions, channels) in slots.items()
                ),
                layers=described[root].group,
                inner=len(writers) == 1,
                block=block,
            )
        )
    return groups, resizes


def _width(module: Any, role: str) -> int:
    if isinstance(module, SlimLayer):
        return module.num_outputs if role == "out" else module.num_inputs
    return int(module.num_parameters) if isinstance(module, nn.PReLU) else norm_width(module)


def _residual_block(network: nn.Module, writers: list[str]) -> str | None:
    """Name of the residual block whose first convolution is the only writer."""
    if len(writers) != 1:
        return None
    name = writers[0].rpartition(".branch.")[0]
    if name and isinstance(network.get_submodule(name), ResidualBlock) and writers[0] == f"{name}.branch.1":
        return name
    return None

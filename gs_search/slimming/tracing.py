"""Reading a network: what its layers cost, which of their channels are coupled, where gates are needed.

One forward pass tells sizes; the dependency graph is torch-pruning's (Fang et al., CVPR 2023).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.networks.resnet import ResidualBlock
from gs_search.settings import GROUPS
from gs_search.slimming.channels import FVCORE_PER_PIXEL, FVCORE_PER_VALUE, ChannelGraph, ChannelGroup, Layer, Slot
from gs_search.slimming.layers import (
    NORMS,
    SlimConvTranspose2d,
    SlimLayer,
    SlimLinear,
    norm_width,
    norms,
    output_module,
    slim_layers,
)

__all__ = ["trace"]

PASSED = {"ReluBackward0", "ReflectionPad2DBackward0", "ReplicationPad2DBackward0", "ConstantPadNdBackward0"}
"""What may stand between a layer and its reader when only the reader rounds, by the name of autograd's node."""


def trace(network: nn.Module, image_px: int) -> ChannelGraph:
    """Trace a slimmable network once at ``image_px`` and add the gates that it needs.

    Raises:
        UnsupportedNetwork: no convolutions, or the graph cannot be traced; the message names the layer.
    """
    layers = slim_layers(network)
    if all(isinstance(layer, SlimLinear) for layer in layers.values()):
        raise UnsupportedNetwork("the generator has no Conv2d or ConvTranspose2d layer, so nothing can be slimmed")
    device = next(network.parameters()).device
    picture = torch.zeros(1, 3, image_px, image_px, device=device)
    flags = [p.requires_grad for p in network.parameters()]
    network.requires_grad_(True)  # both look at autograd's graph
    try:
        with torch.enable_grad():
            sizes = _sizes(network, picture)
            described = _describe(layers, sizes)
            coupled, resizes = _coupled(network, layers, picture, described)
        groups = {group.name: group for group in coupled}
    finally:
        for parameter, flag in zip(network.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    normed = sizes.normed
    for group in groups.values():
        for slot in group.slots:
            if slot.role == "out" and slot.module not in normed and layers[slot.module].gate is None:
                layers[slot.module].add_gate()
    members: dict[tuple[str, str], list[tuple[str, Slot]]] = {}
    for group in groups.values():
        for slot in group.slots:
            members.setdefault((slot.module, slot.role), []).append((group.name, slot))
    scaled = {name: module for name, module in norms(network).items() if name in sizes.norm_area}
    each = {n: next(v for kind, v in FVCORE_PER_VALUE.items() if isinstance(m, kind)) for n, m in scaled.items()}
    norm_macs = {name: each[name] * sizes.norm_area[name] for name in scaled}
    norm_widths = {name: norm_width(module) for name, module in scaled.items()}
    return ChannelGraph(
        groups=groups,
        layers=described,
        norm_macs=norm_macs,
        norm_widths=norm_widths,
        resizes=resizes,
        feeds=sizes.feeds,
        centred=frozenset(sizes.centred),
        _members=members,
    )


class _Sizes:
    """What one forward pass tells about every layer; a layer that is used twice counts twice."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.area: dict[str, tuple[int, int]] = {}
        self.uses: dict[str, int] = {}
        self.norm_area: dict[str, int] = {}
        self.normed: set[str] = set()
        self.producer: dict[int, str] = {}
        self.held: list[Tensor] = []
        self.handed_on: dict[str, Any] = {}
        """Layer to autograd's node of what it hands on."""
        self.feeds: dict[str, str] = {}
        self.centred: set[str] = set()


def _sizes(network: nn.Module, picture: Tensor) -> _Sizes:
    seen = _Sizes()
    names = {module: name for name, module in network.named_modules()}
    handles = []
    feeds_norm: dict[str, Any] = {}
    last = "the first layer"

    def after_layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name = names[module]
        if name not in seen.area:
            seen.order.append(name)
        linear = isinstance(module, SlimLinear)
        places = [t.numel() // t.shape[-1 if linear else 1] for t in (inputs[0], output)]
        seen.area[name] = (places[0], places[1])
        seen.uses[name] = seen.uses.get(name, 0) + 1
        seen.producer[id(output)] = name
        seen.held.append(output)  # so that no later tensor gets the same id

    def after_norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.norm_area[names[module]] = output.shape[-2] * output.shape[-1]
        if id(inputs[0]) in seen.producer:
            feeds_norm[seen.producer[id(inputs[0])]] = module

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal last
        last = f"{names[module] or 'the generator'} ({type(module).__name__.removeprefix('Slim')})"

    for module in network.modules():
        if not list(module.children()):
            handles.append(module.register_forward_pre_hook(before))
        if isinstance(module, SlimLayer):
            handles.append(module.register_forward_hook(after_layer))
        elif isinstance(module, NORMS):
            handles.append(module.register_forward_hook(after_norm))
    for name in slim_layers(network):

        def hands_on(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            seen.handed_on.setdefault(name, output.grad_fn)

        handles.append(output_module(network, name).register_forward_hook(hands_on))
    size = " x ".join(map(str, picture.shape))
    try:
        output = network(picture)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        brief = str(error).strip().splitlines()[0]
        raise UnsupportedNetwork(
            f"the generator fails on a {size} picture, in or after {last}: {brief}; another picture size may do"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, Tensor) or output.dim() != 4:
        kind = f"a tensor of {output.dim()} dimensions" if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedNetwork(f"the generator must return one N x C x H x W tensor, not {kind}")
    if output.shape[1] != 3:
        raise UnsupportedNetwork(f"the generator must return pictures of 3 channels, not of {output.shape[1]}")
    if output.shape[-1] % picture.shape[-1] or output.shape[-2] % picture.shape[-2]:
        raise UnsupportedNetwork(
            f"the generator turns a {size} picture into {' x '.join(map(str, output.shape))}: it rounds odd sizes; "
            "take a picture size that its strides divide (a multiple of 4 for CycleGAN's and CartoonGAN's)"
        )
    readers = _readers(output)
    for held in seen.held:
        name = seen.producer[id(held)]
        if name in feeds_norm and len(readers.get(held.grad_fn, ())) == 1:
            seen.normed.add(name)  # nothing else reads it, so the norm's scale rules the channel
            norm = feeds_norm[name]
            if isinstance(norm, nn.InstanceNorm2d) and norm.running_mean is None:
                seen.centred.add(name)
    layer_of = {held.grad_fn: seen.producer[id(held)] for held in seen.held}
    for name, node in seen.handed_on.items():
        found = _layers_behind(node, readers, layer_of)
        if found is not None and len(found) == 1 and seen.uses[name] == seen.uses[found[0]] == 1:
            seen.feeds[name] = found[0]
    return seen


def _layers_behind(node: Any, readers: Mapping[Any, list[Any]], layer_of: Mapping[Any, str]) -> list[str] | None:
    """The layers that read an operation's result, through pads and ReLUs; None where something else does too."""
    found: list[str] = []
    for reader in readers.get(node, ()):
        further = [layer_of[reader]] if reader in layer_of else None
        if further is None and type(reader).__name__ in PASSED:
            further = _layers_behind(reader, readers, layer_of)
        if further is None:
            return None
        found += further
    return found


def _readers(output: Tensor) -> dict[Any, list[Any]]:
    """The operations that read each operation's result, by autograd node; twice where one reads it twice."""
    found: dict[Any, list[Any]] = {}
    stack, visited = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        for following, _ in node.next_functions:
            if following is not None:
                found.setdefault(following, []).append(node)
                stack.append(following)
    return found


def _describe(layers: Mapping[str, SlimLayer], sizes: _Sizes) -> dict[str, Layer]:
    """Cost and layer group: ``down`` up to the smallest picture, ``body`` at it, ``up`` after it.

    Layers that see one value a channel (attention over channels) count to the layers before them.
    """
    maps = {name: out for name, (_, out) in sizes.area.items() if not isinstance(layers[name], SlimLinear)}
    smallest = min((out for out in maps.values() if out > 1), default=1)
    first_small = next(i for i, name in enumerate(sizes.order) if maps.get(name) == smallest)
    described: dict[str, Layer] = {}
    previous = GROUPS[0]
    for index, name in enumerate(sizes.order):
        module = layers[name]
        area_in, area_out = sizes.area[name]
        if index == 0 or index == len(sizes.order) - 1:
            group = GROUPS[0] if index == 0 else GROUPS[-1]
        elif maps.get(name, 0) <= 1 < smallest:
            group = "down" if previous == GROUPS[0] else previous
        elif area_out == smallest and index > first_small:
            group = "body"
        else:
            group = "down" if index <= first_small else "up"
        previous = group
        inputs, outputs, groups = module.num_inputs, module.num_outputs, module.num_groups
        depthwise = groups > 1 and groups == inputs == outputs
        kernel = 1 if isinstance(module, SlimLinear) else module.kernel_size[0] * module.kernel_size[1]
        area = (area_in if isinstance(module, SlimConvTranspose2d) else area_out) * sizes.uses[name]
        described[name] = Layer(
            name=name,
            group=group,
            inputs=inputs,
            outputs=outputs,
            macs_per_pair=area * kernel / (1 if depthwise else groups),
            depthwise=depthwise,
        )
    return described


def _coupled(
    network: nn.Module, layers: Mapping[str, SlimLayer], picture: Tensor, described: Mapping[str, Layer]
) -> tuple[list[ChannelGroup], dict[str, tuple[float, int]]]:
    """All groups; and every enlargement's count for one channel, with its channels."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(network, example_inputs=picture, verbose=False)
    except Exception as error:  # the library raises whatever the network's own forward or its tracing raise
        raise UnsupportedNetwork(f"the generator's channels cannot be traced: {error}") from None
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
        except Exception as error:
            raise UnsupportedNetwork(f"layer {root}: the channels that it writes cannot be traced: {error}") from None
        slots: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        foreign = False
        for item in found:
            module = item.dep.target.module
            if isinstance(module, nn.Parameter):
                foreign = True
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
                    foreign = True  # grouped, but not depthwise: keeps its widths
            elif isinstance(module, NORMS):
                roles = ["norm"]
            elif isinstance(module, nn.PReLU):
                if module.num_parameters == 1:
                    continue
                roles = ["slope"]
            elif any(True for _ in module.parameters(recurse=False)):
                foreign = True  # a layer with weights that we do not know how to slice
                continue
            else:
                continue
            for role in roles:
                if max(item.idxs, default=0) >= _width(module, role):
                    foreign = True  # channels are rearranged on the way (PixelShuffle), which the library gets wrong
                positions, channels = slots.setdefault((name, role), ([], []))
                if not set(item.idxs) <= set(positions):
                    positions.extend(item.idxs)
                    channels.extend(item.root_idxs)
        writers = [name for name, role in slots if role == "out" and not described[name].depthwise]
        written.update(writers)
        readers = [name for name, role in slots if role == "in" and not described[name].depthwise]
        if foreign or not readers:  # nothing reads them: the picture itself
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

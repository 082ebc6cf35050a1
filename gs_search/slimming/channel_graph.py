"""Reading a network: what its layers cost, which of their channels are coupled, where gates are needed.

One forward pass tells sizes. The dependency graph is torch-pruning's (Fang et al., CVPR 2023) where it carries
through, else the package's own (``axes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming.axis_graph import follow
from gs_search.slimming.channels import (
    ChannelGraph,
    Layer,
)
from gs_search.slimming.layers import (
    Norm,
    SlimConvTranspose2d,
    SlimLayer,
    SlimLinear,
    is_norm,
    norm_width,
    output_module,
    slim_layers,
    unowned,
)
from gs_search.slimming.proving import (
    COUNT_TOLERANCE,
    add_gates_,
    check_count,
    count_products,
    faults,
    slow_attention,
)
from gs_search.slimming.pruning_library import library_graph
from gs_search.study.settings import GROUPS

__all__ = ["trace"]

PASSED = {"ReluBackward0", "ReflectionPad2DBackward0", "ReplicationPad2DBackward0", "ConstantPadNdBackward0"}
"""What may stand between a layer and its reader when only the reader rounds, by the name of autograd's node."""


def trace(network: nn.Module, image_px: int) -> ChannelGraph:
    """Trace a slimmable network at ``image_px`` and add the gates that it needs.

    Networks of known layers alone are traced by the graph library. Where it does not carry through, or a cut by its
    groups would not be exact, or something multiplies besides the layers, the channels are followed axis by axis
    (``axes``); groups that then still cannot be cut exactly keep their channels, and are named in ``frozen``.

    Raises:
        UnsupportedNetwork: no convolutions, or the graph cannot be traced; the message names the layer.
    """
    layers = slim_layers(network)
    if all(isinstance(layer, SlimLinear) for layer in layers.values()):
        raise UnsupportedNetwork("the generator has no Conv2d or ConvTranspose2d layer, so nothing can be slimmed")
    device = next(network.parameters()).device
    picture = torch.zeros(1, 3, image_px, image_px, device=device)
    flags = [p.requires_grad for p in network.parameters()]
    network.requires_grad_(True)  # the library and the sizes look at autograd's graph
    try:
        with torch.enable_grad(), slow_attention():
            sizes = _sizes(network, picture)
            described = _describe(layers, sizes)
            graph = (
                library_graph(network, picture, described, sizes.norm_area, sizes.feeds, sizes.centred)
                if _all_known(network, sizes)
                else None
            )
    finally:
        for parameter, flag in zip(network.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    expected = sum(layer.macs_per_pair * layer.inputs * layer.outputs for layer in described.values())
    counted = count_products(network, image_px, expected)
    if graph is not None:
        exact = abs(graph.products(graph.all_alive()) - counted) <= COUNT_TOLERANCE * counted
        if exact and not faults(graph, network, sizes.normed, image_px):
            add_gates_(graph, network, sizes.normed)
            return graph
    with slow_attention():
        followed = follow(network, picture, described, sizes.feeds)
    graph = followed.graph(followed.groups, {})
    wrong = faults(graph, network, followed.normed, image_px)
    graph = followed.graph([name for name in followed.groups if name not in wrong], wrong)
    check_count(graph, counted, graph.all_alive(), "generator")
    add_gates_(graph, network, followed.normed)
    return graph


def _all_known(network: nn.Module, sizes: _Sizes) -> bool:
    """Whether every tensor belongs to a layer, norm or PReLU that runs, and every layer reads as its kind does."""
    if any(name not in sizes.area or not layer.plain for name, layer in slim_layers(network).items()):
        return False
    slopes = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.PReLU))
    return all(name.startswith(slopes) for name in unowned(network))


class _Sizes:
    """What one forward pass tells about every layer; a layer that is used twice counts twice."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.area: dict[str, tuple[int, int]] = {}
        """Layer to the places of its input and its output, at its first use."""
        self.total: dict[str, list[int]] = {}
        """The same over all uses."""
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
        linear = isinstance(module, SlimLinear)
        places = [t.numel() // t.shape[-1 if linear else 1] for t in (inputs[0], output)]
        if name not in seen.area:
            seen.order.append(name)
            seen.area[name] = (places[0], places[1])
        before = seen.total.get(name, [0, 0])
        seen.total[name] = [before[0] + places[0], before[1] + places[1]]
        seen.uses[name] = seen.uses.get(name, 0) + 1
        seen.producer[id(output)] = name
        seen.held.append(output)  # so that no later tensor gets the same id

    def after_norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        area = output.numel() // norm_width(cast(Norm, module))
        seen.norm_area[names[module]] = seen.norm_area.get(names[module], 0) + area
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
        elif is_norm(module):
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
        area_out = sizes.area[name][1]
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
        area = sizes.total[name][0 if isinstance(module, SlimConvTranspose2d) else 1]
        described[name] = Layer(
            name=name,
            group=group,
            inputs=inputs,
            outputs=outputs,
            macs_per_pair=area * kernel / (1 if depthwise else groups),
            depthwise=depthwise,
        )
    return described

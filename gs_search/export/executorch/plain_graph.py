"""A network as a graph of operators that every delegate on a device has, with a picture's size fixed in it.

Delegates know convolutions, sums and slices, not mirrored padding, norms over a picture or reversed channels: these are
written out here, as slices that are joined, as means and a root. Rounding moves up to where a value is made: before
padding and dealing out, so that bytes are moved and not floats; past a ReLU below whose zero no code lies; to nothing
where the value is rounded so already. Steps that an instance norm takes off again go into its epsilon. All is exact.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from gs_search.errors import UnsupportedNetwork
from gs_search.export.integer_network import LOW

__all__ = ["plain_graph"]

_aten = torch.ops.aten
_MOVES = {
    _aten.cat.default,
    _aten.constant_pad_nd.default,
    _aten.permute.default,
    _aten.slice.Tensor,
    _aten.view.default,
}
"""Operators that move values, and put in zeros at most. Dealing out to sub-pixels moves floats faster (measured)."""


def plain_graph(network: nn.Module, image_px: int) -> ExportedProgram:
    """Export a network for one picture of ``image_px`` in plain operators.

    Args:
        network: takes and returns 1 x 3 x H x W in [-1, 1], in evaluation mode.

    Raises:
        UnsupportedNetwork: torch cannot export it.
    """
    example = (torch.zeros(1, 3, image_px, image_px),)
    try:
        with torch.no_grad():
            program = torch.export.export(network, example).run_decompositions(cast(Any, _WRITTEN_OUT))
            module = cast(fx.GraphModule, program.module(check_guards=False))
            for node in list(module.graph.nodes):
                if node.target is _aten.instance_norm.default:
                    _write_out_norm(module, node)
            _round_early(module.graph)
            module.graph.eliminate_dead_code()
            module.recompile()
            return torch.export.export(module, example)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        brief = " ".join(str(error.__cause__ or error).split())[:300]
        raise UnsupportedNetwork(f"torch cannot export this network: {brief}") from None


def _flip(x: Tensor, dims: list[int]) -> Tensor:
    for dim in dims:
        x = torch.cat([x.narrow(dim, place, 1) for place in reversed(range(x.shape[dim]))], dim)
    return x


def _mirror(x: Tensor, pads: list[int]) -> Tensor:
    left, right, top, bottom = pads
    for dim, before, after in ((3, left, right), (2, top, bottom)):
        end = x.shape[dim] - 1
        parts = [x.narrow(dim, place, 1) for place in range(before, 0, -1)]
        parts += [x, *(x.narrow(dim, end - place, 1) for place in range(1, after + 1))]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def _pad(x: Tensor, pads: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if mode == "reflect" and len(pads) == 4:
        return _mirror(x, pads)
    if mode != "constant":
        raise UnsupportedNetwork(f"torch cannot export this network: padding of mode {mode} has no plain form")
    return cast(Tensor, _aten.constant_pad_nd(x, pads, 0.0 if value is None else value))


_WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {
    _aten.flip.default: _flip,
    _aten.pad.default: _pad,
    _aten.pixel_shuffle.default: lambda x, factor: _dealt(x, factor),
    _aten.reflection_pad2d.default: _mirror,
}


def _dealt(x: Tensor, factor: int) -> Tensor:
    _, channels, height, width = x.shape
    y = x.view(channels // factor**2, factor, factor, height, width).permute(0, 3, 1, 4, 2)
    return y.reshape(1, channels // factor**2, height * factor, width * factor)


def _write_out_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace an instance norm by means and a root; what multiplies its input before goes into its epsilon."""
    source, weight, bias, *_, eps, _cudnn = cast(Any, node.args)
    graph, epsilon = module.graph, eps
    scaled = _read_back(module, source)
    if scaled is not None:
        source, step = scaled
        name = f"{node.name}_epsilon"
        module.register_buffer(name, (eps / step.double().square()).float())
    with graph.inserting_before(node):
        if scaled is not None:
            epsilon = fx.Proxy(graph.get_attr(name))
        factor, summand = (None if value is None else fx.Proxy(value) for value in (weight, bias))
        made = _norm(fx.Proxy(source), factor, summand, epsilon, source.meta["val"].shape)
    node.replace_all_uses_with(made.node)
    graph.erase_node(node)


def _norm(x: Any, weight: Any, bias: Any, epsilon: Any, shape: torch.Size) -> Any:
    flat = len(shape) == 3  # a group of channels; delegates take means over pictures
    if flat:
        x = x.view(shape[0], shape[1], 1, shape[2])
    centred = x - x.mean((2, 3), keepdim=True)
    factor = torch.rsqrt((centred * centred).mean((2, 3), keepdim=True) + epsilon)
    y = centred * (factor if weight is None else factor * weight.view(1, -1, 1, 1))
    y = y if bias is None else y + bias.view(1, -1, 1, 1)
    return y.view(*shape) if flat else y


def _read_back(module: fx.GraphModule, value: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """The value z and the positive steps of ``z * steps + shift``, constants of a channel each."""
    if value.target not in (_aten.add.Tensor, operator.add):
        return None
    product, shift = value.args
    if not (isinstance(product, fx.Node) and isinstance(shift, fx.Node) and shift.op == "get_attr"):
        return None
    if product.target is not _aten.mul.Tensor:
        return None
    z, step = product.args
    if not (isinstance(z, fx.Node) and isinstance(step, fx.Node) and step.op == "get_attr"):
        return None
    constant = cast(Tensor, _attribute(module, cast(str, step.target)))
    return (z, constant) if constant.shape[0] == 1 and bool((constant > 0).all()) else None


def _attribute(module: nn.Module, name: str) -> Any:
    place, _, own = name.rpartition(".")
    return getattr(module.get_submodule(place), own)


@dataclass(frozen=True)
class _Rounding:
    """Clamping to bounds, if any, and rounding to bytes: arguments of the two operators after the value."""

    bounds: tuple[float, float] | None
    codes: tuple[Any, ...]

    @property
    def ends_at_zero(self) -> bool:
        return self.codes[1] == LOW and (self.bounds is None or self.bounds[0] == 0)


def _round_early(graph: fx.Graph) -> None:
    """Move every rounding of a value up to where the value is made."""
    made: dict[tuple[fx.Node, _Rounding], fx.Node] = {}
    for node in list(graph.nodes):
        parts = _rounding_of(node)
        if parts is None:
            continue
        value, rounding = parts
        with graph.inserting_before(node):
            rounded = _rounded(graph, value, rounding, made, node)
        if rounded is not node:
            node.replace_all_uses_with(rounded)


def _rounding_of(node: fx.Node) -> tuple[fx.Node, _Rounding] | None:
    """What a dequantization rounds, and how; None where it is none of an activation."""
    quantized = torch.ops.quantized_decomposed
    if node.target is not quantized.dequantize_per_tensor.default:
        return None
    codes = cast(fx.Node, node.args[0])
    assert codes.target is quantized.quantize_per_tensor.default, codes
    value, bounds = cast(fx.Node, codes.args[0]), None
    if value.target is _aten.hardtanh.default:
        value, *ends = value.args  # type: ignore[assignment]
        bounds = cast("tuple[float, float]", tuple(ends))
    return value, _Rounding(bounds, codes.args[1:])


def _rounded(
    graph: fx.Graph, value: fx.Node, rounding: _Rounding, made: dict[tuple[fx.Node, _Rounding], fx.Node], node: fx.Node
) -> fx.Node:
    """``value`` rounded; ``node`` is what has rounded it so far."""
    key = value, rounding
    if key not in made:
        before = _rounding_of(value)
        if before is not None and before[1] == rounding:
            made[key] = value
        elif value.target is _aten.relu.default and rounding.ends_at_zero:
            made[key] = _rounded(graph, cast(fx.Node, value.args[0]), rounding, made, node)
        elif value.target in _MOVES:

            def moved(argument: fx.Node) -> fx.Node:
                return _rounded(graph, argument, rounding, made, node)

            arguments = fx.map_arg(value.args, moved)
            again = graph.call_function(cast(Any, value.target), arguments, value.kwargs)
            made[key] = _bytes(graph, again, rounding.codes)
        else:
            if rounding.bounds is not None:
                value = graph.call_function(_aten.hardtanh.default, (value, *rounding.bounds))
            made[key] = _bytes(graph, value, rounding.codes)
    return made[key]


def _bytes(graph: fx.Graph, value: fx.Node, codes: tuple[Any, ...]) -> fx.Node:
    quantized = torch.ops.quantized_decomposed
    stored = graph.call_function(quantized.quantize_per_tensor.default, (value, *codes))
    return graph.call_function(quantized.dequantize_per_tensor.default, (stored, *codes))

"""From a masked network to the small one, exactly, and the proof that both are the same.

Slicing drops the dead channels from every layer that writes, scales or reads them, quantizers included.
``check_parity`` compares masked and extracted network in double precision, where both must agree to 1e-5 in
every output and in every code of every quantizer; the figures are stored with each trial.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.networks.resnet import ResidualBlock
from gs_search.slimming.adoption import in_double
from gs_search.slimming.channels import Alive, ChannelGraph, tensor_of
from gs_search.slimming.layers import (
    SlimBatchNorm2d,
    SlimGroupNorm,
    SlimLayer,
    SlimLinear,
    norm_width,
    norms,
    output_module,
    slim_layers,
)

__all__ = ["ChannelConstant", "Parity", "check_parity", "extract", "resize_layer_", "resize_norm_", "set_group_sizes_"]

TOLERANCE = 1e-5


class ChannelConstant(nn.Module):
    """What is left of a residual branch without inner channels: one constant for each channel of the stream."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.shift.view(1, -1, 1, 1).to(x.dtype)


@dataclass(frozen=True)
class Parity:
    """Masked against extracted network.

    Attributes:
        max_abs_difference: of the outputs, in [-1, 1] units, computed in double precision.
        code_mismatches: differing quantizer codes, of weights and of activations, over all layers.
        codes: how many codes were compared.
        pictures: how many pictures were used.
    """

    max_abs_difference: float
    code_mismatches: int
    codes: int
    pictures: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def extract(graph: ChannelGraph, network: nn.Module, alive: Alive) -> nn.Module:
    """Return the network without its dead channels; ``network`` must be masked by the same ``alive``."""
    student = copy.deepcopy(network)
    for name, group in graph.groups.items():
        if group.block is not None and not alive[name].any():
            block = cast(ResidualBlock, student.get_submodule(group.block))
            block.branch = ChannelConstant(block.constant())
            stream = next(
                n for n, g in graph.groups.items() if any(s.module == f"{group.block}.branch.5" for s in g.slots)
            )
            block.branch.shift = nn.Parameter(block.branch.shift.data[torch.as_tensor(alive[stream])])
    for name, layer in slim_layers(student).items():
        keep_out = graph.kept(alive, name, "out", layer.num_outputs)
        keep_in = graph.kept(alive, name, "in", layer.num_inputs)
        resize_layer_(layer, keep_in, keep_out)
    for name, norm in norms(student).items():
        resize_norm_(norm, graph.kept(alive, name, "norm", norm_width(norm)))
    for name in graph.tensors:
        _resize_tensor_(graph, student, name, alive)
    for name, module in student.named_modules():
        if isinstance(module, nn.PReLU) and module.num_parameters > 1:
            keep = torch.as_tensor(graph.kept(alive, name, "slope", module.num_parameters))
            module.weight = nn.Parameter(module.weight.detach()[keep.to(module.weight.device)].clone())
            module.num_parameters = int(keep.sum())
    return student


def _resize_tensor_(graph: ChannelGraph, student: nn.Module, name: str, alive: Alive) -> None:
    """Keep the living channels on every axis of a tensor that no known layer owns."""
    tensor = tensor_of(student, name).detach()
    for axis, length in enumerate(tensor.shape):
        keep = graph.kept(alive, name, f"axis {axis}", length)
        tensor = tensor.index_select(axis, torch.as_tensor(np.flatnonzero(keep), device=tensor.device))
    place, _, own = name.rpartition(".")
    module = student.get_submodule(place)
    if own in module._parameters:
        module._parameters[own] = nn.Parameter(tensor.clone())
    else:
        module._buffers[own] = tensor.clone()


def resize_layer_(conv: SlimLayer, keep_in: np.ndarray, keep_out: np.ndarray) -> None:
    """Keep these input and output channels of a layer, with its quantizers and gate.

    Grouped layers that are not depthwise keep all channels (``channels.trace`` sees to it).
    """
    if keep_in.all() and keep_out.all():
        return
    device, depthwise = conv.weight.device, conv.num_groups > 1
    inputs = torch.as_tensor(np.flatnonzero(keep_in), device=device)
    outputs = torch.as_tensor(np.flatnonzero(keep_out), device=device)
    weight = conv.weight.detach().index_select(0 if depthwise else conv.out_axis, outputs)
    if not depthwise:
        weight = weight.index_select(1 - conv.out_axis, inputs)
    conv.weight = nn.Parameter(weight.clone())
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[outputs].clone())
    if conv.gate is not None:
        conv.gate = nn.Parameter(conv.gate.detach()[outputs].clone())
    groups = len(outputs) if depthwise else 1
    conv.set_widths(len(inputs), len(outputs), groups)
    if conv.weight_quantizer is not None:
        conv.weight_quantizer.keep(outputs, groups)
    if conv.output_quantizer is not None:
        conv.output_quantizer.keep(outputs)


def resize_norm_(norm: nn.Module, keep: np.ndarray) -> None:
    """Keep these channels of an affine norm; a GroupNorm's groups may become uneven, and empty ones go."""
    index = torch.as_tensor(np.flatnonzero(keep), device=cast(Tensor, norm.weight).device)
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[index].clone()))
    for name in ("running_mean", "running_var"):
        if getattr(norm, name, None) is not None:
            setattr(norm, name, getattr(norm, name)[index].clone())
    if isinstance(norm, SlimGroupNorm):
        kept = [int(part.sum()) for part in np.split(keep, np.cumsum(norm.sizes)[:-1])]
        set_group_sizes_(norm, [size for size in kept if size])
    else:
        norm.num_features = len(index)  # type: ignore[assignment]
    if isinstance(norm, SlimBatchNorm2d) and norm.output_quantizer is not None:
        norm.output_quantizer.keep(index)


def set_group_sizes_(norm: SlimGroupNorm, sizes: list[int]) -> None:
    """Say how many channels each group has; none of them is dead."""
    norm.sizes, norm.num_channels, norm.num_groups = sizes, sum(sizes), len(sizes)
    norm.alive, norm.masked = torch.ones(sum(sizes), device=norm.weight.device), False


@torch.no_grad()
def check_parity(graph: ChannelGraph, masked: nn.Module, student: nn.Module, alive: Alive, pictures: Tensor) -> Parity:
    """Compare outputs and codes on ``pictures`` (N x 3 x H x W in [-1, 1]).

    Raises:
        UnsupportedNetwork: they differ by more than 1e-5 or in a code; the message names the first layer.
    """
    masked, student = copy.deepcopy(masked).double().eval(), copy.deepcopy(student).double().eval()
    try:
        with in_double():
            full = _codes(masked, pictures.double())
            small = _codes(student, pictures.double())
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise UnsupportedNetwork(
            f"the network without its pruned channels does not run ({str(error).strip().splitlines()[0][:120]}): its "
            "code names a number of channels, or adds a tensor that no layer writes"
        ) from None
    mismatches, compared, first = 0, 0, ""
    for (name, kind), codes in small[1].items():
        dense = full[1][name, kind]
        conv = slim_layers(masked)[name]
        keep_in = torch.as_tensor(graph.kept(alive, name, "in", conv.num_inputs), device=codes.device)
        keep_out = torch.as_tensor(graph.kept(alive, name, "out", conv.num_outputs), device=codes.device)
        if kind != "weight":
            keep = keep_in if kind == "input" else keep_out
            dense = dense[..., keep] if isinstance(conv, SlimLinear) else dense[:, keep]
        elif conv.num_groups > 1:
            dense = dense[keep_out] if keep_out.numel() == len(dense) else dense
        else:
            dense = dense[keep_out][:, keep_in] if conv.out_axis == 0 else dense[keep_in][:, keep_out]
        wrong = int((dense != codes).sum())
        mismatches, compared = mismatches + wrong, compared + codes.numel()
        first = first or (f"{kind} codes of layer {name}" if wrong else "")
    difference = float((full[0] - small[0]).abs().max())
    if mismatches or not difference <= TOLERANCE:
        raise UnsupportedNetwork(
            f"masked and extracted network differ (by {difference:.2g}, {mismatches} codes; first: "
            f"{first or 'the output'}): a function before that layer does not keep zeros, or mixes channels"
        )
    return Parity(difference, mismatches, compared, len(pictures))


def _codes(network: nn.Module, pictures: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    """Output, and the codes of every weight, input and output by (layer, kind)."""
    found: dict[tuple[str, str], Tensor] = {}
    handles = []
    for name, conv in slim_layers(network).items():
        if conv.weight_quantizer is not None:
            found[name, "weight"] = conv.weight_quantizer.codes(conv.weight)

        def read(module: SlimLayer, inputs: tuple[Tensor, ...], name: str = name) -> None:
            if module.input_quantizer is not None:
                found[name, "input"] = module.input_quantizer.codes(inputs[0])

        def wrote(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            quantizer = cast("SlimLayer | SlimBatchNorm2d", module).output_quantizer
            if quantizer is not None:
                found[name, "output"] = quantizer.codes(output)

        handles.append(conv.register_forward_pre_hook(read))
        handles.append(output_module(network, name).register_forward_hook(wrote))
    try:
        return network(pictures), found
    finally:
        for handle in handles:
            handle.remove()

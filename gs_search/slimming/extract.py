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
from gs_search.slimming.channels import Alive, ChannelGraph
from gs_search.slimming.layers import SlimConv, convolutions, norms

__all__ = ["ChannelConstant", "Parity", "check_parity", "extract", "resize_conv_", "resize_norm_"]

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
            shift = next(m for m in reversed(list(block.branch.modules())) if isinstance(m, nn.InstanceNorm2d)).bias
            block.branch = ChannelConstant(shift)
            stream = next(
                n for n, g in graph.groups.items() if any(s.module == f"{group.block}.branch.5" for s in g.slots)
            )
            block.branch.shift = nn.Parameter(block.branch.shift.data[torch.as_tensor(alive[stream])])
    for name, conv in convolutions(student).items():
        keep_out = graph.kept(alive, name, "out", conv.num_outputs)
        keep_in = graph.kept(alive, name, "in", conv.in_channels)
        resize_conv_(conv, keep_in, keep_out)
    for name, norm in norms(student).items():
        resize_norm_(norm, graph.kept(alive, name, "norm", norm.num_features))
    return student


def resize_conv_(conv: SlimConv, keep_in: np.ndarray, keep_out: np.ndarray) -> None:
    """Keep these input and output channels of a convolution, with its quantizers and gate."""
    device = conv.weight.device
    inputs = torch.as_tensor(np.flatnonzero(keep_in), device=device)
    outputs = torch.as_tensor(np.flatnonzero(keep_out), device=device)
    weight = conv.weight.detach().index_select(conv.out_axis if conv.groups == 1 else 0, outputs)
    if conv.groups == 1:
        weight = weight.index_select(1 - conv.out_axis, inputs)
    conv.weight = nn.Parameter(weight.clone())
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[outputs].clone())
    if conv.gate is not None:
        conv.gate = nn.Parameter(conv.gate.detach()[outputs].clone())
    if conv.weight_quantizer is not None:
        conv.weight_quantizer.keep(outputs)
    conv.in_channels, conv.out_channels = len(inputs), len(outputs)
    if conv.groups > 1:
        conv.groups = len(outputs)


def resize_norm_(norm: nn.Module, keep: np.ndarray) -> None:
    """Keep these channels of an affine norm."""
    index = torch.as_tensor(np.flatnonzero(keep), device=cast(Tensor, norm.weight).device)
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[index].clone()))
    for name in ("running_mean", "running_var"):
        if getattr(norm, name, None) is not None:
            setattr(norm, name, getattr(norm, name)[index].clone())
    norm.num_features = len(index)  # type: ignore[assignment]


@torch.no_grad()
def check_parity(graph: ChannelGraph, masked: nn.Module, student: nn.Module, alive: Alive, pictures: Tensor) -> Parity:
    """Compare outputs and codes on ``pictures`` (N x 3 x H x W in [-1, 1]).

    Raises:
        UnsupportedNetwork: they differ by more than 1e-5 or in a code; the message names the first layer.
    """
    masked, student = copy.deepcopy(masked).double().eval(), copy.deepcopy(student).double().eval()
    full, small = _codes(masked, pictures.double()), _codes(student, pictures.double())
    mismatches, compared, first = 0, 0, ""
    for (name, kind), codes in small[1].items():
        dense = full[1][name, kind]
        conv = convolutions(masked)[name]
        keep_in = torch.as_tensor(graph.kept(alive, name, "in", conv.in_channels), device=codes.device)
        keep_out = torch.as_tensor(graph.kept(alive, name, "out", conv.num_outputs), device=codes.device)
        if kind == "activation":
            dense = dense[:, keep_in]
        elif conv.groups > 1:
            dense = dense[keep_out]
        else:
            dense = dense[keep_out][:, keep_in] if conv.out_axis == 0 else dense[keep_in][:, keep_out]
        wrong = int((dense != codes).sum())
        mismatches, compared = mismatches + wrong, compared + codes.numel()
        first = first or (f"{kind} codes of layer {name}" if wrong else "")
    difference = float((full[0] - small[0]).abs().max())
    if mismatches or not difference <= TOLERANCE:
        raise UnsupportedNetwork(
            f"masked and extracted network differ (by {difference:.2g}, {mismatches} codes; first: "
            f"{first or 'the output'}): a function between two layers does not keep zeros, or mixes channels"
        )
    return Parity(difference, mismatches, compared, len(pictures))


def _codes(network: nn.Module, pictures: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    found: dict[tuple[str, str], Tensor] = {}
    handles = []
    for name, conv in convolutions(network).items():
        if conv.weight_quantizer is not None:
            found[name, "weight"] = conv.weight_quantizer.codes(conv.weight)
        if conv.input_quantizer is not None:

            def record(module: SlimConv, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert module.input_quantizer is not None
                found[name, "activation"] = module.input_quantizer.codes(inputs[0])

            handles.append(conv.register_forward_pre_hook(record))
    output = network(pictures)
    for handle in handles:
        handle.remove()
    return output, found

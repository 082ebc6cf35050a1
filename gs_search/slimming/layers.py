"""Convolutions that can be slimmed: with quantizers, and a gate where no norm follows.

``slimmable`` copies a generator and replaces its convolutions. A convolution whose output no norm scales gets a
*gate*, a vector of ones that multiplies its output channels: the prunable scale that the paper takes from norms.
Norms without scales get scale 1 and shift 0, which changes nothing.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer

__all__ = ["Norm", "SlimConv", "SlimConv2d", "SlimConvTranspose2d", "convolutions", "norms", "slimmable"]

NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d)
Norm = nn.InstanceNorm2d | nn.BatchNorm2d


class _Slim(nn.Module):
    """What both kinds of convolution add: input quantizer, weight quantizer, gate."""

    weight: Tensor
    bias: Tensor | None
    input_quantizer: ActivationQuantizer | None
    weight_quantizer: WeightQuantizer | None
    gate: nn.Parameter | None
    out_axis: int

    def _extend(self) -> None:
        self.input_quantizer = None
        self.weight_quantizer = None
        self.register_parameter("gate", None)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        y = self._convolve(x, weight)
        return y if self.gate is None else y * self.gate.view(1, -1, 1, 1).to(y.dtype)

    @property
    def num_outputs(self) -> int:
        groups = cast(int, self.groups)
        return self.weight.shape[0] if self.out_axis == 0 else self.weight.shape[1] * groups

    def add_gate(self) -> None:
        """Give every output channel a scale of one."""
        self.gate = nn.Parameter(torch.ones(self.num_outputs, dtype=self.weight.dtype, device=self.weight.device))


class SlimConv2d(_Slim, nn.Conv2d):
    out_axis = 0

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(x, weight, self.bias)


class SlimConvTranspose2d(_Slim, nn.ConvTranspose2d):  # type: ignore[misc]  # no output_size here
    out_axis = 1

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x,
            weight,
            self.bias,
            cast("tuple[int, int]", self.stride),
            cast("tuple[int, int]", self.padding),
            cast("tuple[int, int]", self.output_padding),
            self.groups,
            cast("tuple[int, int]", self.dilation),
        )


SlimConv = SlimConv2d | SlimConvTranspose2d


def slimmable(generator: nn.Module) -> nn.Module:
    """Return a copy whose convolutions are slimmable, whose norms have scales, and which computes the same."""
    generator = copy.deepcopy(generator)
    for module in list(generator.modules()):
        for name, child in list(module.named_children()):
            if type(child) in (nn.Conv2d, nn.ConvTranspose2d):
                # Keeps hooks, parametrisations and training mode; only the behaviour of forward is new.
                child.__class__ = SlimConv2d if isinstance(child, nn.Conv2d) else SlimConvTranspose2d
                cast(_Slim, child)._extend()
            elif isinstance(child, NORMS) and not child.affine:
                setattr(module, name, _with_scales(child))
            elif isinstance(child, nn.ReLU) and child.inplace:
                child.inplace = False  # an in-place one hides the norm before it from the dependency graph
    return generator


def convolutions(network: nn.Module) -> dict[str, SlimConv]:
    """All slimmable convolutions by name, in order of definition."""
    return {n: m for n, m in network.named_modules() if isinstance(m, (SlimConv2d, SlimConvTranspose2d))}


def norms(network: nn.Module) -> dict[str, Norm]:
    """All norms with scales by name, in order of definition."""
    return {n: m for n, m in network.named_modules() if isinstance(m, NORMS)}


def _with_scales(norm: Norm) -> Norm:
    device = next((t.device for t in norm.buffers()), torch.device("cpu"))
    kept = {"eps": norm.eps, "momentum": norm.momentum, "track_running_stats": norm.track_running_stats}
    scaled = type(norm)(norm.num_features, affine=True, **cast(Any, kept)).to(device)
    scaled.load_state_dict(norm.state_dict(), strict=False)
    return scaled.train(norm.training)

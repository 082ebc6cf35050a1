"""The student in whole numbers as a torch network: torch's own operators for rounding, the student's scales in them.

What ``integer_graph.py`` writes into an ONNX graph, said in the operators from which torch's exporters for devices
lower: each convolution rounds its input, reads the weight's codes, rounds its sum. Run in torch, the network simulates
the whole numbers in floats. Codes are signed bytes here, 128 below the unsigned ones of ``grids.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of _ops
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search.export.grids import InputGrid
from gs_search.export.lowering import MIDDLE, IntegerLayer
from gs_search.export.subpixel import SubPixelConv2d
from gs_search.slimming.output_quantizer import OutputGrid

__all__ = ["LOW", "TOP", "IntegerConv2d", "integer_network", "round_to"]

LOW, TOP = -128, 127
"""Codes of a signed byte."""

_ops = torch.ops.quantized_decomposed


def round_to(x: Tensor, scale: float, zero: int) -> Tensor:
    """``x`` to signed bytes and back: ``scale * (code - zero)``."""
    codes = _ops.quantize_per_tensor(x, scale, zero, LOW, TOP, torch.int8)
    return cast(Tensor, _ops.dequantize_per_tensor(codes, scale, zero, LOW, TOP, torch.int8))


class IntegerConv2d(nn.Module):
    """A convolution in whole numbers, with its padding by zeros and, in sub-pixel form, its dealing out.

    Attributes:
        weight: C x I x k x k' codes, int8, where C are C_out times the sub-pixels.
        steps: C, size of one code, in steps of the output.
        bias: C, float32, a whole multiple of an input's step times a weight's.
        step, shift: 1 x C_out x 1 x 1, by which the bytes of the output are read back; none where the layers that read
            it have their own grid.
    """

    steps: Tensor
    weight: Tensor
    bias: Tensor
    zeros: Tensor
    step: Tensor
    shift: Tensor

    def __init__(self, plain: nn.Conv2d | SubPixelConv2d, layer: IntegerLayer, output: OutputGrid | InputGrid) -> None:
        super().__init__()
        conv = plain.conv if isinstance(plain, SubPixelConv2d) else plain
        own = output if isinstance(output, OutputGrid) else None
        sums, kernel = layer.sums(own), torch.from_numpy(layer.kernel)
        kernel = kernel if layer.taps is None else layer.taps.deal(kernel)
        self.name, self.input, self.factor = layer.name, layer.input, layer.factor
        self.output = output if isinstance(output, InputGrid) else None
        self.pads, self.excess = (0, 0, 0, 0), (0, 0)
        if isinstance(plain, SubPixelConv2d):
            self.pads, self.excess = plain.pads, plain.excess
        self.stride, self.padding = cast("tuple[int, int]", conv.stride), conv.padding
        self.dilation, self.groups = cast("tuple[int, int]", conv.dilation), conv.groups
        self.register_buffer("weight", kernel.contiguous())
        self.register_buffer("steps", torch.from_numpy(sums.steps))
        self.register_buffer("zeros", torch.zeros(len(kernel), dtype=torch.int64))
        bias = sums.bias.astype(np.float64) * sums.unit.astype(np.float64)
        self.register_buffer("bias", torch.from_numpy(bias.astype(np.float32)))
        if own is not None:
            shift = (MIDDLE - own.zero.double()) * own.step.double()
            self.register_buffer("step", own.step.float().view(1, -1, 1, 1).clone())
            self.register_buffer("shift", shift.float().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pads):
            x = F.pad(x, self.pads)
        x = _rounded(x + 1.0 if self.input.pixels else x, self.input)
        weight = _ops.dequantize_per_channel(self.weight, self.steps, self.zeros, 0, LOW, TOP, torch.int8)
        y = F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        y = round_to(y, 1.0, 0) if self.output is None else _rounded(y, self.output)
        if self.factor > 1:
            y = F.pixel_shuffle(y, self.factor)
        rows, columns = self.excess
        if rows or columns:
            y = y[:, :, : y.shape[2] - rows, : y.shape[3] - columns]
        return y if self.output is not None else y * self.step + self.shift


def _rounded(x: Tensor, grid: InputGrid) -> Tensor:
    """``x`` on a grid; codes of fewer than 8 bits end before bytes do."""
    scale = float(np.float32(grid.scale))
    if (grid.low, grid.high) != (0, TOP - LOW):
        x = F.hardtanh(x, scale * (grid.low - grid.zero), scale * (grid.high - grid.zero))
    return round_to(x, scale, grid.zero + LOW)


@torch.no_grad()
def integer_network(
    lowered: nn.Module, layers: list[IntegerLayer], outputs: Mapping[str, OutputGrid | InputGrid]
) -> nn.Module:
    """The lowered network with ``layers`` in whole numbers; it is left as it was.

    Args:
        lowered: in sub-pixel form.
        outputs: grid of every layer's output, its own or that of the layers that read it.
    """
    network = copy.deepcopy(lowered)
    for layer in layers:
        plain = network.get_submodule(layer.name)
        assert isinstance(plain, nn.Conv2d | SubPixelConv2d)
        network.set_submodule(layer.name, IntegerConv2d(plain, layer, outputs[layer.name]))
    return network.eval().requires_grad_(False)

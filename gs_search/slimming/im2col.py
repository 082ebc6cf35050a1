"""Layers as matrices: what each output position reads, and a weight in the same order.

``Patches(layer, x)(positions) @ as_matrix(layer, weight) + bias`` is the layer's output at these positions, for
convolutions, transposed convolutions and linear layers, grouped or not.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gs_search.slimming.layers import SlimConv2d, SlimConvTranspose2d, SlimLayer, SlimLinear

__all__ = ["Patches", "as_matrix", "from_matrix"]


class Patches:
    """Inputs of a layer, ready to be looked up by output position.

    Args:
        x: the layer's input, N x C x H x W (any shape x C for a linear layer).
    """

    def __init__(self, layer: SlimLayer, x: Tensor) -> None:
        self.layer = layer
        if isinstance(layer, SlimLinear):
            self._table = x.reshape(-1, x.shape[-1])
            return
        if isinstance(layer, SlimConv2d):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        count, channels, self._height, self._width = x.shape
        self._outside = count * self._height * self._width
        self._table = x.permute(0, 2, 3, 1).reshape(-1, channels)
        if isinstance(layer, SlimConvTranspose2d):  # its taps may reach outside; a padded convolution's do not
            self._table = torch.cat([self._table, x.new_zeros(1, channels)])

    def __call__(self, positions: Tensor) -> Tensor:
        """What output positions see.

        Args:
            positions: P flat positions (picture, row, column) of the output.

        Returns:
            G x P x (taps * C / G) of float32, taps row by row, zeros outside the picture; G are the layer's groups.
        """
        layer = self.layer
        if isinstance(layer, SlimLinear):
            return self._table[positions].float()[None]
        height, width = self._height, self._width
        picture = (positions // _output_area(layer, height, width))[:, None, None]
        if isinstance(layer, SlimConv2d):
            rows, columns = _conv_index(layer, positions, height, width)
            flat = (picture * height + rows) * width + columns
        else:
            rows, columns, inside = _transposed_index(layer, positions, height, width)
            flat = torch.where(inside, (picture * height + rows) * width + columns, self._outside)
        found = self._table[flat.flatten(1)].float()  # P x taps x C
        if layer.num_groups == 1:
            return found.flatten(1)[None]
        return found.unflatten(2, (layer.num_groups, -1)).permute(2, 0, 1, 3).flatten(2)


def as_matrix(layer: SlimLayer, weight: Tensor) -> Tensor:
    """A weight as G x (taps * C_in / G) x C_out / G, in the order of ``Patches``."""
    grouped = weight.reshape(layer.num_groups, -1, weight.shape[1], weight[0, 0].numel())
    # Convolutions: G x C_out x C_in x taps; transposed ones: G x C_in x C_out x taps.
    order = (0, 3, 2, 1) if layer.out_axis == 0 else (0, 3, 1, 2)
    return grouped.permute(order).flatten(1, 2)


def from_matrix(layer: SlimLayer, matrix: Tensor) -> Tensor:
    """Invert ``as_matrix``."""
    taps = layer.weight[0, 0].numel()
    grouped = matrix.unflatten(1, (taps, -1))  # G x taps x C_in x C_out
    order = (0, 3, 2, 1) if layer.out_axis == 0 else (0, 2, 3, 1)
    return grouped.permute(order).reshape(layer.weight.shape)


def _taps(layer: SlimConv2d | SlimConvTranspose2d, device: torch.device) -> tuple[Tensor, Tensor]:
    (kh, kw), (dh, dw) = layer.kernel_size, layer.dilation
    return torch.arange(kh, device=device) * dh, torch.arange(kw, device=device) * dw


def _output_size(layer: SlimConv2d | SlimConvTranspose2d, height: int, width: int) -> tuple[int, int]:
    """Of a convolution: given its padded input. Of a transposed one: given its input."""
    size = []
    for axis, length in enumerate((height, width)):
        reach, stride = layer.dilation[axis] * (layer.kernel_size[axis] - 1), layer.stride[axis]
        if isinstance(layer, SlimConv2d):
            size.append((length - reach - 1) // stride + 1)
        else:
            padding, extra = cast(int, layer.padding[axis]), layer.output_padding[axis]
            size.append((length - 1) * stride - 2 * padding + reach + extra + 1)
    return size[0], size[1]


def _output_area(layer: SlimConv2d | SlimConvTranspose2d, height: int, width: int) -> int:
    tall, wide = _output_size(layer, height, width)
    return tall * wide


def _places(
    layer: SlimConv2d | SlimConvTranspose2d, positions: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    tall, wide = _output_size(layer, height, width)
    return (positions // wide % tall)[:, None], (positions % wide)[:, None]


def _conv_index(layer: SlimConv2d, positions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    row, column = _places(layer, positions, height, width)
    ys, xs = _taps(layer, positions.device)
    return (row * layer.stride[0] + ys)[:, :, None], (column * layer.stride[1] + xs)[:, None, :]


def _transposed_index(
    layer: SlimConvTranspose2d, positions: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    row, column = _places(layer, positions, height, width)
    ys, xs = _taps(layer, positions.device)
    found = []
    for axis, (place, taps, length) in enumerate(((row, ys, height), (column, xs, width))):
        reached = place + cast(int, layer.padding[axis]) - taps
        source = torch.div(reached, layer.stride[axis], rounding_mode="floor")
        found.append((source, (reached % layer.stride[axis] == 0) & (source >= 0) & (source < length)))
    (rows, tall), (columns, wide) = found
    return rows[:, :, None], columns[:, None, :], tall[:, :, None] & wide[:, None, :]

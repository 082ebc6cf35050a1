"""The FID Inception network: pytorch-fid's ``InceptionV3``, arranged to be fast on one CPU core.

Structure, weights and preprocessing are pytorch-fid's, among them two peculiarities of the TensorFlow release
that torchvision's network has not: average pools leave the padding out, and the last block pools by maximum.
What differs is the order of the arithmetic: batch norms are folded into the convolutions, tensors are
channels-last, and oneDNN's fused convolution + ReLU is used where it works. Features differ from
pytorch-fid's by about 1e-5 (of values up to 3), an FID by less than 1e-3, and they take half the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search.measure.inception_weights import read_weights, weights_sha256

__all__ = ["FEATURES", "Inception", "load_inception"]

FEATURES = 2048
"""Features of a picture: the last average pool."""

SIDE_PX = 299
"""Side to which pytorch-fid resizes every picture, bilinear, without antialiasing."""

EPSILON = 1e-3
"""Added to the variance in every batch norm."""

Conv = Callable[..., nn.Module]


class Inception(nn.Module):
    """N x 3 x H x W RGB in 0..255 (uint8, or floats of that range) to N x 2048, float32.

    Attributes:
        weights_sha256: over all tensors that the features depend on.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights_sha256 = weights_sha256(tensors)

        def block(name: str) -> Conv:
            return lambda branch, **options: _FoldedConv(tensors, f"{name}.{branch}", **options)

        stem = functools.partial(_FoldedConv, tensors)
        self.layers = nn.Sequential(
            stem("Conv2d_1a_3x3", stride=2),
            stem("Conv2d_2a_3x3", padded=False),
            stem("Conv2d_2b_3x3"),
            nn.MaxPool2d(3, 2),
            stem("Conv2d_3b_1x1"),
            stem("Conv2d_4a_3x3", padded=False),
            nn.MaxPool2d(3, 2),
            *(_block_35(block(name)) for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d")),
            _block_35_to_17(block("Mixed_6a")),
            *(_block_17(block(name)) for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")),
            _block_17_to_8(block("Mixed_7a")),
            _block_8(block("Mixed_7b"), _average_pool()),
            _block_8(block("Mixed_7c"), nn.MaxPool2d(3, 1, 1)),
            nn.AdaptiveAvgPool2d(1),
        )
        self.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        device = next(self.parameters()).device
        x = images.to(device).float().div(255).contiguous(memory_format=torch.channels_last)
        x = F.interpolate(x, size=(SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
        return cast(Tensor, self.layers(2 * x - 1)).flatten(1).float()


def load_inception(device: str | torch.device = "cpu") -> Inception:
    """Return the network with its weights, fetched on first use.

    Raises:
        BadInput: the weights are not to be had.
        CheckpointError: the file in torch's hub folder is damaged or something else.
    """
    return Inception(read_weights()).to(device)


# The blocks, named by the side of their maps. Branches in the order of their channels.


def _block_35(conv: Conv) -> nn.Module:
    return _Branches(
        conv("branch1x1"),
        nn.Sequential(conv("branch5x5_1"), conv("branch5x5_2")),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), conv("branch3x3dbl_3")),
        nn.Sequential(_average_pool(), conv("branch_pool")),
    )


def _block_35_to_17(conv: Conv) -> nn.Module:
    return _Branches(
        conv("branch3x3", stride=2),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), conv("branch3x3dbl_3", stride=2)),
        nn.MaxPool2d(3, 2),
    )


def _block_17(conv: Conv) -> nn.Module:
    return _Branches(
        conv("branch1x1"),
        nn.Sequential(*(conv(f"branch7x7_{i}") for i in (1, 2, 3))),
        nn.Sequential(*(conv(f"branch7x7dbl_{i}") for i in (1, 2, 3, 4, 5))),
        nn.Sequential(_average_pool(), conv("branch_pool")),
    )


def _block_17_to_8(conv: Conv) -> nn.Module:
    return _Branches(
        nn.Sequential(conv("branch3x3_1"), conv("branch3x3_2", stride=2)),
        nn.Sequential(*(conv(f"branch7x7x3_{i}") for i in (1, 2, 3)), conv("branch7x7x3_4", stride=2)),
        nn.MaxPool2d(3, 2),
    )


def _block_8(conv: Conv, pool: nn.Module) -> nn.Module:
    fork = _Branches(conv("branch3x3_2a"), conv("branch3x3_2b"))
    double_fork = _Branches(conv("branch3x3dbl_3a"), conv("branch3x3dbl_3b"))
    return _Branches(
        conv("branch1x1"),
        nn.Sequential(conv("branch3x3_1"), fork),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), double_fork),
        nn.Sequential(pool, conv("branch_pool")),
    )


def _average_pool() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class _Branches(nn.Module):
    """The channels of all branches, one after the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class _FoldedConv(nn.Module):
    """Convolution, batch norm in evaluation, and ReLU, as one convolution and a ReLU.

    Strided ones are not padded in this network; the others keep the side of their maps unless ``padded`` is
    False.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        weight, scale, shift, mean, variance = (
            tensors[f"{name}.{tensor}"].double()
            for tensor in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        factor = scale / (variance + EPSILON).sqrt()
        self.weight = nn.Parameter((weight * factor.view(-1, 1, 1, 1)).float())
        self.bias = nn.Parameter((shift - mean * factor).float())
        self.stride = (stride, stride)
        high, wide = weight.shape[2:]
        self.padding = (high // 2, wide // 2) if padded and stride == 1 else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            fused = _fused_convolution()
            if fused is not None:
                return fused(x, self.weight, self.bias, self.padding, self.stride, (1, 1), 1, "relu", [], "")
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()


@functools.cache
def _fused_convolution() -> Callable[..., Tensor] | None:
    """oneDNN's convolution + ReLU, a tenth faster than the two apart; None where torch lacks it.

    It is the operator that ``torch.compile`` emits, but not a public one: hence the trial run.
    """
    x, weight = torch.linspace(-1, 1, 400).view(1, 4, 10, 10), torch.linspace(-1, 1, 144).view(4, 4, 3, 3)
    bias = torch.linspace(-1, 1, 4)
    try:
        operator = cast("Callable[..., Tensor]", torch.ops.mkldnn._convolution_pointwise)
        y = operator(x, weight, bias, (1, 1), (2, 2), (1, 1), 1, "relu", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    expected = F.conv2d(x, weight, bias, stride=2, padding=1).relu()
    return operator if torch.allclose(y, expected, atol=1e-4) else None

"""The rewrites against torch's own operators, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gs_search.export.subpixel import SubPixelConv2d, wide_factor


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [
        (3, 2, 1, 1),  # CycleGAN, CartoonGAN
        (4, 2, 1, 0),  # pix2pix
        (2, 2, 0, 0),
        (3, 2, 1, 0),  # an odd side
        (5, 2, 2, 1),
        (6, 3, 2, 1),
        (3, 3, 0, 0),
        (4, 2, 3, 1),  # negative padding
        ((3, 4), 2, (1, 1), (1, 0)),
        (1, 2, 0, 0),  # pixels that nothing reaches
    ],
)
def test_transposed_convolutions(
    kernel: int | tuple[int, int], stride: int, padding: int, extra: int, bias: bool, groups: int
) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(
        4, 6, kernel, stride=stride, padding=padding, output_padding=extra, bias=bias, groups=groups
    ).double()
    rewritten = SubPixelConv2d.of_transposed(layer, layer.weight, layer.bias)
    assert rewritten is not None
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    wanted = layer(x)
    assert rewritten(x).shape == wanted.shape
    torch.testing.assert_close(rewritten(x), wanted, rtol=0, atol=1e-12)


def test_what_cannot_be_rewritten_is_left() -> None:
    for layer in (nn.ConvTranspose2d(2, 2, 3, dilation=2, stride=2), nn.ConvTranspose2d(2, 2, 3, stride=(2, 1))):
        assert SubPixelConv2d.of_transposed(layer, layer.weight, layer.bias) is None
    for wide in (nn.Conv2d(2, 2, 3, stride=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")):
        assert SubPixelConv2d.of_wide(wide, wide.weight, wide.bias, 2) is None


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize(("kernel", "padding"), [(7, 0), (3, 1), ((3, 5), (0, 2))])
def test_wide_convolutions(kernel: int | tuple[int, int], padding: int, factor: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 3, kernel, padding=padding).double()
    rows, columns = layer.kernel_size
    # Output sides that the factor divides.
    x = torch.randn(2, 5, 8 + rows - 1 - 2 * layer.padding[0], 12 + columns - 1 - 2 * layer.padding[1]).double()
    rewritten = SubPixelConv2d.of_wide(layer, layer.weight, layer.bias, factor)
    assert rewritten is not None
    torch.testing.assert_close(rewritten(x), layer(x), rtol=0, atol=1e-12)


def test_codes_move_and_none_changes() -> None:
    layer = nn.Conv2d(4, 3, 7)
    codes = torch.randint(-127, 128, (3, 4, 7, 7), dtype=torch.int8)
    rewritten = SubPixelConv2d.of_wide(layer, layer.weight, layer.bias, 2)
    assert rewritten is not None
    moved = rewritten.taps.deal(codes)
    assert moved.dtype == torch.int8 and moved.shape == (12, 4, 8, 8)
    assert sorted(moved[moved != 0].tolist()) == sorted(4 * codes[codes != 0].tolist())


def test_where_it_pays() -> None:
    assert wide_factor(nn.Conv2d(16, 3, 7)) == 4
    assert wide_factor(nn.Conv2d(3, 16, 7)) == 2
    assert wide_factor(nn.Conv2d(3, 17, 7)) == 1
    assert wide_factor(nn.Conv2d(16, 3, 3)) == 1
    assert wide_factor(nn.ConvTranspose2d(16, 3, 7)) == 1

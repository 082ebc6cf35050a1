from __future__ import annotations

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gs_search.measure.flops import count_flops
from gs_search.networks import CartoonGenerator, ResnetGenerator


def test_the_published_resnet_generator() -> None:
    """Published as 56.8 G; by hand 49.5515 G, where a transposed convolution costs its input size."""
    generator = ResnetGenerator(64, 9)
    flops = count_flops(generator, 256)
    assert flops.macs_conv / 1e9 == pytest.approx(49.5515, abs=5e-5)
    assert flops.macs_paper / 1e9 == pytest.approx(56.7993, abs=5e-5)
    # fvcore adds five operations an element of a norm with scales, four without.
    elements = 2 * 64 * 256**2 + 2 * 128 * 128**2 + (1 + 18) * 256 * 64**2
    assert flops.macs == flops.macs_conv + 5 * elements
    # GAN Slimming's generator has scales in 13 norms only: not where a residual is added.
    plain = 10 * 256 * 64**2
    assert (flops.macs - plain) / 1e9 == pytest.approx(49.704, abs=5e-4)


def test_norms_without_scales_cost_less() -> None:
    norms = [nn.InstanceNorm2d(3, affine=affine) for affine in (True, False)]
    assert [count_flops(norm, 8).macs for norm in norms] == [5 * 3 * 64, 4 * 3 * 64]


def test_cartoongan_scales_with_the_picture() -> None:
    flops = count_flops(CartoonGenerator(), 64)
    assert flops.macs_conv / 1e9 == pytest.approx(54.383 / 16, rel=1e-4)
    assert flops.macs_paper / 1e9 == pytest.approx(61.631 / 16, rel=1e-4)


def test_convolutions_equal_torch_s_own_counter() -> None:
    generator = ResnetGenerator(16, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.zeros(1, 3, 64, 64))
    assert 2 * count_flops(generator, 64).macs_conv == counter.get_total_flops()


class FakeQuantised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().amax() / 7
        return F.conv2d(x, (self.weight / scale).round() * scale, self.bias, self.stride, self.padding)


class FakeQuantisedTranspose(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = torch.fake_quantize_per_tensor_affine(self.weight, 0.1, 0, -8, 7)
        return F.conv_transpose2d(x, weight, self.bias, self.stride, self.padding, self.output_padding)


def test_subclasses_with_fake_quantised_weights_count_like_plain_ones() -> None:
    def network(conv: type[nn.Conv2d], transpose: type[nn.ConvTranspose2d]) -> nn.Module:
        return nn.Sequential(conv(3, 4, 3, 2, 1), nn.ReLU(), transpose(4, 5, 3, 2, 1, 1), conv(5, 3, 1))

    plain = count_flops(network(nn.Conv2d, nn.ConvTranspose2d), 16)
    assert count_flops(network(FakeQuantised, FakeQuantisedTranspose), 16) == plain
    # By hand: 8x8 x 3x4x9, input 8x8 x 4x5x9, 16x16 x 5x3; the transposed one again at its output's 16x16.
    assert plain.macs == plain.macs_conv == 64 * 108 + 64 * 180 + 256 * 15
    assert plain.macs_paper == 64 * 108 + 256 * 180 + 256 * 15


def test_groups_divide_the_cost() -> None:
    assert count_flops(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 4, channels=8).macs == 16 * 8 * 9


def test_counting_leaves_the_module_as_it_was_and_says_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Tanh(), nn.Conv2d(4, 3, 1)).double()
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        count_flops(module, 8)
    assert [m.training for m in module] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert capfd.readouterr() == ("", "") and caplog.text == ""

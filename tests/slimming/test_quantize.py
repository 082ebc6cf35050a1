"""Quantizers against torch's own fake quantization, LSQ's published gradient, and brute force."""

from __future__ import annotations

import pytest
import torch

from gs_search.slimming.quantize import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    best_weight_range,
)


def test_activations_equal_torchs_fake_quantization() -> None:
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3
    for signed in (True, False):
        quantizer = ActivationQuantizer(8, torch.tensor(2.5), signed=signed)
        expected = torch.fake_quantize_per_tensor_affine(x, quantizer.step.item(), 0, quantizer.low, quantizer.high)
        torch.testing.assert_close(quantizer(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_equal_torchs_fake_quantization_per_channel(axis: int) -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    quantizer = WeightQuantizer(4, best_weight_range(weight, 4, axis), axis)
    step = quantizer.step.detach()
    expected = torch.fake_quantize_per_channel_affine(
        weight, step, torch.zeros(len(step), dtype=torch.int32), axis, quantizer.low, quantizer.high
    )
    torch.testing.assert_close(quantizer(weight), expected, rtol=0, atol=1e-6)


def test_values_are_codes_times_step_to_the_last_bit() -> None:
    x = torch.linspace(-4, 4, 100_001)
    quantizer = ActivationQuantizer(8, torch.tensor(3.3), signed=True)
    assert torch.equal(quantizer(x), quantizer.codes(x).float() * quantizer.step)


def test_gradient_of_the_range_is_lsqs() -> None:
    """Esser et al., ICLR 2020, eq. (3): d out / d step = round(v) - v inside, the limits outside."""
    x = torch.tensor([-9.0, -0.3, 0.26, 1.7, 9.0], requires_grad=True)
    quantizer = ActivationQuantizer(3, torch.tensor(3.0), signed=True)  # step 1, codes -4..3
    quantizer(x).sum().backward()
    v = x.detach()
    inside = (v > -4) & (v < 3)
    expected = torch.where(inside, v.round() - v, v.clamp(-4, 3)).sum()
    torch.testing.assert_close(quantizer.change.grad, expected.reshape(()))  # the step's base is 1
    assert x.grad is not None
    assert torch.equal(x.grad, inside.float())


def test_best_ranges_are_never_worse_than_the_largest_magnitude() -> None:
    weight = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(2)) ** 3
    for bits in (2, 3, 4, 8):
        best = WeightQuantizer(bits, best_weight_range(weight, bits))
        plain = WeightQuantizer(bits, weight.abs().amax(dim=(1, 2, 3)))

        def error(quantizer: WeightQuantizer) -> torch.Tensor:
            return (quantizer(weight) - weight).square().sum(dim=(1, 2, 3)).detach()

        assert (error(best) <= error(plain) + 1e-5).all()
    stream = torch.cat([torch.randn(10_000), torch.tensor([60.0])])
    assert activation_range(stream, 4, signed=True) < 60.0


def test_settling_keeps_every_code() -> None:
    weight = torch.randn(8, 4, 3, 3)
    quantizer = WeightQuantizer(4, best_weight_range(weight, 4))
    with torch.no_grad():
        quantizer.change.uniform_(-0.3, 0.3)
    before = quantizer.codes(weight)
    quantizer.settle()
    assert torch.equal(quantizer.codes(weight), before)
    assert not quantizer.change.any()


@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="between 2 and 8"):
        WeightQuantizer(bits, torch.ones(3))

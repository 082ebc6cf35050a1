"""Quantizers against torch's own fake quantization, LSQ's published gradient, and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.slimming import Teacher
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.output_quantizer import output_grid
from gs_search.slimming.quantize import (
    ACTIVATION_CLIPS,
    WEIGHT_CLIPS,
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    best_weight_range,
    weight_rows,
)
from gs_search.slimming.repair import attach_quantizers
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.test_channels import Excited, Transposed, randomised

LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3), 0),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), 0),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), 1),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), 1),
    "transposed, depthwise": (nn.ConvTranspose2d(6, 6, 3, groups=6), 1),
    "linear": (nn.Linear(5, 6), 0),
}


def limits(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def least_error(values: np.ndarray, low: int, high: int, clips: tuple[float, ...]) -> float:
    """The range of least squared rounding error, one after the other in numpy."""
    errors = []
    for clip in clips:
        step = np.abs(values).max() * clip / high
        errors.append(np.square(np.clip(np.round(values / step), low, high) * step - values).sum())
    return float(np.abs(values).max() * clips[int(np.argmin(errors))])


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_of_every_width(bits: int) -> None:
    """Weights: 2^b - 1 codes around zero. Streams: 2^b, from zero or from one more below it than above."""
    x = torch.linspace(-3, 3, 6001)
    weights = WeightQuantizer(bits, torch.tensor([2.0]))
    signed, unsigned = (ActivationQuantizer(bits, torch.tensor(2.0), signed=s) for s in (True, False))
    high = 2 ** (bits - 1) - 1
    assert weights.codes(x.view(1, -1)).unique().tolist() == list(range(-high, high + 1))
    assert signed.codes(x).unique().tolist() == list(range(-high - 1, high + 1))
    assert unsigned.codes(x).unique().tolist() == list(range(2**bits))
    for quantizer in (weights, signed, unsigned):
        zero = quantizer.codes(torch.zeros(1, 1))
        assert zero.item() == quantizer.zero_point == 0 and not quantizer(torch.zeros(1, 1)).any()
        assert quantizer(torch.full((1, 1), 9.0)).item() == pytest.approx(2.0)  # the range is the largest value
        assert quantizer.step.item() == pytest.approx(2.0 / quantizer.high)
        values = quantizer(x.view(1, -1))
        assert len(values.detach().unique()) == quantizer.high - quantizer.low + 1
    torch.testing.assert_close(weights(-x.view(1, -1)), -weights(x.view(1, -1)))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_calibrations_by_hand(bits: int, signed: bool) -> None:
    sample = torch.randn(10_000, generator=torch.Generator().manual_seed(bits)) ** 3
    sample = sample if signed else sample.abs()
    found = {
        m: activation_range(sample, bits, signed=signed, method=m).item() for m in ("max", "clip", "quantile", "mse")
    }
    ordered = np.sort(sample.abs().numpy())
    assert found["max"] == pytest.approx(ordered[-1])
    assert found["clip"] == pytest.approx(0.7 * ordered[-1])
    assert found["quantile"] == pytest.approx(ordered[9_994])  # the 9,995th of 10,000
    expected = least_error(sample.numpy().astype(np.float64), *limits(bits, signed=signed), ACTIVATION_CLIPS)
    assert found["mse"] == pytest.approx(expected, rel=1e-5)
    assert found["mse"] < found["max"] or bits == 8


@pytest.mark.parametrize("method", ["max", "clip", "quantile", "mse"])
def test_a_stream_of_zeros_has_a_range(method: str) -> None:
    range_ = activation_range(torch.zeros(10), 4, signed=False, method=method)
    assert range_.shape == () and range_ > 0


@pytest.mark.parametrize("method", ["max", "clip", "quantile", "mse"])
def test_the_setting_chooses_the_calibration(method: str) -> None:
    """Of every input and output, by the values that really pass."""
    teacher = Teacher(randomised(Excited), 32)
    network, _ = teacher.student("raw")
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    bits = dict.fromkeys(GROUPS, 5)
    settings = SlimmingSettings(weight_bits=32, activation_bits=bits, calibration=method, quantize="deploy")
    attach_quantizers(teacher.graph, network, settings, pictures)
    layers = slim_layers(network)
    stem, squeeze = layers["stem"], layers["squeeze"]
    assert stem.input_quantizer.bits == 5 and stem.input_quantizer.signed
    expected = activation_range(pictures, 5, signed=True, method=method) / 15
    torch.testing.assert_close(stem.input_quantizer.step.detach(), expected)
    with torch.no_grad():
        output = nn.functional.conv2d(stem.input_quantizer(pictures), stem.weight, stem.bias, padding=1)
    expected = output_grid(output, centred=True, method=method)
    assert torch.equal(stem.output_quantizer.step.detach(), expected.step)
    assert torch.equal(stem.output_quantizer.zero.detach(), expected.zero)
    assert squeeze.input_quantizer.base.dim() == 0
    assert [name for name, layer in layers.items() if not layer.output_quantizer] == ["squeeze", "excite"]  # linear


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_ranges_of_weights_one_output_channel_at_a_time(name: str, bits: int) -> None:
    layer, axis = LAYERS[name]
    groups = layer.groups if axis == 1 else 1
    weight = layer.weight.detach() ** 3
    ranges = best_weight_range(weight, bits, axis, groups)
    quantizer = WeightQuantizer(bits, ranges, axis, groups)
    rounded, codes = quantizer(weight).detach(), quantizer.codes(weight)
    high = 2 ** (bits - 1) - 1
    assert ranges.shape == (6,) and torch.equal(quantizer.step.detach(), ranges / high)
    for channel in range(6):
        if axis == 0:
            own: tuple[slice | int, ...] = (channel,)
        else:  # weight of inputs x (outputs of a group): the inputs of the channel's group, and its place there
            inputs, outputs = weight.shape[0] // groups, weight.shape[1]
            group = channel // outputs
            own = (slice(group * inputs, (group + 1) * inputs), channel % outputs)
        values = weight[own].double().numpy()
        assert ranges[channel].item() == pytest.approx(least_error(values, -high, high, WEIGHT_CLIPS), rel=1e-5)
        step = ranges[channel] / high
        torch.testing.assert_close(rounded[own], (weight[own] / step).round().clamp(-high, high) * step)
        assert torch.equal(codes[own].float() * step, rounded[own])
        assert torch.equal(
            weight_rows(weight, axis, groups)[channel].sort().values, weight[own].flatten().sort().values
        )


@pytest.mark.parametrize("signed", [True, False])
def test_without_gradients_the_values_are_the_same(signed: bool) -> None:
    x = torch.randn(10_001, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        quantizer = ActivationQuantizer(5, torch.tensor(1.7), signed=signed)
        with torch.no_grad():
            quantizer.change.fill_(0.13)
            quick = quantizer(x.to(kind))
        assert torch.equal(quantizer(x.to(kind)), quick) and quick.dtype == kind
    assert torch.equal(x, before)


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


def test_gradients_of_a_weights_ranges_channel_by_channel() -> None:
    """The same for weights: each range gathers the gradients of its own channel, weights in range get theirs whole."""
    weight = torch.tensor([[-9.0, 0.4, 1.2], [0.6, -0.2, 2.2]], requires_grad=True)
    quantizer = WeightQuantizer(2, torch.tensor([1.0, 2.0]))  # codes -1..1, steps 1 and 2
    upstream = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (quantizer(weight) * upstream).sum().backward()
    # v = w / s: [-9, 0.4, 1.2] and [0.3, -0.1, 1.1]; d out / d s: -1, 0 - 0.4, 1 and 0 - 0.3, 0 + 0.1, 1
    by_step = torch.tensor([-1.0 - 0.8 + 3.0, -1.2 + 0.5 + 6.0])
    torch.testing.assert_close(quantizer.change.grad, by_step * torch.tensor([1.0, 2.0]))  # d s / d change = base
    assert torch.equal(weight.grad, upstream * torch.tensor([[0.0, 1, 0], [1, 1, 0]]))


def test_a_range_cannot_turn_negative() -> None:
    quantizer = ActivationQuantizer(4, torch.tensor(1.0), signed=True)
    with torch.no_grad():
        quantizer.change.fill_(-5.0)
    assert quantizer.step.item() == pytest.approx(0.1 / 7) and torch.isfinite(quantizer(torch.ones(3))).all()


def test_stem_and_head_keep_eight_bits_and_pixels_are_codes_already() -> None:
    teacher = Teacher(randomised(Transposed), 32)
    network, _ = teacher.student("raw")
    attach_quantizers(
        teacher.graph, network, SlimmingSettings(weight_bits=3, activation_bits=4), torch.rand(1, 3, 32, 32)
    )
    layers = list(slim_layers(network).values())
    assert layers[0].input_quantizer is None
    assert [layer.weight_quantizer.bits for layer in layers] == [8, *[3] * (len(layers) - 2), 8]
    assert [layer.input_quantizer.bits for layer in layers[1:]] == [*[4] * (len(layers) - 2), 8]
    assert [layer.input_quantizer.signed for layer in layers[1:]] == [True, *[False] * (len(layers) - 2)][
        : len(layers) - 1
    ]


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


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 16, 32])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"between 2 and 8 \\(or be 32 for float\\), not {bits}"):
        WeightQuantizer(bits, torch.ones(3))
    with pytest.raises(ValueError, match=f"between 2 and 8 .*, not {bits}"):
        ActivationQuantizer(bits, torch.ones(()), signed=True)

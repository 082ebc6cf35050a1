"""Grids of outputs against torch's own fake quantization, brute force, and gradients by hand."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.networks import Architecture, CartoonGenerator, ResnetGenerator, UnetGenerator
from gs_search.slimming import Teacher, load_student, record_targets, save_student, slim
from gs_search.slimming.extraction import check_parity, extract
from gs_search.slimming.layers import SlimBatchNorm2d, output_module, slim_layers
from gs_search.slimming.output_quantizer import CLIPS, OutputGrid, OutputQuantizer, best_grid, count_values, output_grid
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.sparsity import mask_
from gs_search.study.settings import SlimmingSettings
from tests.slimming.lessons import RandomLessons
from tests.slimming.test_channels import NETWORKS, Excited, Skips, random_alive, randomised

DEPLOY = SlimmingSettings(quantize="deploy")


def outputs(seed: int = 0) -> torch.Tensor:
    """Channels of many kinds: lopsided, far from zero, of one sign, with outliers, and one that never changes."""
    y = torch.randn(3, 6, 24, 24, generator=torch.Generator().manual_seed(seed))
    y[:, 1] = y[:, 1].exp() * 3
    y[:, 2] = y[:, 2] * 0.01 + 4
    y[:, 3] = -y[:, 3].abs()
    y[:, 4] = y[:, 4] ** 5
    y[:, 5] = 0.7
    return y


def squared_error(values: np.ndarray, counts: np.ndarray, grid: OutputGrid) -> np.ndarray:
    """Of each channel (rows), by the definition: the distance to the nearest of 256 values."""
    found = []
    for own, times, step, zero in zip(values, counts, grid.step.tolist(), grid.zero.tolist(), strict=True):
        codes = (np.arange(256) - zero) * step
        place = np.clip(np.searchsorted(codes, own), 1, 255)
        error = np.minimum((own - codes[place]) ** 2, (own - codes[place - 1]) ** 2)
        found.append((error * times).sum())
    return np.array(found)


@pytest.mark.parametrize("centred", [True, False])
def test_calibration_finds_the_best_pair_of_ends(centred: bool) -> None:
    """Channels of many values, most of them in the middle of their range: bells, one lopsided, one far from zero."""
    low, high = torch.tensor([-8.0, -3.0, 4.0, -1.0]), torch.tensor([8.0, 30.0, 6.0, 0.0])
    places = (torch.arange(4096) + 0.5) / 4096
    bells = torch.stack(
        [((places - m) / w).square().mul(-0.5).exp() for m, w in ((0.5, 0.07), (0.1, 0.05), (0.5, 0.2))]
    )
    counts = torch.cat([bells, torch.ones(1, 4096)]).mul(1e4).round().long()
    values = (low[:, None] + places * (high - low)[:, None]).double().numpy()
    middle = torch.tensor((values * counts.numpy()).sum(1) / counts.numpy().sum(1)) if centred else torch.zeros(4)
    tried = []
    for left, right in itertools.product(CLIPS, CLIPS):
        ends = middle + (low - middle).clamp(max=0) * left, middle + (high - middle).clamp(min=0) * right
        tried.append(squared_error(values, counts.numpy(), OutputGrid.of_range(*ends, centred=centred)))
    found = squared_error(values, counts.numpy(), best_grid(low, high, counts, centred=centred))
    assert (found <= np.min(tried, axis=0) * 1.001).all()
    assert (found[:2] < tried[0][:2] * 0.7).all(), "cutting off ends pays"


def test_other_calibrations_by_hand() -> None:
    y = outputs()[:, :5]
    low, high = y.amin(dim=(0, 2, 3)), y.amax(dim=(0, 2, 3))
    whole = output_grid(y, centred=False, method="max")
    assert torch.equal(whole.step, OutputGrid.of_range(low, high, centred=False).step)
    clip = output_grid(y, centred=False, method="clip")
    torch.testing.assert_close(clip.step, whole.step * 0.7)
    quantile = output_grid(y, centred=True, method="quantile")
    for channel in range(5):
        values = y[:, channel].flatten().double().numpy()
        below, above = np.quantile(values, (0.00025, 0.99975), method="inverted_cdf")
        bins = (values.max() - values.min()) / 4096
        assert float(quantile.step[channel]) * 255 == pytest.approx(above - below, abs=4 * bins)
    assert (quantile.step <= output_grid(y, centred=True, method="max").step).all()


def test_counts_are_numpys_histogram() -> None:
    y = outputs()[:, :5]
    low, high = y.amin(dim=(0, 2, 3)), y.amax(dim=(0, 2, 3))
    counts = count_values(y, low, high)
    assert (counts.sum(dim=1) == y[:, 0].numel()).all()
    for channel in range(5):
        expected, _ = np.histogram(y[:, channel].numpy(), 4096, (float(low[channel]), float(high[channel])))
        assert np.abs(counts[channel].numpy() - expected).sum() < 40, "but for values on an edge"


def test_codes_of_zero_fit_their_bytes() -> None:
    y = outputs()
    inside, anywhere = output_grid(y, centred=False), output_grid(y, centred=True)
    assert ((inside.zero >= 0) & (inside.zero <= 255)).all() and inside.zero[3] == 255
    assert anywhere.zero.abs().max() <= 255 * 128 and anywhere.zero[2] < -255
    assert all(torch.equal(zero, zero.round()) for zero in (inside.zero, anywhere.zero))
    error = (anywhere.round(y) - y).abs().amax(dim=(0, 2, 3))
    assert error[5] < 1e-4 and error[2] < 2e-3


def quantizer(*, centred: bool = False) -> OutputQuantizer:
    return OutputQuantizer(output_grid(outputs()[:, :4], centred=centred), centred=centred)


def test_values_equal_torchs_fake_quantization_per_channel() -> None:
    y, found = outputs(1)[:, :4], quantizer()
    expected = torch.fake_quantize_per_channel_affine(y, found.step.detach(), found.zero.detach().int(), 1, 0, 255)
    assert torch.equal(found(y).detach(), found.grid.round(y)), "with and without gradients"
    # torch multiplies by the inverse of the step: a value in the middle between two may fall to the other side.
    steps = ((found(y).detach() - expected) / found.step.detach().view(1, -1, 1, 1)).abs()
    assert float(steps.max()) < 1.01 and float((steps > 0.01).float().mean()) < 1e-3
    back = (found.codes(y) - found.zero.view(1, -1, 1, 1)) * found.step.view(1, -1, 1, 1)
    assert found.codes(y).dtype == torch.uint8 and torch.equal(back.detach(), found.grid.round(y))
    assert not found(torch.zeros(1, 4, 1, 1)).any(), "0 has a code"


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_precisions(kind: torch.dtype) -> None:
    y, found = outputs(1)[:, :4].to(kind), quantizer(centred=True)
    assert found(y).dtype == kind
    with torch.no_grad():
        assert torch.equal(found(y), found(y.clone().requires_grad_()))
    if kind == torch.bfloat16:  # computed in float32: the codes are those of the same numbers
        assert torch.equal(found.codes(y), found.codes(y.float()))


def test_gradients_by_hand() -> None:
    """Steps 1 and 2, zeros 100 and 0: codes end at -100 and 155, and at 0 and 510."""
    found = OutputQuantizer(OutputGrid(torch.tensor([1.0, 2.0]), torch.tensor([100.0, 0.0])), centred=True)
    y = torch.tensor([[-300.0, 0.3, 155.4, 200.0], [-1.0, 2.8, 509.0, 600.0]]).view(1, 2, 2, 2).requires_grad_()
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).view(1, 2, 2, 2)
    (found(y) * upstream).sum().backward()
    # v = y / s. Channel 0: -300, 0.3, 155.4, 200 (inside: 0.3); channel 1: -0.5, 1.4, 254.5, 300 (inside: 1.4, 254.5).
    assert y.grad is not None
    assert y.grad.flatten().tolist() == [0, 2, 0, 0, 0, 6, 7, 0]
    by_step = [1 * -100 + 2 * (0 - 0.3) + 3 * 155 + 4 * 155, 0 + 6 * (1 - 1.4) + 7 * (254 - 254.5) + 8 * 255]
    by_zero = [-(1 + 3 + 4) * 1.0, -(5 + 8) * 2.0]
    assert found.change.grad is not None
    torch.testing.assert_close(found.change.grad[0], torch.tensor(by_step) * torch.tensor([1.0, 2.0]))  # d s / d change
    torch.testing.assert_close(found.change.grad[1], torch.tensor(by_zero) * 255)


def test_gradients_of_the_ends_are_those_of_what_is_clipped() -> None:
    """Where nothing is rounded, in the limit of fine steps, LSQ's gradient is the true one: finite differences."""
    y = torch.randn(1, 1, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200
    wish = torch.randn(1, 1, 40, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(step: float, zero: float) -> float:
        return float((wish * y.clamp(-zero * step, (255 - zero) * step)).sum())

    found = OutputQuantizer(OutputGrid(torch.ones(1).double(), torch.tensor([90.0])), centred=False).double()
    clipped = y.clone()
    inside = (y > -90) & (y < 165)
    clipped[inside] = clipped[inside].round()  # on the grid: no error of rounding
    (wish * found(clipped)).sum().backward()
    by_step = (loss(1 + 1e-4, 90) - loss(1 - 1e-4, 90)) / 2e-4
    by_zero = (loss(1, 90 + 1e-4) - loss(1, 90 - 1e-4)) / 2e-4
    assert found.change.grad is not None
    assert found.change.grad.flatten().tolist() == pytest.approx([by_step, by_zero * 255], rel=1e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_settling_keeps_every_code_and_limits_hold(centred: bool) -> None:
    y, found = outputs(1)[:, :4], quantizer(centred=centred)
    with torch.no_grad():
        found.change.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(0))
    before = found.codes(y)
    found.settle()
    assert torch.equal(found.codes(y), before) and not found.change.any()
    with torch.no_grad():
        found.change.fill_(-50.0)
    assert (found.step > 0).all() and torch.isfinite(found(y)).all()
    assert bool((found.zero < -255 * 40).all()) if centred else found.zero.unique().tolist() == [0.0]


@pytest.mark.parametrize("name", NETWORKS)
def test_slices_and_parity(name: str) -> None:
    """Kept channels keep their grids to the last bit, and masked and extracted networks their codes."""
    teacher = Teacher(randomised(NETWORKS[name]), 32)
    network, _ = teacher.student("raw")
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    attach_quantizers(teacher.graph, network, DEPLOY, pictures)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, OutputQuantizer):
                module.change.uniform_(-0.2, 0.2)
    rng = np.random.default_rng(3)
    for _ in range(2):
        alive, masked = random_alive(teacher, rng), copy.deepcopy(network)
        mask_(teacher.graph, masked, alive)
        student = extract(teacher.graph, masked, alive)
        parity = check_parity(teacher.graph, masked, student, alive, pictures)
        assert parity.code_mismatches == 0 and parity.max_abs_difference < 1e-9
        for layer in slim_layers(student):
            own, whole = (output_module(place, layer).output_quantizer for place in (student, network))
            assert (own is None) == (whole is None)
            if own is not None and whole is not None:
                keep = torch.as_tensor(teacher.graph.kept(alive, layer, "out", len(whole.base)))
                assert torch.equal(own.step, whole.step[keep]) and torch.equal(own.zero, whole.zero[keep])


def rounded(teacher: Teacher, settings: SlimmingSettings = DEPLOY) -> set[str]:
    network, _ = teacher.student("raw")
    attach_quantizers(teacher.graph, network, settings, torch.rand(1, 3, 32, 32) * 2 - 1)
    return {name for name in slim_layers(network) if output_module(network, name).output_quantizer is not None}


def test_who_rounds_what_it_hands_on() -> None:
    """All but layers that one other reads alone, linear ones, and a first one that pads the picture with zeros."""
    cartoon = Teacher(randomised(lambda: CartoonGenerator(4, 1)), 32)
    assert cartoon.graph.feeds == {"down.0": "down.1", "down.4": "down.5", "up.0": "up.1", "up.4": "up.5"}
    names = set(slim_layers(cartoon.network))
    assert rounded(cartoon) == names - set(cartoon.graph.feeds)
    assert rounded(cartoon, SlimmingSettings()) == set()
    assert rounded(cartoon, SlimmingSettings(quantize="deploy", weight_bits=32, activation_bits=32)) == set()
    resnet = Teacher(randomised(lambda: ResnetGenerator(4, 1)), 32)
    assert resnet.graph.feeds == {} and rounded(resnet) == set(slim_layers(resnet.network))
    assert resnet.graph.centred == names_of_all_but_the_last(resnet)
    unet = Teacher(randomised(lambda: UnetGenerator(4, 3)), 32)
    assert "down.0.0" not in rounded(unet) and unet.graph.centred == frozenset()
    assert rounded(Teacher(randomised(Excited), 32)) == {"stem", "wide", "narrow", "head"} - {"stem"}


def names_of_all_but_the_last(teacher: Teacher) -> set[str]:
    return set(list(slim_layers(teacher.network))[:-1])


def test_behind_a_batch_norm_that_is_part_of_the_layer() -> None:
    teacher = Teacher(randomised(Skips), 32)
    network, _ = teacher.student("raw")
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    wide = SlimmingSettings(quantize="deploy", activation_bits=dict.fromkeys(("stem",), 8) | {"stem": 6})
    attach_quantizers(teacher.graph, network, wide, pictures)
    norm = output_module(network, "first.0")
    assert isinstance(norm, SlimBatchNorm2d) and slim_layers(network)["first.0"].output_quantizer is None
    assert norm.output_quantizer is not None
    with torch.no_grad():
        values = norm(slim_layers(network)["first.0"](pictures))
        plain = nn.BatchNorm2d.forward(norm, slim_layers(network)["first.0"](pictures))
    grid = norm.output_quantizer.grid
    assert torch.equal(values, grid.round(plain)) and not torch.equal(values, plain)


def test_training_moves_the_grids_and_files_keep_them(tmp_path: Path) -> None:
    teacher = Teacher(randomised(lambda: ResnetGenerator(4, 1)), 32)
    lessons = RandomLessons(teacher)
    settings = SlimmingSettings(
        quantize="deploy", target_gflops_ratio=0.5, steps=3, range_learning_rate=0.01, width_floor=2
    )
    targets = record_targets(teacher.network, lessons.inputs)
    untrained = slim(teacher, dataclasses.replace(settings, steps=0), lessons, targets, seed=0).network
    student = slim(teacher, settings, lessons, targets, seed=0).network
    moved = {name: output_module(student, name).output_quantizer for name in slim_layers(student)}
    for name, after in moved.items():
        before = output_module(untrained, name).output_quantizer
        assert after is not None and before is not None
        change = (after.step / before.step - 1).detach().abs()
        assert 0 < float(change.max()) < 0.05 and not after.change.any(), "moved a little, and settled"
    tensors = save_student(tmp_path / "s.safetensors", student, Architecture("cyclegan_resnet", 4, 1))
    loaded = load_student(tmp_path / "s.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(lessons.inputs), student(lessons.inputs))
    for name, layer in slim_layers(student).items():
        step, zero = tensors[f"{name}.output.step"], tensors[f"{name}.output.zero"]
        assert step.shape == zero.shape == (layer.num_outputs,) and step.dtype == torch.float32
        assert zero.dtype in (torch.uint8, torch.int16) and torch.equal(zero.float(), moved[name].zero)  # type: ignore


def test_best_grid_of_nothing_but_zeros() -> None:
    zeros = torch.zeros(3)
    grid = best_grid(zeros, zeros, count_values(torch.zeros(1, 3, 4, 4), zeros, zeros), centred=False)
    assert (grid.step > 0).all() and not grid.round(torch.zeros(1, 3, 2, 2)).any()

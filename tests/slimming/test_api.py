"""``slim_generator`` from end to end on networks of one's own, and what it says to bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gs_search.errors import BadInput, ConfigError, GsSearchError, UnsupportedNetwork
from gs_search.measure.flops import count_flops
from gs_search.networks import ResnetGenerator
from gs_search.slimming import load_student, save_student, slim_generator
from gs_search.slimming.layers import slim_layers
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.test_channels import OWN, Depthwise, Excited, Skips, Transposed, conv, randomised

pytestmark = pytest.mark.filterwarnings("ignore::gs_search.slimming.FrozenParts")

HALF = SlimmingSettings(
    target_gflops_ratio=0.5,
    steps=3,
    width_floor=2,
    discriminator_width=4,
    learning_rate=1e-5,  # harmless at once: rates are not looked for
    scale_learning_rate=1e-4,
)


def pictures(count: int = 6, px: int = 32) -> Tensor:
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return F.interpolate(noise, size=px, mode="bicubic").clamp(-1, 1)


@torch.no_grad()
def same_pictures(one: nn.Module, other: nn.Module) -> bool:
    return torch.equal(one(pictures()), other(pictures()))


@pytest.mark.parametrize("name", OWN)
def test_generators_of_ones_own_are_halved_stored_and_left_alone(name: str, tmp_path: Path) -> None:
    generator = randomised(OWN[name]).train()
    before = copy.deepcopy(generator)
    slimmed = slim_generator(generator, pictures(), HALF)
    assert 0.4 < slimmed.macs_share <= 0.5
    assert slimmed.parity.code_mismatches == 0 and slimmed.parity.max_abs_difference < 1e-5
    assert count_flops(slimmed.network, 32).macs <= 0.5 * count_flops(generator, 32).macs * 1.001
    tensors = save_student(tmp_path / "student.safetensors", slimmed.network, None)
    loaded = load_student(tmp_path / "student.safetensors", generator)
    assert same_pictures(loaded, slimmed.network)
    weights = sum(layer.weight.numel() for layer in slim_layers(slimmed.network).values())
    assert sum(t.numel() for n, t in tensors.items() if n.endswith(".codes")) == weights  # 8 bits each
    # Untouched: same weights, same mode, same pictures, no gradient, no hook, no other class.
    assert generator.training and all(p.requires_grad and p.grad is None for p in generator.parameters())
    assert [type(m) for m in generator.modules()] == [type(m) for m in before.modules()]
    assert all(torch.equal(tensor, before.state_dict()[key]) for key, tensor in generator.state_dict().items())
    assert same_pictures(generator.eval(), before.eval())


def test_a_generator_with_spectral_norm_is_left_alone() -> None:
    generator = nn.Sequential(nn.utils.parametrizations.spectral_norm(conv(3, 8)), nn.ReLU(), conv(8, 3)).eval()
    before = generator(pictures()).detach()
    slimmed = slim_generator(generator, pictures(), replace(HALF, target_gflops_ratio=1.0, steps=0))
    assert torch.equal(generator(pictures()).detach(), before)
    assert F.mse_loss(slimmed.network(pictures()), before) < 1e-3


@pytest.mark.parametrize("bits", [2, 4, 32])
def test_fewer_bits_are_fewer_bytes(bits: int, tmp_path: Path) -> None:
    generator = randomised(Transposed)
    settings = replace(
        HALF, weight_bits=dict.fromkeys(GROUPS, bits), steps=1, quantize="deploy" if bits == 4 else "inputs"
    )
    slimmed = slim_generator(generator, pictures(), settings)
    tensors = save_student(tmp_path / "student.safetensors", slimmed.network, None)
    layers = slim_layers(slimmed.network)
    weights = sum(layer.weight.numel() for layer in layers.values())
    kept = [tensors[f"{name}.weight" if bits == 32 else f"{name}.weight.codes"] for name in layers]
    held = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    assert weights * bits / 8 <= held <= weights * bits / 8 + len(kept)
    # Each layer but the last feeds the next one alone, whose input's range is its output's.
    assert [name for name in tensors if name.endswith(".output.step")] == (["body.12.output.step"] if bits == 4 else [])
    assert same_pictures(load_student(tmp_path / "student.safetensors", generator), slimmed.network)


def test_inner_leaves_what_several_layers_write() -> None:
    slimmed = slim_generator(randomised(Excited), pictures(), replace(HALF, prune="inner", target_gflops_ratio=0.7))
    whole = slim_generator(randomised(Excited), pictures(), replace(HALF, target_gflops_ratio=0.7))
    assert slimmed.alive["stem"].all() and not slimmed.alive["wide"].all()  # stem, excite and narrow write the stream
    assert not whole.alive["stem"].all()


@pytest.mark.parametrize("schedule", ["at_once", "proximal"])
def test_widths_are_rounded_up(schedule: Any) -> None:
    torch.manual_seed(0)
    settings = replace(HALF, round_to=8, schedule=schedule, steps=6, scale_learning_rate=0.05)
    slimmed = slim_generator(ResnetGenerator(12, 1), pictures(), settings)
    assert slimmed.macs_share <= 1.05 * 0.5 and not all(mask.all() for mask in slimmed.alive.values())
    for mask in slimmed.alive.values():
        assert mask.sum() % 8 == 0 or mask.all()


@pytest.mark.parametrize("name", ["depthwise", "excited"])
def test_the_papers_schedule_lands_too(name: str) -> None:
    settings = replace(HALF, schedule="proximal", steps=12, scale_learning_rate=0.02, scale_momentum=0.5)
    seen: list[dict[str, Any]] = []
    slimmed = slim_generator(randomised(OWN[name]), pictures(), settings, on_progress=seen.append)
    assert 0.4 < slimmed.macs_share <= 0.5
    assert [row["phase"] for row in slimmed.curve] == ["slim", "recover"]
    assert 1.0 > slimmed.curve[0]["macs_share"] >= slimmed.curve[1]["macs_share"] == slimmed.macs_share
    assert seen == [{**row, "steps": 12} for row in slimmed.curve]


TERMS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "hinge": ({"adversarial_loss": "hinge"}, {"pixel", "feature", "adversarial", "discriminator"}),
    "log": ({"adversarial_loss": "log"}, {"pixel", "feature", "adversarial", "discriminator"}),
    "none": ({"adversarial_weight": 0.0, "feature_weight": 0.0}, {"pixel"}),
    "map": ({"feature_match": "map", "adversarial_weight": 0.0}, {"pixel", "feature"}),
    "critic": (
        {"critic_feature_weight": 1.0, "feature_weight": 0.0},
        {"pixel", "adversarial", "critic_feature", "discriminator"},
    ),
    "content": ({"perceptual_weight": 1.0, "adversarial_weight": 0.0, "feature_weight": 0.0}, {"pixel", "perceptual"}),
    "style": (
        {"style_weight": 20.0, "perceptual_weight": 1.0, "adversarial_weight": 0.0},
        {"pixel", "feature", "perceptual", "style"},
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_logged_by_its_name(name: str) -> None:
    changes, terms = TERMS[name]
    slimmed = slim_generator(randomised(Depthwise), pictures(), replace(HALF, **changes))
    (row,) = slimmed.curve
    assert set(row) == {"step", "phase", "macs_share"} | terms
    assert all(row[term] != 0 and abs(row[term]) < 1e4 for term in terms)


def test_target_pictures_are_asked_for_by_step_and_count() -> None:
    asked = []

    def real(step: int, count: int) -> Tensor:
        asked.append((step, count))
        return pictures()[:count]

    slim_generator(randomised(Skips), pictures(), replace(HALF, discriminator_real="target"), real=real)
    assert asked == [(0, 2), (1, 2), (2, 2)]


def test_rates_are_those_that_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the cut they must spare the teacher; after it, as many decibels more as the student has lost."""
    harm = [{"factor": 0.5**k, "psnr_to_teacher": decibels} for k, decibels in enumerate((12.0, 20.0, 31.0))]
    given: dict[str, Any] = {}
    monkeypatch.setattr("gs_search.slimming.api.harm_of_rates", lambda *args, **more: harm)
    monkeypatch.setattr("gs_search.slimming.api.slim", lambda *args, **more: given.update(more))
    generator = randomised(Skips)
    slim_generator(generator, pictures(), HALF)
    assert given["rate_factor"] == 0.25
    noisy = copy.deepcopy(generator)
    with torch.no_grad():
        assert given["on_repaired"](noisy) == 0.25  # not cut at all
        noisy.last.weight.normal_(0, 1)
        assert given["on_repaired"](noisy) == 1.0  # far from the teacher


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_floats_of_other_precisions_are_pictures_too(kind: torch.dtype) -> None:
    slim_generator(randomised(Skips), pictures().to(kind), replace(HALF, steps=1))


def test_a_generator_without_a_channel_to_cut_is_still_quantized() -> None:
    slimmed = slim_generator(nn.Sequential(conv(3, 3), nn.Tanh()), pictures(), SlimmingSettings(steps=1))
    assert slimmed.macs_share == 1.0


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-5])
def test_nearly_constant_channels_do_not_break_the_repair(scale: float) -> None:
    """As a proximal phase leaves them at the floor: all shift, hardly any signal."""
    generator = nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), conv(8, 8, 1), conv(8, 3))
    nn.init.constant_(generator[1].weight, scale)
    nn.init.uniform_(generator[1].bias, 1, 2)
    slimmed = slim_generator(
        generator, pictures(), replace(HALF, steps=0, importance="raw", weight_bits=32, activation_bits=32)
    )
    assert torch.isfinite(slimmed.network(pictures())).all()


class Answer(nn.Module):
    """Two convolutions and a last word."""

    def __init__(self, last: Callable[[Tensor], Any], outputs: int = 3, px: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(3, 8), conv(8, outputs, px), last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(torch.relu(self.first(x))))


class Numpy(Answer):
    def forward(self, x: Tensor) -> Any:
        return self.second(torch.from_numpy(self.first(x).detach().numpy().copy()))


GENERATORS: dict[str, tuple[Callable[[], nn.Module], type[GsSearchError], list[str]]] = {
    "no layers": (nn.Identity, UnsupportedNetwork, ["no Conv2d"]),
    "linear alone": (lambda: nn.Sequential(nn.Linear(32, 32)), UnsupportedNetwork, ["no Conv2d"]),
    "numpy inside": (lambda: Numpy(nn.Identity()), UnsupportedNetwork, ["100%", "first (", "allow_frozen"]),
    "random": (
        lambda: Answer(lambda x: x + torch.rand_like(x)),
        UnsupportedNetwork,
        ["another picture each time", "determin"],
    ),
    "pair": (lambda: Answer(lambda x: (x, x)), UnsupportedNetwork, ["one N x C x H x W", "tuple"]),
    "one grey value": (lambda: Answer(nn.Identity(), 1), UnsupportedNetwork, ["3 channels", "1"]),
    "four channels": (lambda: Answer(nn.Identity(), 4), UnsupportedNetwork, ["3 channels", "4"]),
    "flat": (lambda: Answer(lambda x: x.flatten(1)), UnsupportedNetwork, ["2 dimensions"]),
    "fails": (lambda: nn.Sequential(conv(3, 8), conv(7, 3)), UnsupportedNetwork, ["1 (Conv2d)", "32 x 32"]),
    "old spectral norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(conv(3, 8)), nn.ReLU(), conv(8, 3)),
        UnsupportedNetwork,
        ["0"],
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_that_cannot_be_slimmed_are_refused_in_a_line(name: str) -> None:
    make, kind, words = GENERATORS[name]
    with pytest.raises(kind) as caught:
        slim_generator(make(), pictures(), replace(HALF, steps=1))
    said = str(caught.value)
    assert "\n" not in said and len(said) < 400
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (pictures()[0], ["N x 3 x H x H", "3 x 32 x 32"]),
        (pictures()[:, :1], ["6 x 1 x 32 x 32"]),
        (pictures()[..., :24], ["6 x 3 x 32 x 24"]),
        ((pictures() * 127).to(torch.uint8), ["floats", "x / 127.5 - 1"]),
        (pictures() * 255, ["[-1, 1]", "255"]),
        (pictures() / 0, ["finite"]),
        (pictures(3), ["at least 4", "3"]),
    ],
)
def test_wrong_pictures_are_refused(wrong: Tensor, words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        slim_generator(randomised(Skips), wrong, HALF)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("px", "words"), [(30, ["32 x 32", "multiple of 4"]), (33, ["36 x 36", "multiple of 4"])])
def test_sizes_that_the_strides_do_not_divide_are_refused(px: int, words: list[str]) -> None:
    with pytest.raises(UnsupportedNetwork) as caught:
        slim_generator(ResnetGenerator(4, 1), pictures(px=px), HALF)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_target_below_the_floors_names_them() -> None:
    settings = replace(HALF, target_gflops_ratio=0.02, width_floor=6, prune="inner")
    with pytest.raises(ConfigError) as caught:
        slim_generator(randomised(Excited), pictures(), settings)
    for words in ("target_gflops_ratio 0.02", "stem: 12 of 12 channels", "raise it", "lower width_floor", "prune: all"):
        assert words in str(caught.value), caught.value


@pytest.mark.parametrize("bits", [1, 9, 16, 0, -4, 2.5])
def test_bits_that_do_not_exist_are_named(bits: Any) -> None:
    for name in ("weight_bits", "activation_bits"):
        for value, place in ((bits, name), ({"body": bits}, f"{name}.body")):
            with pytest.raises(ConfigError, match=f"{place} must be one of 2, 3, 4, 5, 6, 7, 8, 32, not {bits}"):
                SlimmingSettings(**{name: value})

"""Whatever people build is slimmed to figures that are true, or refused in one line.

Multiply-adds are counted by torch on the teacher and on the student that was read back; bytes are those of the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gs_search.errors import GsSearchError, UnsupportedNetwork
from gs_search.slimming import FrozenParts, Slimmed, Teacher, load_student, save_student, slim_generator
from gs_search.slimming.adoption import plain_copy
from gs_search.slimming.layers import SLIM, is_norm, slim_layers
from gs_search.slimming.proving import count_products, fault, faults
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.fast_style import ASSETS, fast_style
from tests.slimming.kinds import KINDS, Around, Attention, FunctionalConv, Modulated, TiedWeights, TwoNames, conv
from tests.slimming.test_api import HALF, pictures

QUICK = replace(HALF, steps=0, weight_bits=4, repair_pictures=4)

REFUSED = {
    "one picture alone": ["fails on two at once", "batch size"],
    "borrowed weight": ["part.one", "also read in part"],
    "not a number": ["second.weight", "1 values"],
}

WHOLE = [
    *("subclass of Conv2d", "three plain and three subclasses", "weight-standardised", "pads in its forward"),
    *("equalised linear", "own parameter", "instance norm's own constructor", "affine instance norm's own constructor"),
    *("batch norm's own constructor", "F.instance_norm", "F.instance_norm without scale", "F.group_norm"),
    *("synchronised batch norm", "AdaIN", "GLU", "GLU by chunk", "halves by slices", "channel shuffle"),
    *("pixel shuffle", "pixel unshuffle", "two resolutions", "two names", "casts", "Fourier"),
]
"""Kinds of which nothing is frozen."""

NAMED = {
    "own parameter between": ("part", "kernel", "convolution in floats"),
    "layer norm of the map": ("part.0", "a layer norm in part.1 mixes channels"),
    "pixel norm": ("part.inner", "mean in part runs over channels"),
    "GLU by split": ("part.inner", "names a number of channels"),
    "halves by split": ("second", "names a number of channels"),
    "attention": ("part", "bmm in floats", "gamma"),
    "torch's heads": ("part.attention", "in_proj_weight"),
    "blur, buffer": ("part", "kernel"),
    "tied weights": ("part.other.weight and part.one.weight",),
    "a head for training": ("part.head", "not used when it paints"),
    "grouped": ("part.0", "a grouped convolution"),
    "half precision": ("first.weight", "float16"),
    "compiled": ("torch.compile is taken off",),
}
"""What is said of some kinds: qualified names, and reasons."""


def slimmed(
    generator: nn.Module, settings: SlimmingSettings = QUICK, *, allow: bool = False
) -> tuple[Slimmed, list[str]]:
    """The student, and what was said of the generator."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = slim_generator(generator, pictures(4), settings, allow_frozen=allow)
    return found, [str(warning.message) for warning in caught if issubclass(warning.category, FrozenParts)]


def count(network: nn.Module, px: int = 32) -> float:
    """Torch's own count of what runs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 3, px, px))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return cast(float, counter.get_total_flops() / 2)


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[name]()


def assert_true(generator: nn.Module, student: Slimmed, said: list[str], path: Path) -> None:
    """Every figure of a student is that of the whole network, and every float is named."""
    assert student.parity.code_mismatches == 0 and student.parity.max_abs_difference <= 1e-5
    save_student(path, student.network, None)
    loaded = load_student(path, generator)
    with torch.no_grad():
        assert torch.equal(loaded(pictures()), student.network(pictures()))
    plain = plain_copy(generator)[0]
    share = count(loaded) / count(plain)
    assert student.macs_share == pytest.approx(share, abs=0.02)  # norms count in the one, and not in the other
    assert student.size_bytes == path.stat().st_size
    numbers = sum(p.numel() for p in loaded.parameters() if p.dim() > 0)
    assert student.bits == pytest.approx(8 * path.stat().st_size / numbers, rel=0.1)
    owned = tuple(f"{n}." for n, m in loaded.named_modules() if isinstance(m, SLIM) or is_norm(m))
    floats = {name.rpartition(".")[0] for name, _ in loaded.named_parameters() if not name.startswith(owned)}
    floats |= {name.rpartition(".")[0] for name, _ in loaded.named_buffers() if not name.startswith(owned)}
    named = {part.name for part in student.frozen}
    assert floats <= named, floats - named
    assert all(any(line == str(part) for line in said) for part in student.frozen)
    assert all(0 <= part.macs_share <= 0.5 and part.reason and "\n" not in str(part) for part in student.frozen)
    rounded = {name for name, layer in slim_layers(loaded).items() if layer.weight_quantizer is not None}
    assert set(slim_layers(loaded)) - rounded <= named


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_true_or_refused(name: str, tmp_path: Path) -> None:
    generator = make(name)
    if name in REFUSED:
        with pytest.raises(UnsupportedNetwork) as caught:
            slimmed(generator)
        assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in REFUSED[name])
        return
    student, said = slimmed(generator)
    assert student.macs_share <= 1.05 * 0.5  # channels that die in fours or in pairs do not land exactly
    assert_true(generator, student, said, tmp_path / "student.safetensors")
    if name in WHOLE:
        assert not said
    if name in NAMED:
        line = next(line for line in said if line.startswith(f"{NAMED[name][0]} ") or NAMED[name][0] in line)
        assert all(word in line for word in NAMED[name]), said


def test_there_are_at_least_forty_kinds() -> None:
    assert len(KINDS) >= 40 and len(WHOLE) >= 20 and set(WHOLE) | set(NAMED) | set(REFUSED) <= set(KINDS)


def test_what_is_frozen_is_said_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trained(Exception):
        pass

    def train(*args: object, **more: object) -> None:
        raise Trained

    monkeypatch.setattr("gs_search.slimming.api.harm_of_rates", train)
    with pytest.warns(FrozenParts, match="part .*kernel: of no layer that is known"), pytest.raises(Trained):
        slim_generator(make("own parameter between"), pictures(4), replace(QUICK, steps=1))


class Foreign(nn.Module):
    """Nearly all of it is multiplied by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(3, 8), conv(8, 3)
        self.parts = nn.Sequential(FunctionalConv(), Modulated(), Modulated(), Modulated())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.parts(torch.relu(self.first(x)))))


def test_a_generator_that_is_mostly_frozen_is_refused_unless_allowed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Foreign()
    with pytest.raises(
        UnsupportedNetwork, match=r"% of the generator's multiply-adds cannot .* parts\.\d .*allow_frozen"
    ):
        slimmed(generator, replace(QUICK, target_gflops_ratio=0.9))
    student, said = slimmed(generator, replace(QUICK, target_gflops_ratio=0.9), allow=True)
    assert_true(generator, student, said, tmp_path / "student.safetensors")
    assert sum(part.macs_share for part in student.frozen) > 0.5


class Counting(nn.Module):
    """Does more work on a cut network than on the whole one, which no count by layers foresees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = conv(3, 8), conv(8, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if x.shape[1] < 8:
            self.inner(x)
        return cast(Tensor, self.last(self.inner(x)))


def test_a_student_that_costs_another_amount_than_counted_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="student's multiply-adds cannot be told"):
        slimmed(Counting())


@pytest.mark.parametrize("part", [TwoNames, TiedWeights])
def test_shared_weights_survive_training_saving_and_loading(part: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Around(part())
    student, said = slimmed(generator, replace(QUICK, steps=2, learning_rate=1e-3))
    assert_true(generator, student, said, tmp_path / "student.safetensors")
    whole, said = slimmed(generator, replace(QUICK, target_gflops_ratio=1.0, steps=2, learning_rate=1e-3))
    assert_true(generator, whole, said, tmp_path / "whole.safetensors")  # nothing is cut: the tie is not undone by that


def test_scales_of_ones_own_are_thresholded_with_their_shifts() -> None:
    """Of a norm that is written out: its scale is pruned by proximal steps, as torch's norms' are."""
    generator = make("norm by hand")
    (group,) = [g for g in Teacher(generator, 32).graph.groups.values() if g.name == "part.0"]
    (slot,) = [slot for slot in group.slots if slot.role == "scale"]
    assert (slot.module, slot.shift) == ("part.1.scale", "part.1.shift")
    settings = replace(QUICK, steps=6, schedule="proximal", scale_learning_rate=0.05, learning_rate=1e-5)
    student, _ = slimmed(generator, settings)
    kept = int(student.alive["part.0"].sum())
    assert kept < 8 and student.network.get_parameter("part.1.scale").numel() == kept


def test_a_scale_of_zero_hides_nothing() -> None:
    """An untrained attention adds nothing; its channels are coupled all the same."""
    torch.manual_seed(0)
    graph = Teacher(Around(Attention(scale=0.0)), 32).graph
    trained = Teacher(Around(Attention(scale=0.5)), 32).graph
    assert {n: g.size for n, g in graph.groups.items()} == {n: g.size for n, g in trained.groups.items()}
    stream = {slot.module for slot in graph.groups["second"].slots if slot.role == "out"}
    assert stream == {"second", "part.value"}


def test_a_wrong_group_is_found() -> None:
    """A graph that forgets a reader cannot be cut as it says."""
    teacher = Teacher(make("subclass of Conv2d"), 32)
    graph = teacher.graph
    assert not faults(graph, teacher.network, (), 32)
    group = graph.groups["second"]
    forgetful = replace(group, slots=tuple(slot for slot in group.slots if slot.role != "in"))
    members = {key: value for key, value in graph._members.items() if key != ("part.0", "in")}
    wrong = replace(graph, groups={**graph.groups, "second": forgetful}, _members=members)
    assert list(faults(wrong, teacher.network, (), 32)) == ["second"]
    assert fault(wrong, teacher.network, (), pictures(1), ["first"]) is None


def test_costs_of_followed_channels_are_torchs_whatever_is_cut() -> None:
    for name in ("attention, trained", "heads", "einsum"):
        generator = make(name)
        graph = Teacher(generator, 32).graph
        assert graph.products(graph.all_alive()) == pytest.approx(count(generator), rel=1e-9)
        student, _ = slimmed(generator)
        assert graph.products(student.alive) == pytest.approx(count(student.network), rel=1e-9)
        for expected in (0.0, 1e11):  # with data, and without
            assert count_products(student.network, 32, expected) == count(student.network)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="the shared assets are not here")
def test_fast_style_transfer_reaches_four_tenths_in_parity(tmp_path: Path) -> None:
    generator = fast_style("udnie")
    settings = replace(QUICK, target_gflops_ratio=0.4, weight_bits=dict.fromkeys(GROUPS, 8), repair_pictures=2)
    student, said = slimmed(generator, settings)
    assert not said and 0.38 < student.macs_share <= 0.4
    assert_true(generator, student, said, tmp_path / "student.safetensors")


def test_errors_are_of_one_kind() -> None:
    """What somebody's code raises when it is tried out never gets through."""

    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 8:
                raise KeyError("not my width")
            return cast(Tensor, self.inner(x))

    torch.manual_seed(0)
    try:
        student, said = slimmed(Around(Moody()), replace(QUICK, target_gflops_ratio=0.8))
    except GsSearchError as error:
        assert "\n" not in str(error)
    else:
        assert student.macs_share <= 0.8 and any(line.startswith("second ") for line in said)

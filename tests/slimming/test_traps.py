"""The 19 traps of the reference implementation (VITA-Group/GAN-Slimming), each as a test that fails if we fall in.

Numbers and descriptions follow ``gan_slimming.md`` section 1c. Traps that belong to other layers (data, measures)
are tested where the layer is, under the same name ``trap_NN``; ``test_every_trap_has_a_test`` counts them all.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.networks import Architecture, PatchGan, ResnetGenerator, load_generator
from gs_search.slimming import Teacher, load_student, save_student
from gs_search.slimming.discriminator import Adversary
from gs_search.slimming.extraction import check_parity, extract
from gs_search.slimming.importance import Scaling
from gs_search.slimming.layers import SlimConvTranspose2d, norms, slim_layers, slimmable
from gs_search.slimming.learning_rates import lesson_numbers
from gs_search.slimming.objective import discriminator_loss, generator_loss
from gs_search.slimming.quantize import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    best_weight_range,
)
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.sparsity import Rules, cut, magnitudes, mask_, proximal_step_
from gs_search.slimming.training import Training
from gs_search.study.settings import GROUPS, SlimmingSettings
from tests.slimming.lessons import RandomLessons, random_teacher

EVEN = Rules(floor=2, round_to=1, prune="all", multipliers=dict.fromkeys(GROUPS, 1.0))


@pytest.fixture
def teacher() -> Teacher:
    return random_teacher()


def pictures(count: int = 2, px: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_trap_01_a_fully_pruned_residual_block_is_the_identity(teacher: Teacher) -> None:
    network, _ = teacher.student()
    alive = teacher.graph.all_alive()
    alive["body.1.branch.1"][:] = False
    mask_(teacher.graph, network, alive)
    with torch.no_grad():
        network.body[1].branch[6].bias.zero_()
    student = extract(teacher.graph, network, alive)
    x = torch.rand(1, 32, 8, 8)
    torch.testing.assert_close(student.body[1](x), x, rtol=0, atol=0)
    assert check_parity(teacher.graph, network, student, alive, pictures()).max_abs_difference < 1e-9


def test_trap_01_with_a_shift_the_dead_block_still_equals_the_masked_one(teacher: Teacher) -> None:
    network, _ = teacher.student()
    alive = teacher.graph.all_alive()
    alive["body.0.branch.1"][:] = False
    alive["down.3"][::3] = False  # the residual stream loses channels too
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    assert check_parity(teacher.graph, network, student, alive, pictures()).max_abs_difference < 1e-9


def test_trap_02_shifts_die_with_their_scales(teacher: Teacher) -> None:
    network, _ = teacher.student()
    with torch.no_grad():
        for norm in norms(network).values():
            norm.bias.normal_(0, 0.3)
    alive = teacher.graph.all_alive()
    for name in alive:
        alive[name][1::2] = False
    kept_shift = copy.deepcopy(network)
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    assert check_parity(teacher.graph, network, student, alive, pictures()).max_abs_difference < 1e-9
    # The reference zeroes the scales alone; the channel then still emits relu(shift), which extraction drops.
    shifts = {n: m.bias.detach().clone() for n, m in norms(kept_shift).items()}
    mask_(teacher.graph, kept_shift, alive)
    with torch.no_grad():
        for name, norm in norms(kept_shift).items():
            norm.bias.copy_(shifts[name])
        assert (kept_shift(pictures()) - student(pictures())).abs().max() > 1e-3


def test_trap_02_the_proximal_step_zeroes_the_shift(teacher: Teacher) -> None:
    network, _ = teacher.student()
    alive = teacher.graph.all_alive()
    proximal_step_(teacher.graph, network, 0.5, alive, EVEN, Scaling.none(teacher.graph).units, revive=False)
    norm = norms(network)["stem.2"]
    dead = norm.weight == 0
    assert 0 < dead.sum() < len(dead)
    assert (norm.bias[dead] == 0).all()
    assert np.array_equal(~dead.numpy(), alive["stem.1"])


def test_trap_03_quantized_codes_survive_extraction(teacher: Teacher) -> None:
    network, _ = teacher.student()
    attach_quantizers(teacher.graph, network, SlimmingSettings(weight_bits=4, activation_bits=6), pictures())
    alive = cut(teacher.graph, magnitudes(teacher.graph, network), 0.5, EVEN)
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    parity = check_parity(teacher.graph, network, student, alive, pictures())
    assert parity.codes > 10_000
    assert parity.code_mismatches == 0


def test_trap_04_signed_streams_get_signed_codes(teacher: Teacher) -> None:
    network, _ = teacher.student()
    attach_quantizers(teacher.graph, network, SlimmingSettings(), pictures())
    layers = slim_layers(network)
    first_block, second_block = layers["body.0.branch.1"], layers["body.1.branch.1"]
    assert first_block.input_quantizer is not None and second_block.input_quantizer is not None
    assert not first_block.input_quantizer.signed  # behind a ReLU
    assert second_block.input_quantizer.signed  # behind a residual sum
    stream = torch.randn(1000) * 2
    signed = ActivationQuantizer(8, activation_range(stream, 8, signed=True), signed=True)
    assert (signed(stream) - stream).norm() / stream.norm() < 0.02
    assert (stream.clamp(0, 4) - stream).norm() / stream.norm() > 0.5  # what the reference does


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_trap_05_codes_fit_into_their_bits(bits: int) -> None:
    x = torch.linspace(-3, 3, 4001)
    weights = WeightQuantizer(bits, torch.tensor([2.0]))
    signed = ActivationQuantizer(bits, torch.tensor(2.0), signed=True)
    unsigned = ActivationQuantizer(bits, torch.tensor(2.0), signed=False)
    assert len(weights.codes(x.view(1, 1, 1, -1)).unique()) == 2**bits - 1
    assert len(signed.codes(x).unique()) == 2**bits
    assert unsigned.codes(x).unique().tolist() == list(range(2**bits))


def test_trap_06_a_weight_of_zeros_has_a_range() -> None:
    zeros = torch.zeros(4, 3, 3, 3)
    quantizer = WeightQuantizer(8, best_weight_range(zeros, 8))
    assert torch.equal(quantizer(zeros), zeros)


def test_trap_06_no_layer_becomes_narrower_than_its_floor(teacher: Teacher) -> None:
    scores = magnitudes(teacher.graph, teacher.student()[0])
    alive = cut(teacher.graph, scores, 1e9, replace(EVEN, floor=3))
    for name, group in teacher.graph.groups.items():
        assert alive[name].sum() == (0 if group.block else 3), name


def training(teacher: Teacher, settings: SlimmingSettings, *, sparsity: bool, steps: int) -> Training:
    network, scaling = teacher.student()
    adversary = Adversary(settings, torch.Generator().manual_seed(0), "cpu")
    return Training(
        teacher,
        network,
        scaling,
        teacher.graph.all_alive(),
        settings,
        adversary,
        steps=steps,
        sparsity=sparsity,
    )


def test_trap_07_the_threshold_uses_the_rate_of_its_own_step(teacher: Teacher) -> None:
    """The budget is what is really taken off: with no gradient, a scale of one ends at one minus the budget."""
    settings = SlimmingSettings(
        schedule="proximal",
        sparsity_weight=0.4,
        distill_weight=0.0,
        feature_weight=0.0,
        adversarial_weight=0.0,
        scale_learning_rate=0.0,
        importance="raw",
        precision="float32",
    )
    run = training(teacher, settings, sparsity=True, steps=17)
    with torch.no_grad():
        for norm in norms(run.network).values():
            norm.weight.fill_(1.0)
    lessons = RandomLessons(teacher)
    for step in range(17):
        run.run_step(lessons.batch([step % 4, (step + 1) % 4]))
    torch.testing.assert_close(norms(run.network)["stem.2"].weight, torch.full((8,), 0.6), rtol=0, atol=2e-3)


def test_trap_08_dead_channels_stay_dead_under_momentum(teacher: Teacher) -> None:
    settings = SlimmingSettings(schedule="proximal", sparsity_weight=0.6, scale_learning_rate=0.1, scale_momentum=0.9)
    run = training(teacher, settings, sparsity=True, steps=30)
    lessons, alive_before = RandomLessons(teacher), 10**9
    for step in range(30):
        run.run_step(lessons.batch([step % 4, (step + 1) % 4]))
        alive = sum(int(mask.sum()) for mask in run.alive.values())
        assert alive <= alive_before
        alive_before = alive
    for name, group in teacher.graph.groups.items():
        for scale, shift, slot in group.scales(run.network):
            dead = torch.as_tensor(slot.positions[~run.alive[name][slot.channels]])
            assert (scale[dead] == 0).all() and (shift is None or (shift[dead] == 0).all())


def test_trap_09_patch_scores_are_not_broadcast_against_targets() -> None:
    scores = torch.tensor([[[[0.0, 2.0]]], [[[1.0, 1.0]]]])  # 2 x 1 x 1 x 2
    assert generator_loss(scores).item() == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert discriminator_loss(scores, scores).item() == pytest.approx(0.5 * (0.5 + 6 / 4))
    one_scalar_each = scores.mean(dim=(1, 2, 3))  # the reference averages first, and loses the patches
    assert (one_scalar_each - 1).square().mean().item() == 0.0


def test_trap_10_quantized_transposed_and_reflect_padded_convolutions_run() -> None:
    network = slimmable(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        )
    )
    transposed = network[1]
    assert isinstance(transposed, SlimConvTranspose2d)
    transposed.weight_quantizer = WeightQuantizer(8, best_weight_range(transposed.weight, 8, 1), 1)
    transposed.input_quantizer = ActivationQuantizer(8, torch.tensor(4.0), signed=True)
    assert network(pictures(1, 16)).shape == (1, 6, 32, 32)


def test_trap_15_batches_do_not_lose_their_rest() -> None:
    seen = np.concatenate(
        [lesson_numbers(10, 10, SlimmingSettings(batch_size=4), seed=0, step=step) for step in range(5)]
    )
    assert sorted(seen) == sorted([*range(10), *range(10)])


def test_trap_16_critic_is_frozen_for_the_student_and_norms_keep_the_teachers_statistics(teacher: Teacher) -> None:
    run = training(teacher, SlimmingSettings(precision="float32"), sparsity=False, steps=2)
    run.run_step(RandomLessons(teacher).batch([0, 1]))
    assert not run.network.training
    assert not teacher.network.training
    assert all(p.requires_grad for p in run.adversary.network.parameters())


@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_trap_17_nothing_depends_on_nine_blocks_or_200_epochs(blocks: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = Teacher(ResnetGenerator(8, blocks), 32)
    network, _ = own.student()
    alive = cut(own.graph, magnitudes(own.graph, network), 0.4, EVEN)
    mask_(own.graph, network, alive)
    student = extract(own.graph, network, alive)
    save_student(tmp_path / "s.safetensors", student, Architecture("cyclegan_resnet", 8, blocks))
    assert torch.equal(load_student(tmp_path / "s.safetensors")(pictures()), student.eval()(pictures()))


def test_trap_18_what_is_stored_is_small(teacher: Teacher, tmp_path: Path) -> None:
    """The reference stores float32 whatever the bits; a student's 4-bit weights take half a byte."""
    network, _ = teacher.student()
    attach_quantizers(teacher.graph, network, SlimmingSettings(weight_bits=dict.fromkeys(GROUPS, 4)), pictures())
    tensors = save_student(tmp_path / "s.safetensors", network, Architecture("cyclegan_resnet", 8, 2))
    weights = sum(conv.weight.numel() for conv in slim_layers(network).values())
    codes = sum(t.numel() * t.element_size() for name, t in tensors.items() if name.endswith(".codes"))
    assert weights / 2 <= codes <= weights / 2 + len(slim_layers(network))
    rest = sum(t.numel() * t.element_size() for name, t in tensors.items() if not name.endswith(".codes"))
    file = (tmp_path / "s.safetensors").stat().st_size
    assert codes + rest < file < codes + rest + 1024  # what describes the layers


def test_trap_19_an_official_checkpoint_without_scales_loads(tmp_path: Path) -> None:
    plain = ResnetGenerator(8, 2, affine=False)
    names = {"stem.1": 1, "down.0": 4, "down.3": 7, "up.0": 12, "up.3": 15, "head.1": 19}
    state = {}
    for name, tensor in plain.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if module in names:
            state[f"model.{names[module]}.{parameter}"] = tensor
        else:
            block = re.fullmatch(r"body\.(\d+)\.branch\.(\d+)", module)
            assert block is not None
            state[f"model.{int(block[1]) + 10}.conv_block.{block[2]}.{parameter}"] = tensor
    torch.save(state, tmp_path / "latest_net_G.pth")
    loaded, architecture = load_generator(tmp_path / "latest_net_G.pth")
    assert architecture == Architecture("cyclegan_resnet", 8, 2, affine=False)
    x = pictures()
    with torch.no_grad():
        assert torch.equal(loaded(x), plain(x))
        assert (slimmable(loaded)(x) - plain(x)).abs().max() <= 1e-6
    assert all(norm.affine for norm in norms(slimmable(loaded)).values())


def test_every_trap_has_a_test() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    found = {int(number) for number in re.findall(r"def test_trap_(\d\d)_", text)}
    assert found == set(range(1, 20)), f"no test for traps {sorted(set(range(1, 20)) - found)}"


def test_the_discriminator_is_the_reference_codes() -> None:
    assert sum(p.numel() for p in PatchGan(64).parameters()) == 2_766_529

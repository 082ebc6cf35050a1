"""The options that foreign checkpoints bring: slimmed in parity, saved, loaded, and without a branch that has died."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.measure.flops import count_flops
from gs_search.networks import Architecture, build
from gs_search.slimming import SlimmingSettings, Teacher, load_student, save_student, slim_generator
from gs_search.slimming.extraction import check_parity, extract
from gs_search.slimming.layers import norms

LAYOUTS = {
    "batch": Architecture("cyclegan_resnet", 4, 2, norm="batch", bias=False),
    "no norm": Architecture("cyclegan_resnet", 4, 2, norm="none", bias=False),
    "zero": Architecture("cyclegan_resnet", 4, 2, affine=False, padding="zero", upsampling="nearest"),
    "cut": Architecture("cyclegan_resnet", 4, 2, affine=False, padding="replicate", antialias=True, upsampling="blur"),
    "unet with biases": Architecture("pix2pix_unet", 4, 3, norm="batch", bias=True),
}


@torch.no_grad()
def settled(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    network = build(architecture)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 2)
        elif tensor.dim() == 1:
            tensor.add_(0.2 * torch.randn_like(tensor))
    return network.eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_is_slimmed_in_parity_and_read_back(name: str, tmp_path: Path) -> None:
    generator, x = settled(LAYOUTS[name]), torch.rand(4, 3, 32, 32) * 2 - 1
    settings = SlimmingSettings(target_gflops_ratio=0.75, steps=1, batch_size=2, repair_pictures=4)
    slimmed = slim_generator(generator, x, settings)
    assert slimmed.parity.max_abs_difference <= 1e-5 and slimmed.parity.code_mismatches == 0
    share = count_flops(slimmed.network, 32).macs / count_flops(Teacher(generator, 32).network, 32).macs
    assert share == pytest.approx(slimmed.macs_share, rel=1e-3)
    save_student(tmp_path / "small.safetensors", slimmed.network, LAYOUTS[name])
    student = load_student(tmp_path / "small.safetensors")
    with torch.no_grad():
        assert torch.equal(student(x), slimmed.network.eval()(x))


@pytest.mark.parametrize("name", ["batch", "no norm", "zero"])
def test_a_branch_without_inner_channels_is_a_constant(name: str) -> None:
    teacher = Teacher(settled(LAYOUTS[name]), 32)
    masked, alive = teacher.network, teacher.graph.all_alive()
    group = teacher.graph.groups["body.0.branch.1"]
    assert group.block == "body.0"
    alive[group.name] = np.zeros(group.size, dtype=bool)
    with torch.no_grad():
        for scale, shift, _ in group.scales(masked):
            scale.zero_()
            if shift is not None:
                shift.zero_()
        if not norms(masked):  # a gate comes behind the bias
            assert masked.get_submodule("body.0.branch.1").gate is not None
    student = extract(teacher.graph, masked, alive)
    assert check_parity(teacher.graph, masked, student, alive, torch.rand(2, 3, 32, 32)).max_abs_difference <= 1e-5
    assert not any(part.startswith("body.0.branch.1") for part, _ in student.named_modules())

"""Slicing by hand, group statistics without the dead, and that the proof of parity notices what is wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming import Teacher
from gs_search.slimming.extraction import check_parity, extract, resize_layer_
from gs_search.slimming.layers import slimmable
from gs_search.slimming.quantize import WeightQuantizer, best_weight_range
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.sparsity import mask_
from tests.slimming.test_channels import BITS, Depthwise, conv, randomised

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: conv(6, 6),
    "no bias": lambda: conv(6, 6, 1, bias=False),
    "depthwise": lambda: conv(6, 6, groups=6),
    "transposed": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6),
    "linear": lambda: nn.Linear(6, 6),
}


@torch.no_grad()
@pytest.mark.parametrize("bits", [None, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_a_sliced_layer_computes_the_kept_channels_of_one_with_zeros(name: str, bits: int | None) -> None:
    torch.manual_seed(0)
    layer: Any = slimmable(nn.Sequential(LAYERS[name]()))[0]
    layer.add_gate()
    layer.gate.uniform_(0.5, 1.5)
    if bits:
        groups = layer.num_groups if layer.out_axis == 1 else 1
        ranges = best_weight_range(layer.weight, bits, layer.out_axis, groups)
        layer.weight_quantizer = WeightQuantizer(bits, ranges, layer.out_axis, groups)
        layer.weight_quantizer.change.uniform_(-0.2, 0.2)
    keep_out = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    keep_in = keep_out if "depthwise" in name else np.array([0, 1, 1, 0, 1, 1], dtype=bool)
    x = torch.randn(2, 4, 6) if name == "linear" else torch.randn(2, 6, 5, 5)
    channels = x.movedim(-1, 1) if name == "linear" else x
    channels[:, ~keep_in] = 0
    expected = layer(x)
    resize_layer_(layer, keep_in, keep_out)
    if name == "linear":
        torch.testing.assert_close(layer(x[..., keep_in]), expected[..., keep_out])
    else:
        torch.testing.assert_close(layer(x[:, keep_in]), expected[:, keep_out])


def test_parity_notices_a_wrong_channel_a_wrong_code_and_a_wrong_group() -> None:
    teacher = Teacher(randomised(Depthwise), 32)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    network, _ = teacher.student("raw")
    attach_quantizers(teacher.graph, network, BITS, picture)
    alive = teacher.graph.all_alive()
    alive["body.6"][[0, 1, 2, 4, 7]] = False  # GroupNorms of 3 x 4 and of 2 x 6: a whole group each, parts of others
    mask_(teacher.graph, network, alive)
    student = extract(teacher.graph, network, alive)
    assert [student.body[i].sizes for i in (7, 10)] == [[2, 2, 3], [1, 1, 1, 2, 2]]
    check_parity(teacher.graph, network, student, alive, picture)
    for change, first in ((_swap_channels, "body.6"), (_grow_a_range, "input codes of layer body.3"), (_merge, "body")):
        wrong = copy.deepcopy(student)
        change(wrong)
        with pytest.raises(UnsupportedNetwork, match=f"differ .*first: .*{first}"):
            check_parity(teacher.graph, network, wrong, alive, picture)


def _swap_channels(student: Any) -> None:
    student.body[6].weight.data = student.body[6].weight.data.flip(0)


def _grow_a_range(student: Any) -> None:
    student.body[3].input_quantizer.base *= 1.5


def _merge(student: Any) -> None:
    student.body[7].sizes = [4, 3]


def test_dead_channels_are_taken_out_of_a_group_norms_statistics_in_half_precision_too() -> None:
    """Channels far from zero: the mean of a group must not be rounded to bfloat16 in an autocast."""
    norm = slimmable(nn.Sequential(nn.GroupNorm(2, 8)))[0]
    alive = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1], dtype=torch.bool)
    norm.set_alive(alive)
    x = 5 + 0.1 * torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([F.group_norm(x[:, part], 1) for part in ([0, 2, 3], [6, 7])], dim=1)
    torch.testing.assert_close(norm(x)[:, alive], expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x)[:, alive], expected, rtol=0.01, atol=0.01)


class _Between(nn.Module):
    """Two convolutions with something between that works on the eight channels of the first."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = conv(3, 8), conv(8, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (torch.sigmoid, "differ .* a function before that layer does not keep zeros"),
        (lambda x: x.softmax(dim=1), "softmax in the generator runs over channels"),
        (lambda x: x.view(len(x), 8, 32, 32), "does not run .* its code names a number of channels"),
        (lambda x: x + torch.linspace(-1, 1, 8).view(1, 8, 1, 1), "adds a tensor that no layer writes"),
    ],
    ids=["sigmoid", "softmax", "view", "buffer"],
)
def test_what_cannot_be_cut_is_kept_and_named_with_the_reason(between: Callable[[Tensor], Tensor], said: str) -> None:
    teacher = Teacher(_Between(between), 32)
    assert not teacher.graph.groups
    assert [part.name for part in teacher.graph.frozen] == ["first", "second"] and teacher.frozen_share == 1.0
    assert all(re.search(said, part.reason) and "\n" not in part.reason for part in teacher.graph.frozen)
    with pytest.raises(UnsupportedNetwork, match=f"100% .*{said}"):
        teacher.check_frozen()

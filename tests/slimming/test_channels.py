"""Groups against a hand-made list, costs against fvcore on the really extracted network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gs_search.errors import UnsupportedNetwork
from gs_search.measure.flops import count_flops
from gs_search.networks import CartoonGenerator, ResnetGenerator
from gs_search.slimming import Teacher
from gs_search.slimming.channels import Alive
from gs_search.slimming.extract import check_parity, extract
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.sparsity import mask_


class Skips(nn.Module):
    """A U-Net in small: concatenation, transposed convolution, BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.Conv2d(8, 12, 4, stride=2, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(0.2))
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.last = nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        return torch.tanh(self.last(torch.cat([self.up(self.down(first)), first], dim=1)))


class Depthwise(nn.Module):
    """Depthwise and pointwise pairs with InstanceNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 10, 1),
            nn.InstanceNorm2d(10, affine=False),
            nn.ReLU(),
            nn.Conv2d(10, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


NETWORKS = {
    "cyclegan_resnet": lambda: ResnetGenerator(8, 2),
    "plain norms": lambda: ResnetGenerator(8, 2, affine=False),
    "cartoongan": lambda: CartoonGenerator(8, 2),
    "U-Net": Skips,
    "depthwise": Depthwise,
}


def random_alive(teacher: Teacher, rng: np.random.Generator) -> Alive:
    alive = {}
    for name, group in teacher.graph.groups.items():
        alive[name] = rng.random(group.size) < rng.uniform(0.2, 0.9)
        if group.block is None or rng.random() < 0.7:
            alive[name][rng.integers(group.size)] = True
        else:
            alive[name][:] = False
    return alive


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_equals_extracted_and_costs_equal_fvcores(name: str) -> None:
    torch.manual_seed(0)
    generator = NETWORKS[name]().eval()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    teacher = Teacher(generator, 32)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    rng = np.random.default_rng(0)
    for _ in range(8):
        network, _ = teacher.student("raw")
        alive = random_alive(teacher, rng)
        mask_(teacher.graph, network, alive)
        student = extract(teacher.graph, network, alive).eval()
        check_parity(teacher.graph, network, student, alive, picture)
        with torch.no_grad():
            assert (network.eval()(picture) - student(picture)).abs().max() <= 1e-4  # float32; check_parity: 1e-5
        counted = count_flops(student, 32).macs  # fvcore's
        assert teacher.graph.macs(alive) == pytest.approx(counted, rel=1e-12)


def test_cartoongans_groups() -> None:
    graph = Teacher(CartoonGenerator(8, 2), 32).graph
    sizes = {name: (group.size, group.inner, group.layers, group.block) for name, group in graph.groups.items()}
    assert sizes == {
        "stem.1": (8, True, "stem", None),
        "down.0": (16, True, "down", None),
        "down.1": (16, True, "down", None),
        "down.4": (32, True, "down", None),
        "down.5": (32, False, "body", None),  # the residual stream
        "body.0.branch.1": (32, True, "body", "body.0"),
        "body.1.branch.1": (32, True, "body", "body.1"),
        "up.0": (16, True, "up", None),
        "up.1": (16, True, "up", None),
        "up.4": (8, True, "up", None),
        "up.5": (8, True, "up", None),
    }


def test_gates_stand_where_no_norm_follows() -> None:
    network = Teacher(CartoonGenerator(8, 2), 32).network
    gated = [name for name, conv in slim_layers(network).items() if conv.gate is not None]
    assert gated == ["down.0", "down.4", "up.0", "up.4"]


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="no Conv2d"):
        Teacher(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), 32)


def test_grouped_convolutions_keep_their_widths() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2))
    network.extend([nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1)])
    assert list(Teacher(network, 32).graph.groups) == ["2"]


def test_a_network_that_fails_on_pictures_says_so() -> None:
    with pytest.raises(UnsupportedNetwork, match="fails on a 1 x 3 x 32 x 32 picture, in or after 0 \\(Conv2d\\)"):
        Teacher(nn.Sequential(nn.Conv2d(4, 3, 3)), 32)

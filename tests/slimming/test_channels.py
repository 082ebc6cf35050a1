"""Groups against a hand-made list, costs against fvcore on the really extracted network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.measure.flops import count_flops
from gs_search.networks import AnimeGenerator, CartoonGenerator, ResnetGenerator, UnetGenerator
from gs_search.slimming import Teacher
from gs_search.slimming.channels import Alive
from gs_search.slimming.extraction import check_parity, extract
from gs_search.slimming.layers import NORMS, slim_layers
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.sparsity import mask_
from gs_search.study.settings import GROUPS, SlimmingSettings


def conv(inputs: int, outputs: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


class Skips(nn.Module):
    """A U-Net in small, whose first skip carries what an activation in place has made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = conv(8, 8)
        self.in_place = nn.LeakyReLU(0.2, inplace=True)
        self.down = nn.Sequential(nn.Conv2d(8, 12, 4, stride=2, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(0.2))
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.last = conv(22, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        up = self.up(self.down(self.in_place(second)))  # changes what second holds
        return torch.tanh(self.last(torch.cat([up, first, second], dim=1)))


class Depthwise(nn.Module):
    """Depthwise and pointwise pairs, one with InstanceNorm, one with GroupNorm of several groups, one with neither."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 8),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            conv(8, 8, groups=8),
            nn.InstanceNorm2d(8, affine=False),
            nn.ReLU(),
            conv(8, 12, 1),
            nn.GroupNorm(4, 12),
            nn.ReLU(),
            conv(12, 12, 5, groups=12),
            nn.GroupNorm(6, 12),
            nn.SiLU(),
            conv(12, 10, 1),
            nn.ReLU6(),
            conv(10, 10, groups=10),
            conv(10, 3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(x))


class Transposed(nn.Module):
    """Transposed convolutions, a depthwise one among them, with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4),
            conv(8, 8, groups=2),  # grouped: keeps its widths
            nn.ReLU(),
            conv(8, 12),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(12, 12, 4, stride=2, padding=1, groups=12, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8, affine=False),
            nn.ReLU(inplace=True),
            conv(8, 3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(x))


class Excited(nn.Module):
    """Squeeze and excitation by linear layers, PReLUs of one and of many slopes, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.slopes = conv(3, 12), nn.InstanceNorm2d(12, affine=True), nn.PReLU(12)
        self.squeeze, self.slope, self.excite = nn.Linear(12, 6), nn.PReLU(), nn.Linear(6, 12)
        self.wide, self.wide_slopes, self.narrow = conv(12, 16, 1), nn.PReLU(16), conv(16, 12)
        self.head = conv(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.norm(self.stem(x)))
        weights = torch.sigmoid(self.excite(self.slope(self.squeeze(x.mean(dim=(2, 3))))))
        x = x * weights[:, :, None, None]
        return torch.tanh(self.head(x + self.narrow(self.wide_slopes(self.wide(x)))))


OWN: dict[str, Callable[[], nn.Module]] = {
    "U-Net": Skips,
    "depthwise": Depthwise,
    "transposed": Transposed,
    "excited": Excited,
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cyclegan_resnet": lambda: ResnetGenerator(8, 2),
    "plain norms": lambda: ResnetGenerator(8, 2, affine=False),
    "cartoongan": lambda: CartoonGenerator(8, 2),
    "unet, batch": lambda: UnetGenerator(4, 4),
    "unet, instance": lambda: UnetGenerator(4, 3, norm="instance", affine=False),
    "animegan": lambda: AnimeGenerator(4, 2),
    **OWN,
}
BITS = SlimmingSettings(
    weight_bits=dict.fromkeys(GROUPS, 4), activation_bits=dict.fromkeys(GROUPS, 4), quantize="deploy"
)


def randomised(make: Callable[[], nn.Module]) -> nn.Module:
    """The network with uneven scales, shifts, slopes and running statistics, so that nothing cancels by chance."""
    torch.manual_seed(0)
    generator = make().eval()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, NORMS) and module.affine:
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 0.5)
    return generator


def random_alive(teacher: Teacher, rng: np.random.Generator) -> Alive:
    """Some channels of each group, at times a single one; of a residual block at times none."""
    alive = {}
    for name, group in teacher.graph.groups.items():
        alive[name] = rng.random(group.size) < rng.choice([0.0, 0.3, 0.6, 0.9])
        if group.block is None or rng.random() < 0.5:
            alive[name][rng.integers(group.size)] = True
    return alive


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_equals_extracted_and_costs_equal_fvcores(name: str) -> None:
    teacher = Teacher(randomised(NETWORKS[name]), 32)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    rng = np.random.default_rng(0)
    everything, vanished, lone = teacher.graph.all_alive(), 0, 0
    counted = count_flops(teacher.network, 32).macs
    assert teacher.graph.macs(everything) == pytest.approx(counted, rel=1e-12)
    quantized, _ = teacher.student("raw")
    attach_quantizers(teacher.graph, quantized, BITS, picture)
    for _ in range(6):
        network, _ = teacher.student("raw")
        alive = random_alive(teacher, rng)
        vanished += sum(not mask.any() for mask in alive.values())
        lone += sum(mask.sum() == 1 for mask in alive.values())
        mask_(teacher.graph, network, alive)
        student = extract(teacher.graph, network, alive).eval()
        check_parity(teacher.graph, network, student, alive, picture)
        with torch.no_grad():
            assert (network.eval()(picture) - student(picture)).abs().max() <= 1e-4  # float32; check_parity: 1e-5
        counted = count_flops(student, 32).macs  # fvcore's
        assert teacher.graph.macs(alive) == pytest.approx(counted, rel=1e-12)
        rounded = copy.deepcopy(quantized)
        mask_(teacher.graph, rounded, alive)
        parity = check_parity(teacher.graph, rounded, extract(teacher.graph, rounded, alive), alive, picture)
        weights = sum(layer.weight.numel() for layer in slim_layers(student).values())
        assert parity.codes > weights + picture.numel() and parity.code_mismatches == 0
    assert lone and (vanished or not any(group.block for group in teacher.graph.groups.values()))


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


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_enlargements_cost_what_fvcore_counts(mode: str) -> None:
    """As modules and as functions; of what two layers write, too."""

    class Enlarging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = conv(3, 8, stride=4), conv(8, 6), conv(14, 3)
            self.enlarge = nn.Upsample(scale_factor=2, mode=mode)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x = torch.cat([self.enlarge(x), self.second(self.enlarge(x))], dim=1)
            return cast(Tensor, self.last(nn.functional.interpolate(x, scale_factor=2, mode=mode)))

    teacher = Teacher(Enlarging(), 32)
    rng = np.random.default_rng(0)
    for _ in range(3):
        alive = random_alive(teacher, rng)
        network, _ = teacher.student("raw")
        mask_(teacher.graph, network, alive)
        student = extract(teacher.graph, network, alive)
        assert teacher.graph.macs(alive) == pytest.approx(count_flops(student, 32).macs, rel=1e-12)


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

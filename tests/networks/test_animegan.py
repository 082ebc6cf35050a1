"""AnimeGANv2's generator against a second one, written in the public port's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.measure.flops import count_flops
from gs_search.networks import AnimeGenerator, Architecture, load_generator

State = dict[str, Tensor]


def unit(
    a: int, b: int, kernel: int = 3, pad: int | tuple[int, ...] = 1, *, groups: int = 1, stride: int = 1
) -> nn.Module:
    """Padding, convolution (with a bias where it is depthwise), norm, activation in place."""
    conv = nn.Conv2d(a, b, kernel, stride, groups=groups, bias=groups > 1)
    return nn.Sequential(nn.ReflectionPad2d(pad), conv, nn.GroupNorm(1, b), nn.LeakyReLU(0.2, True))


class Inverted(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        wide = 2 * a
        narrow = [nn.Conv2d(wide, b, 1, bias=False), nn.GroupNorm(1, b)]
        self.layers = nn.Sequential(unit(a, wide, 1, 0), unit(wide, wide, groups=wide), *narrow)
        self.adds = a == b

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.adds else y


class Reference(nn.Module):
    def __init__(self, w: int, blocks: int) -> None:
        super().__init__()
        far = (0, 1, 0, 1)
        self.block_a = nn.Sequential(unit(3, w, 7, 3), unit(w, 2 * w, pad=far, stride=2), unit(2 * w, 2 * w))
        self.block_b = nn.Sequential(unit(2 * w, 4 * w, pad=far, stride=2), unit(4 * w, 4 * w))
        inverted = [Inverted(4 * w, 8 * w)] + [Inverted(8 * w, 8 * w) for _ in range(blocks - 1)]
        self.block_c = nn.Sequential(unit(4 * w, 4 * w), *inverted, unit(8 * w, 4 * w))
        self.block_d = nn.Sequential(unit(4 * w, 4 * w), unit(4 * w, 4 * w))
        self.block_e = nn.Sequential(unit(4 * w, 2 * w), unit(2 * w, 2 * w), unit(2 * w, w, 7, 3))
        self.out_layer = nn.Sequential(nn.Conv2d(w, 3, 1, bias=False), nn.Tanh())

    def forward(self, x: Tensor, align_corners: bool = True) -> Tensor:
        a = self.block_a(x)
        c = self.block_c(self.block_b(a))
        d = self.block_d(F.interpolate(c, a.shape[-2:], mode="bilinear", align_corners=align_corners))
        e = self.block_e(F.interpolate(d, x.shape[-2:], mode="bilinear", align_corners=align_corners))
        return self.out_layer(e)


def reference(width: int, blocks: int) -> Reference:
    """With scales and shifts that are far from those of a new network."""
    torch.manual_seed(blocks)
    network = Reference(width, blocks).eval()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.4)
            nn.init.normal_(module.bias, 0, 0.4)
    return network


def test_published_counts() -> None:
    generator = AnimeGenerator()
    assert sum(p.numel() for p in generator.parameters()) == 2_143_552
    # 26.285 G at 256 px; nothing in the network costs but by the pixel.
    flops = count_flops(generator, 64)
    assert flops.macs_conv / 1e9 == pytest.approx(26.285 / 16, rel=1e-4)
    assert flops.macs_paper == flops.macs_conv


@pytest.mark.parametrize(("width", "blocks"), [(32, 4), (4, 4), (8, 1)])
def test_the_public_layout(tmp_path: Path, width: int, blocks: int) -> None:
    theirs = reference(width, blocks)
    torch.save(theirs.state_dict(), tmp_path / "paprika.pt")
    ours, architecture = load_generator(tmp_path / "paprika.pt")
    assert architecture == Architecture("animeganv2", width, blocks)
    x = torch.rand(2, 3, 32, 52) * 2 - 1
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


def test_enlargements_that_do_not_align_corners(tmp_path: Path) -> None:
    theirs = reference(4, 2)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    aligned = load_generator(tmp_path / "net.pt")[0]
    ours = AnimeGenerator(4, 2, align_corners=False).eval()
    ours.load_state_dict(aligned.state_dict())
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x, align_corners=False), rtol=0, atol=1e-5)
        assert (aligned(x) - ours(x)).abs().max() > 0.01


def test_a_dependency_graph_goes_through_the_depthwise_convolution() -> None:
    network = AnimeGenerator(4, 2).eval()
    x = torch.zeros(1, 3, 32, 32)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=x)
    conv = network.get_submodule("body.2.branch.0.1")
    graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, [5]).prune()
    depthwise = network.get_submodule("body.2.branch.1.1")
    assert (depthwise.groups, depthwise.out_channels) == (63, 63)
    assert network.get_submodule("body.2.branch.1.2").num_channels == 63
    assert network(x).shape == x.shape


def drop(name: str) -> Callable[[State], object]:
    return lambda state: state.pop(name)


def without_blocks(state: State) -> None:
    for name in [name for name in state if ".layers." in name]:
        del state[name]


REFUSED = [
    (drop("block_a.0.1.weight"), "incomplete checkpoint, tensor block_a.0.1.weight is missing"),
    (drop("block_a.0.2.weight"), "tensor block_a.0.2.weight is missing"),
    (drop("block_c.2.layers.1.1.bias"), "tensor block_c.2.layers.1.1.bias is missing"),
    (drop("block_c.3.1.weight"), "tensor block_c.3.1.weight is missing"),
    (drop("out_layer.0.weight"), "tensor out_layer.0.weight is missing"),
    (without_blocks, "no residual blocks"),
    (
        lambda state: state.update({"block_f.0.1.weight": torch.ones(1)}),
        "block_f.0.1.weight does not belong to an Anime",
    ),
    (lambda state: state.update({"block_a.0.1.bias": torch.ones(4)}), "block_a.0.1.bias does not belong"),
    (
        lambda state: state.update({"block_a.0.1.weight": torch.ones(4, 3, 3, 3)}),
        "the first convolution, block_a.0.1.weight, is 4 x 3 x 3 x 3, expected width x 3 x 7 x 7",
    ),
    (
        lambda state: state.update({"block_b.0.1.weight": torch.ones(9, 8, 3, 3)}),
        "tensor block_b.0.1.weight is 9 x 8 x 3 x 3, this architecture needs 16 x 8 x 3 x 3",
    ),
    (lambda state: state["block_e.2.2.bias"].fill_(torch.inf), "block_e.2.2.bias holds NaN or infinity"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_spoilt_files_are_refused_in_one_line(tmp_path: Path, spoil: Callable[[State], object], message: str) -> None:
    state = reference(4, 2).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_generator(tmp_path / "net.pt")
    assert "\n" not in str(refusal.value)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(reference(4, 1).state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="holds an animeganv2 generator, but the study says pix2pix_unet"):
        load_generator(tmp_path / "net.pt", "pix2pix_unet")

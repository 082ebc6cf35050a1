"""pix2pix's U-Net against a second one, nested and with in-place activations as the public code has it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.measure.flops import count_flops
from gs_search.networks import Architecture, UnetGenerator, build, load_generator

State = dict[str, Tensor]


class Block(nn.Module):
    """One block of the public layout: what is inside it is a child of its ``model``."""

    def __init__(
        self, outer: int, inner: int, inside: nn.Module | None, norm: str, *, picture: bool, dropout: bool
    ) -> None:
        super().__init__()
        make = {
            "batch": nn.BatchNorm2d,
            "instance": nn.InstanceNorm2d,
            # What the public code asked for in the days of PyTorch 0.3.
            "tracked instance": lambda channels: nn.InstanceNorm2d(channels, track_running_stats=True),
        }[norm]
        biased = norm != "batch"
        down = nn.Conv2d(3 if picture else outer, inner, 4, 2, 1, bias=biased)
        up = nn.ConvTranspose2d(inner * (1 if inside is None else 2), outer, 4, 2, 1, bias=biased or picture)
        if picture:
            parts = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif inside is None:
            parts = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, make(outer)]
        else:
            parts = [nn.LeakyReLU(0.2, True), down, make(inner), inside, nn.ReLU(True), up, make(outer)]
            parts += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*(part for part in parts if part is not None))
        self.picture = picture

    def forward(self, x: Tensor) -> Tensor:
        if self.picture:
            return self.model(x)
        inner = self.model(x)  # changes x, whose changed values are the skip
        return torch.cat([x, inner], 1)


class Reference(nn.Module):
    def __init__(self, width: int, downs: int, norm: str = "batch", dropout: bool = False) -> None:
        super().__init__()
        block: nn.Module | None = None
        for level in range(downs - 1, -1, -1):
            outer = 3 if level == 0 else width * min(2 ** (level - 1), 8)
            inner = width * min(2**level, 8)
            widest = 4 <= level < downs - 1
            block = Block(outer, inner, block, norm, picture=level == 0, dropout=dropout and widest)
        assert block is not None
        self.model = block

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def reference(width: int, downs: int, norm: str = "batch", dropout: bool = False) -> Reference:
    """With statistics, scales and shifts that are far from those of a new network."""
    torch.manual_seed(downs)
    network = Reference(width, downs, norm, dropout).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            module.num_batches_tracked.fill_(7)
            nn.init.normal_(module.weight, 1, 0.4)
            nn.init.normal_(module.bias, 0, 0.4)
    return network


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size) * 2 - 1


def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = theirs(x.clone())  # the original changes what it is given
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


def test_published_counts() -> None:
    def parameters(**arguments: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in UnetGenerator(**arguments).parameters())  # type: ignore[arg-type]

    # As printed by the public code: 54.414 M and 41.829 M with BatchNorm, 54.410 M with InstanceNorm.
    assert parameters() == 54_413_955
    assert parameters(downs=7) == 41_828_995
    assert parameters(norm="instance", affine=False) == 54_409_603


def test_multiply_adds_by_hand() -> None:
    width, downs = 16, 6
    widths = [width * min(2**level, 8) for level in range(downs)]
    down = sum(
        (64 >> level + 1) ** 2 * 16 * a * b for level, (a, b) in enumerate(zip([3, *widths], widths, strict=False))
    )
    # A transposed convolution costs its input's size; all but the innermost read a skip of as many channels too.
    read = [2 * channels for channels in widths[:-1]] + [widths[-1]]
    up = sum((64 >> level + 1) ** 2 * 16 * a * b for level, (a, b) in enumerate(zip(read, [3, *widths], strict=False)))
    assert count_flops(UnetGenerator(width, downs), 64).macs_conv == down + up


@pytest.mark.parametrize("downs", [5, 6, 7])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("norm", "affine"), [("batch", True), ("instance", False), ("tracked instance", False)])
def test_the_public_layout(tmp_path: Path, downs: int, dropout: bool, norm: str, affine: bool) -> None:
    theirs = reference(4, downs, norm, dropout)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    ours, architecture = load_generator(tmp_path / "latest_net_G.pth")
    kind = norm.removeprefix("tracked ")
    assert architecture == Architecture("pix2pix_unet", 4, downs, affine=affine, norm=kind)
    assert not any(module.training for module in ours.modules())
    if norm == "tracked instance":  # statistics that no release of the public code uses
        theirs.train().apply(lambda module: module.eval() if isinstance(module, nn.Dropout) else None)
    assert_same(ours, theirs, pictures(2**downs))


def test_the_largest_public_network_in_a_wrapper(tmp_path: Path) -> None:
    theirs = reference(2, 8)
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"netG": state, "epoch": 200}, tmp_path / "net.pth")
    assert_same(load_generator(tmp_path / "net.pth", "pix2pix_unet")[0], theirs, pictures(256, 1))


def test_files_of_old_pytorch_have_not_counted_their_batches(tmp_path: Path) -> None:
    theirs = reference(4, 5)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "net.pth")
    assert_same(load_generator(tmp_path / "net.pth")[0], theirs, pictures(64))


def test_instance_norms_with_the_same_weights_are_how_pix2pix_tests(tmp_path: Path) -> None:
    theirs = reference(4, 5)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "running" not in name}
    torch.save(state, tmp_path / "bare.pth")
    loaded, architecture = load_generator(tmp_path / "net.pth")
    as_tested = build(dataclasses.replace(architecture, norm="instance")).eval()
    as_tested.load_state_dict(loaded.state_dict(), strict=False)
    x = pictures(64, 1)
    assert_same(as_tested, copy.deepcopy(theirs).train(), x)
    # A file without statistics can mean nothing else.
    bare, architecture = load_generator(tmp_path / "bare.pth")
    assert (architecture.norm, architecture.affine) == ("instance", True)
    assert_same(bare, theirs.train(), x)


@pytest.mark.parametrize("size", [48, 40, 36, 34, 16])
def test_other_sizes_than_multiples_fail(size: int) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="Sizes of tensors must match|[Kk]ernel size"):
        UnetGenerator(4, 5).eval()(pictures(size))


def test_a_single_row_too_many_is_lost_as_in_the_public_network() -> None:
    with torch.no_grad():
        for network in (UnetGenerator(4, 5).eval(), reference(4, 5)):
            assert network(pictures(33)).shape == (2, 3, 32, 32)


def test_a_dependency_graph_follows_the_skips() -> None:
    network = UnetGenerator(8, 4).eval()
    x = pictures(32, 1)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=x)
    conv = network.down[1][0]
    group = graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, [3])
    touched = {
        (name, tuple(item.idxs)) for item in group for name, m in network.named_modules() if m is item.dep.target.module
    }
    # Beside itself: its norm, what reads it on the way down, and the half of a concatenation that it is.
    assert {("down.1.0", (3,)), ("down.1.1", (3,)), ("down.2.0", (3,)), ("up.2.1", (3,))} <= touched
    group.prune()
    assert network.up[2][1].in_channels == 31
    assert network(x).shape == x.shape


def drop(name: str) -> Callable[[State], object]:
    return lambda state: state.pop(name)


def without_blocks(state: State) -> None:
    for name in [name for name in state if name.startswith("model.model.1.")]:
        del state[name]


INNERMOST = "model.model.1.model.3.model.3.model.3.model"
REFUSED = [
    (drop("model.model.0.weight"), "incomplete checkpoint, tensor model.model.0.weight is missing"),
    (drop("model.model.3.bias"), "tensor model.model.3.bias is missing"),
    (drop("model.model.1.model.2.running_var"), "tensor model.model.1.model.2.running_var is missing"),
    (drop("model.model.1.model.3.model.6.weight"), "tensor model.model.1.model.3.model.6.weight is missing"),
    (drop(f"{INNERMOST}.1.weight"), f"tensor {INNERMOST}.1.weight is missing"),
    (without_blocks, "not a generator known here; nearest is pix2pix_unet, which has model.model.1.model.1.weight"),
    (lambda state: state.update({f"{INNERMOST}.9.weight": torch.ones(1)}), r"9\.weight does not belong to a pix2pix"),
    (lambda state: state.update({"model.model.0.bias": torch.ones(4)}), "model.model.0.bias does not belong"),
    (
        lambda state: state.update({"model.model.0.weight": torch.ones(4, 6, 4, 4)}),
        "takes pictures of 6 channels \\(model.model.0.weight is 4 x 6 x 4 x 4\\)",
    ),
    (
        lambda state: state.update({"model.model.0.weight": torch.ones(4, 3, 5, 5)}),
        "the first convolution, model.model.0.weight, is 4 x 3 x 5 x 5, expected width x 3 x 4 x 4",
    ),
    (
        lambda state: state.update({"model.model.1.model.1.weight": torch.ones(7, 4, 4, 4)}),
        "tensor model.model.1.model.1.weight is 7 x 4 x 4 x 4, this architecture needs 8 x 4 x 4 x 4",
    ),
    (
        lambda state: state["model.model.1.model.2.running_var"].fill_(torch.nan),
        "model.model.1.model.2.running_var holds NaN",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_spoilt_files_are_refused_in_one_line(tmp_path: Path, spoil: Callable[[State], object], message: str) -> None:
    state = reference(4, 5).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_generator(tmp_path / "net.pth")
    assert "\n" not in str(refusal.value)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(reference(4, 5).state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="holds a pix2pix_unet generator, but the study says animeganv2"):
        load_generator(tmp_path / "net.pth", "animeganv2")

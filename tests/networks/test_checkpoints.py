"""Published counts, foreign layouts, hostile files; the real checkpoint where it is at hand."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from gs_search.errors import CheckpointError
from gs_search.networks import CartoonGenerator, PatchGan, ResnetGenerator, load_generator
from gs_search.slimming.layers import slimmable


def authors_names(blocks: int = 8) -> dict[str, str]:
    """Our module to the authors', written down from their release."""
    names = {
        "stem.1": "conv01_1", "stem.2": "in01_1", "down.0": "conv02_1", "down.1": "conv02_2", "down.2": "in02_1",
        "down.4": "conv03_1", "down.5": "conv03_2", "down.6": "in03_1", "up.0": "deconv01_1", "up.1": "deconv01_2",
        "up.2": f"in{blocks + 4:02d}_1", "up.4": "deconv02_1", "up.5": "deconv02_2",
        "up.6": f"in{blocks + 5:02d}_1", "head.1": "deconv03_1",
    }  # fmt: skip
    for block in range(blocks):
        number = f"{block + 4:02d}"
        names |= {f"body.{block}.branch.1": f"conv{number}_1", f"body.{block}.branch.2": f"in{number}_1"}
        names |= {f"body.{block}.branch.5": f"conv{number}_2", f"body.{block}.branch.6": f"in{number}_2"}
    return names


def authors_state(generator: CartoonGenerator, blocks: int) -> dict[str, torch.Tensor]:
    names, state = authors_names(blocks), {}
    for name, tensor in generator.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if names[module].startswith("in"):
            parameter = {"weight": "scale", "bias": "shift"}[parameter]
        state[f"{names[module]}.{parameter}"] = tensor
    return state


def authors_forward(state: dict[str, torch.Tensor], x: torch.Tensor, blocks: int) -> torch.Tensor:
    """CartoonGAN in the authors' names, operation by operation, on BGR."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
        scale, shift = (state[f"{name}.{p}"].view(1, -1, 1, 1) for p in ("scale", "shift"))
        return (x - mean) / torch.sqrt(variance + 1e-9) * scale + shift

    def conv(x: torch.Tensor, name: str, stride: int = 1, padding: int = 0, reflect: int = 0) -> torch.Tensor:
        x = F.pad(x, [reflect] * 4, mode="reflect") if reflect else x
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    def deconv(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1, 1)

    y = F.relu(norm(conv(x, "conv01_1", reflect=3), "in01_1"))
    y = F.relu(norm(conv(conv(y, "conv02_1", 2, 1), "conv02_2", padding=1), "in02_1"))
    y = F.relu(norm(conv(conv(y, "conv03_1", 2, 1), "conv03_2", padding=1), "in03_1"))
    for number in range(4, 4 + blocks):
        z = F.relu(norm(conv(y, f"conv{number:02d}_1", reflect=1), f"in{number:02d}_1"))
        y = y + norm(conv(z, f"conv{number:02d}_2", reflect=1), f"in{number:02d}_2")
    y = F.relu(norm(conv(deconv(y, "deconv01_1"), "deconv01_2", padding=1), f"in{blocks + 4:02d}_1"))
    y = F.relu(norm(conv(deconv(y, "deconv02_1"), "deconv02_2", padding=1), f"in{blocks + 5:02d}_1"))
    return torch.tanh(conv(y, "deconv03_1", reflect=3))


def test_published_parameter_counts() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(CartoonGenerator()) == 11_129_667
    assert count(ResnetGenerator(affine=False)) == 11_378_179
    assert count(PatchGan()) == 2_766_529
    # GAN Slimming's has scales and shifts in 13 of the 23 norms: 2,688 channels.
    assert count(ResnetGenerator(affine=False)) + 2 * 2688 == 11_383_555


def test_cartoongan_in_the_authors_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = CartoonGenerator(8, 2)
    state = authors_state(generator, 2)
    torch.save(state, tmp_path / "net.pth")
    loaded, architecture = load_generator(tmp_path / "net.pth", "cartoongan")
    assert (architecture.width, architecture.blocks) == (8, 2)
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = authors_forward(state, rgb.flip(1), 2).flip(1)
        torch.testing.assert_close(loaded(rgb), expected, rtol=0, atol=1e-4)


ASSETS = Path(os.environ.get("GS_SEARCH_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))


@pytest.mark.skipif(
    not (ASSETS / "cartoongan_hayao.pth").is_file(), reason="the authors' checkpoint is not at hand (GS_SEARCH_ASSETS)"
)
def test_the_authors_checkpoint_paints_what_their_network_paints() -> None:
    path = ASSETS / "cartoongan_hayao.pth"
    state = torch.load(path, weights_only=True)
    loaded, _ = load_generator(path)
    rgb = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(loaded(rgb), authors_forward(state, rgb.flip(1), 8).flip(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["state_dict", "netG", None])
@pytest.mark.parametrize("inner", ["conv_block", "block"])
@pytest.mark.parametrize("dropout", [False, True])
def test_cyclegan_layouts(tmp_path: Path, wrapper: str | None, inner: str, dropout: bool) -> None:
    torch.manual_seed(0)
    generator = ResnetGenerator(8, 3)
    places = {"stem.1": 1, "stem.2": 2, "down.0": 4, "down.1": 5, "down.3": 7, "down.4": 8}
    places |= {"up.0": 13, "up.1": 14, "up.3": 16, "up.4": 17, "head.1": 20}
    moved = {"1": "1", "2": "2", "5": "6", "6": "7"} if dropout else {n: n for n in "1256"}
    state = {}
    for name, tensor in generator.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if block := re.fullmatch(r"body\.(\d+)\.branch\.(\d+)", module):
            state[f"module.model.{10 + int(block[1])}.{inner}.{moved[block[2]]}.{parameter}"] = tensor
        else:
            state[f"module.model.{places[module]}.{parameter}"] = tensor
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "net.pth")
    loaded, _ = load_generator(tmp_path / "net.pth")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), generator(x))


def test_gan_slimmings_layout_has_scales_in_some_norms_only(tmp_path: Path) -> None:
    generator = ResnetGenerator(8, 1)
    places = {"stem.1": 1, "stem.2": 2, "down.0": 4, "down.1": 5, "down.3": 7, "up.0": 11, "up.1": 12}
    places |= {"up.3": 14, "up.4": 15, "head.1": 18}
    state = {}
    for name, tensor in generator.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if module in ("body.0.branch.6", "down.4"):
            continue  # plain there
        place = f"model.{places[module]}" if module in places else f"model.10.conv_block.{module[-1]}"
        state[f"{place}.{parameter}"] = tensor
    torch.save(state, tmp_path / "gs32.pth")
    loaded, architecture = load_generator(tmp_path / "gs32.pth")
    assert architecture.affine
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(slimmable(loaded)(x), generator(x))


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.canary)!r}, 'w')",)


def write_bomb(path: Path) -> None:
    torch.save({"state_dict": Bomb(path.parent / "canary")}, path)


def write_plain_pickle_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent / "canary")))


def write_truncated(path: Path) -> None:
    torch.save(ResnetGenerator(8, 1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])


def write_nan(path: Path) -> None:
    state = authors_state(CartoonGenerator(8, 1), 1)
    state["conv02_1.weight"][0] = float("nan")
    torch.save(state, path)


def write_incomplete(path: Path) -> None:
    state = authors_state(CartoonGenerator(8, 1), 1)
    del state["in04_1.scale"]
    torch.save(state, path)


def write_wrong_shape(path: Path) -> None:
    state = authors_state(CartoonGenerator(8, 1), 1)
    state["conv02_2.weight"] = state["conv02_2.weight"][:, :3]
    torch.save(state, path)


HOSTILE = [
    (write_bomb, "would run code"),
    (write_plain_pickle_bomb, "checkpoint|run code"),
    (write_truncated, "damaged or truncated"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (lambda path: path.write_text("hello"), "is a text file \\('hello'\\)"),
    (write_nan, "tensor conv02_1.weight holds NaN"),
    (write_incomplete, "tensor in04_1.scale is missing"),
    (write_wrong_shape, "tensor conv02_2.weight is 16 x 3 x 3 x 3"),
    (lambda path: torch.save({"fc.weight": torch.zeros(3, 3)}, path), "not a generator known here"),
    (lambda path: torch.save([1, 2], path), "no state_dict"),
    (lambda path: None, "no such checkpoint"),
]


@pytest.mark.parametrize(("write", "message"), HOSTILE)
def test_hostile_checkpoints_are_refused_in_one_line(write: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    write(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_generator(path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "canary").exists()


def test_another_architecture_than_the_studys_is_refused(tmp_path: Path) -> None:
    save_file(authors_state(CartoonGenerator(8, 1), 1), tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="holds a cartoongan generator, but the study says cyclegan_resnet"):
        load_generator(tmp_path / "net.safetensors", "cyclegan_resnet")

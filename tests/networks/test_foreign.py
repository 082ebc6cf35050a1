"""Checkpoints as people have them: every kind is taken and paints what its own network paints, or is refused truly.

The oracle is ``references``: the public networks once more, in plain PyTorch.
"""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gs_search.cli import main
from gs_search.errors import CheckpointError
from gs_search.measure.flops import count_flops
from gs_search.networks import Architecture, inspect_file, load_generator
from tests.networks.references import Resnet, State, Unet, settled


def pictures(px: int = 32) -> Tensor:
    return torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(0)) * 2 - 1


def assert_paints(path: Path, reference: nn.Module, x: Tensor | None = None, **choice: Any) -> Architecture:
    """What is loaded paints what the reference paints, to 1e-5, and something at all."""
    x = pictures() if x is None else x
    loaded, architecture = load_generator(path, **choice)
    with torch.no_grad():
        expected = reference(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(loaded(x), expected, rtol=0, atol=1e-5)
    return architecture


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "official": (lambda: Resnet(blocks=9, width=4), {}),
    "batch": (lambda: Resnet(norm="batch"), {"norm": "batch", "bias": False}),
    "batch_with_biases": (lambda: Resnet(norm="batch", bias=True), {"norm": "batch", "bias": None}),
    "pix2pix_resnet": (lambda: Resnet(norm="batch", dropout=True), {"norm": "batch", "bias": False}),
    "no_norm": (lambda: Resnet(norm="none"), {"norm": "none", "bias": False}),
    "affine": (lambda: Resnet(norm="affine", bias=True), {"affine": True, "norm": "instance"}),
    "affine_without_biases": (lambda: Resnet(norm="affine", bias=False), {"affine": True, "bias": False}),
    "zero": (lambda: Resnet(padding="zero"), {"padding": "zero"}),
    "zero_dropout_batch": (lambda: Resnet(padding="zero", dropout=True, norm="batch"), {"padding": "zero"}),
    "dropout": (lambda: Resnet(dropout=True), {"padding": "reflect"}),
    "pytorch_gan": (lambda: Resnet(ways="nearest", block="block"), {"upsampling": "nearest"}),
    "another_root": (lambda: Resnet(root="main", block="res"), {"upsampling": "transposed"}),
    "cut": (lambda: Resnet(ways="cut"), {"antialias": True, "upsampling": "blur"}),
    "cut_no_antialias_up": (lambda: Resnet(ways="cut-down"), {"antialias": True, "upsampling": "transposed"}),
    "cut_dropout_batch": (lambda: Resnet(ways="cut", norm="batch", dropout=True), {"norm": "batch"}),
    "unet": (Unet, {"name": "pix2pix_unet", "norm": "batch", "bias": None}),
    "unet_instance": (lambda: Unet(norm="instance"), {"norm": "instance", "affine": False, "bias": None}),
    "unet_batch_biases": (lambda: Unet(norm="batch", bias=True), {"norm": "batch", "bias": True}),
    "unet_no_norm": (lambda: Unet(norm="none"), {"norm": "none", "bias": False}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layout_paints_what_its_own_network_paints(name: str, tmp_path: Path) -> None:
    make, expected = NETWORKS[name]
    reference = settled(make())
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    architecture = assert_paints(tmp_path / "net.pth", reference)
    assert {key: getattr(architecture, key) for key in expected} == expected


def test_what_a_file_cannot_tell_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pth"
    replicate = settled(Resnet(padding="replicate"))
    torch.save(replicate.state_dict(), path)
    assert_paints(path, replicate, padding="replicate")
    with pytest.raises(CheckpointError, match="teacher.padding says zero, but its names are those of padding by modul"):
        load_generator(path, padding="zero")
    with pytest.raises(CheckpointError, match="teacher.norm says batch, but the file has no running statistics"):
        load_generator(path, norm="batch")
    with pytest.raises(CheckpointError, match="teacher.align_corners is given, but cyclegan_resnet enlarges otherwise"):
        load_generator(path, align_corners=False)
    assert "padding: reflect  # or replicate" in inspect_file(path)["generators"][0]["study"]


@pytest.mark.parametrize("make", [lambda: Unet(4, 4), lambda: Resnet(norm="batch")])
def test_batch_norms_of_the_one_picture_as_the_reference_test_scripts_have_them(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    path, reference = tmp_path / "net.pth", settled(make())
    torch.save(reference.state_dict(), path)
    x = pictures()[:1]
    running = assert_paints(path, reference, x)
    with torch.no_grad():
        assert (reference(x) - reference.train()(x)).abs().max() > 0.01
    reference.load_state_dict(torch.load(path))
    picture = assert_paints(path, reference.train(), x, norm="instance")
    assert (running.norm, picture.norm) == ("batch", "instance")
    found = inspect_file(path)["generators"][0]
    assert found["both_norms"] and "norm: batch  # or instance" in found["study"]


def test_running_statistics_without_scales_may_be_used(tmp_path: Path) -> None:
    """InstanceNorm with tracked statistics uses them in evaluation since PyTorch 0.4; before, it never did."""
    reference = settled(Resnet())
    for module in list(reference.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, track_running_stats=True))
    reference = settled(reference)
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    assert_paints(tmp_path / "net.pth", reference, norm="batch")
    assert_paints(tmp_path / "net.pth", reference.train())
    assert "norm: instance  # or batch" in inspect_file(tmp_path / "net.pth")["generators"][0]["study"]


@pytest.mark.parametrize("make", [Resnet, Unet, lambda **more: Resnet(ways="cut", **more)])
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1)])
def test_grey_is_three_equal_channels(
    tmp_path: Path, make: Callable[..., nn.Module], channels: tuple[int, int]
) -> None:
    reference = settled(make(channels=channels))
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    loaded, _ = load_generator(tmp_path / "net.pth")
    colour = pictures()
    luma = (colour * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    for x in (luma.expand(-1, 3, -1, -1), colour):  # grey values, and those of colours
        with torch.no_grad():
            expected = reference(luma if channels[0] == 1 else x).expand(-1, 3, -1, -1)
            torch.testing.assert_close(loaded(x), expected, rtol=0, atol=1e-5)
    convention = inspect_file(tmp_path / "net.pth")["generators"][0]["convention"]
    assert (convention["channels_in"], convention["channels_out"]) == channels


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    torch.save(Resnet(channels=(4, 3)).state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"takes pictures of 4 channels \(model.1.weight is 8 x 4 x 7 x 7\)"):
        load_generator(tmp_path / "net.pth")


def discriminator() -> State:
    return {"model.0.weight": torch.zeros(4, 3, 4, 4), "model.2.weight": torch.zeros(1, 4, 4, 4)}


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def thop(state: State) -> State:
    counted = {name.rpartition(".")[0] for name in state} | {""}
    zeros = {f"{name}.{word}".strip("."): torch.zeros(1).double() for name in counted for word in
             ("total_ops", "total_params")}  # fmt: skip
    return {**state, **zeros}


def lightning(state: State) -> dict[str, Any]:
    parts = {**prefixed("generator.", state), **prefixed("discriminator.", discriminator())}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"params": [0], "lr": 1e-4}]}
    return {"state_dict": parts, "epoch": 3, "optimizer_states": [optimizer], "pytorch-lightning_version": "2.5.0"}


WRAPPED: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "parallel": lambda state: prefixed("module.", state),
    "netG": lambda state: prefixed("netG.", state),
    "deep_prefix": lambda state: prefixed("module._orig_mod.gen.net.", state),
    "lightning": lightning,
    "beside_discriminator": lambda state: {**prefixed("G.", state), **prefixed("D.", discriminator())},
    "state_dict": lambda state: {"state_dict": state, "epoch": 1},
    "generator_state_dict": lambda state: {"generator_state_dict": state, "best_fid": 12.5},
    "any_key": lambda state: {"my_weights": {"inner": prefixed("module.", state)}, "args": {"lr": 0.1}},
    "in_a_list": lambda state: {"models": [state, discriminator()]},
    "options_and_numpy": lambda state: {
        "G": state,
        "opt": argparse.Namespace(ngf=64, name="x"),
        "fid": np.float64(3.0),
        "losses": np.ones(3),
        "where": Path("/data"),
    },  # fmt: skip
    "thop": thop,
    "thop_compiled": lambda state: prefixed("_orig_mod.", thop(state)),
    "averaged": lambda state: {**prefixed("module.", state), "n_averaged": torch.tensor(7)},
    "beside_perceptual_network": lambda state: {**state, "vgg.features.0.weight": torch.zeros(4, 3, 3, 3)},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("make", [Resnet, Unet, lambda: Resnet(root="0")], ids=["resnet", "unet", "sequential"])
def test_what_is_around_the_generator_is_passed_over(
    tmp_path: Path, wrapper: str, make: Callable[[], nn.Module]
) -> None:
    reference = settled(make())
    state = {name.removeprefix("0."): tensor for name, tensor in reference.state_dict().items()}
    torch.save(WRAPPED[wrapper](state), tmp_path / "net.ckpt")
    assert_paints(tmp_path / "net.ckpt", reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken(tmp_path: Path, dtype: torch.dtype) -> None:
    reference = settled(Resnet(norm="batch")).to(dtype)
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    assert_paints(tmp_path / "net.pth", reference.float())
    assert inspect_file(tmp_path / "net.pth")["generators"][0]["dtypes"] == [str(dtype).removeprefix("torch.")]


def test_of_several_generators_one_is_chosen(tmp_path: Path) -> None:
    path, one = tmp_path / "net.pth", settled(Resnet())
    other = {name: tensor * 0.9 for name, tensor in one.state_dict().items()}
    torch.save({"netG_A": one.state_dict(), "netG_B": other, "netD_A": discriminator(), "epoch": 200}, path)
    with pytest.raises(CheckpointError, match="holds 2 generators: netG_A, netG_B; choose one with teacher.key"):
        load_generator(path)
    assert_paints(path, one, key="netG_A")
    one.load_state_dict(other)
    assert_paints(path, one, key="netG_B")
    with pytest.raises(CheckpointError, match="teacher.key 'netG' names no generator of the file, .* netG_A, netG_B"):
        load_generator(path, key="netG")
    document = inspect_file(path)
    assert [generator["key"] for generator in document["generators"]] == ["netG_A", "netG_B"]
    assert "key: netG_B" in document["generators"][1]["study"]
    flat = {**prefixed("g.", other), **prefixed("g_ema.", other)}
    torch.save({"state_dict": flat}, path)
    assert_paints(path, one, key="g_ema")


@pytest.mark.parametrize("word", ["resnet_9blocks", '"resnet"', "null", "[1]", '{"layers": 9}', '{"name": "resnet"}'])
def test_foreign_metadata_may_use_our_word(tmp_path: Path, word: str) -> None:
    reference = settled(Resnet())
    save_file(reference.state_dict(), tmp_path / "net.safetensors", {"architecture": word})
    assert_paints(tmp_path / "net.safetensors", reference)


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    reference = settled(Resnet())
    save_file(reference.state_dict(), tmp_path / "net.pth")
    torch.save(reference.state_dict(), tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        assert_paints(tmp_path / name, reference)


def write_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py", "net/version"):
            archive.writestr(name, b"x")


def write_archive(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")

    return write


def write_spectral(path: Path) -> None:
    network = Resnet()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(module)
    torch.save(network.state_dict(), path)


def write_cut(path: Path) -> None:
    torch.save(Resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:9000])


def write_cut_safetensors(path: Path) -> None:
    save_file(Resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-9000])


def spoilt(change: Callable[[State], object], make: Callable[[], nn.Module] = Resnet) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = make().state_dict()
        change(state)
        torch.save(state, path)

    return write


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 45575747\n"
BATCH = "model.10.conv_block.2.running_var"

REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_text(LFS), "is a Git LFS pointer to the file of 45,575,747 bytes, .* git lfs pull"),
    (lambda path: path.write_text("\n<!DOCTYPE html><html><body>404"), "is an HTML page, as a failed download leaves"),
    (lambda path: path.write_text('<?xml version="1.0"?><Error/>'), "is an XML document"),
    (lambda path: path.write_text('{"error": "not found"}'), "is a JSON document"),
    (lambda path: path.write_text("see README é\n"), "is a text file .'see README é'., not a file of weights"),
    (write_torchscript, "is a TorchScript archive"),
    (write_archive("a/serialized_exported_program.json"), "is an exported program"),
    (write_archive("x.npy", "y.npy"), "is an archive of NumPy arrays"),
    (write_archive("net.pth", "README"), "is a zip archive of 2 other files, net.pth first; unpack it"),
    (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "is a PNG picture"),
    (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "is a gzip archive"),
    (lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x05" + bytes(99)), "is an ONNX file"),
    (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    (lambda path: path.write_bytes(bytes(range(129, 256)) * 40), "is no checkpoint known here"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (lambda path: path.mkdir(), "is a folder"),
    (write_spectral, r"weights that are computed from others \(model.1.parametrizations.weight.original\)"),
    (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 2)), "a pickle that torch.save has not written"),
    (spoilt(lambda s: s.update({"model.4.weight": s["model.4.weight"].to("meta")})), "model.4.weight holds no values"),
    (write_cut, "damaged or truncated"),
    (write_cut_safetensors, "not a complete safetensors file"),
    (lambda path: torch.save(nn.Conv2d(3, 3, 3), path), r"needs classes of its own .*Conv2d"),
    (lambda path: torch.save(torch.zeros(3), path), "no state_dict in it"),
    (lambda path: torch.save({"epoch": 3}, path), "no state_dict in it"),
    (lambda path: torch.save(discriminator(), path), "holds a discriminator"),
    (spoilt(lambda s: s["model.12.weight"].fill_(torch.nan)), "tensor model.12.weight holds NaN or infinity"),
    (spoilt(lambda s: s.pop("model.11.conv_block.5.bias")), "tensor model.11.conv_block.5.bias is missing"),
    (spoilt(lambda s: s.pop(BATCH), lambda: Resnet(norm="batch")), f"tensor {BATCH} is missing"),
    (
        spoilt(lambda s: s.update({"model.7.weight": torch.zeros(32, 8, 3, 3)})),
        "tensor model.7.weight is 32 x 8 x 3 x 3, this architecture needs 32 x 16 x 3 x 3",
    ),
    (spoilt(lambda s: s.update({"model.7.filt": torch.ones(16, 1, 3, 3)})), "model.7.filt|blocks begin"),
    (spoilt(lambda s: s["model.7.filt"].fill_(1.0), lambda: Resnet(ways="cut")), "model.7.filt .* is not CUT's filter"),
    (spoilt(lambda s: s.update({"attention.weight": torch.ones(3, 3)})), "attention.weight is in the same module"),
    (spoilt(lambda s: s.update({"model.1.weight": s["model.1.weight"].to(torch.int8)})), "model.1.weight holds int8"),
]


@pytest.mark.parametrize(("write", "message"), REFUSED)
def test_the_true_reason_in_one_line(
    tmp_path: Path, write: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pth"
    write(path)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_generator(path)
    assert "\n" not in str(refusal.value) and "run code" not in str(refusal.value) or "Conv2d" in message
    assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {refusal.value}\n"


def test_an_unknown_network_is_compared_with_the_nearest(tmp_path: Path) -> None:
    state = {
        "stem.conv.weight": torch.zeros(8, 3, 9, 9), "stem.norm.scale": torch.ones(8),
        "down.conv.weight": torch.zeros(16, 8, 3, 3), "body.0.conv1.weight": torch.zeros(16, 16, 3, 3),
    }  # fmt: skip
    torch.save(state, tmp_path / "net.pth")
    wanted = (
        r"not a generator known here; nearest is \w+, which has .*model.1.weight .* where the file has "
        r"stem.conv.weight \(8 x 3 x 9 x 9\), stem.norm.scale \(8\), .*; known: cyclegan_resnet, .* slim|README"
    )
    with pytest.raises(CheckpointError, match=wanted):
        load_generator(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["official", "cut", "pytorch_gan", "unet"])
def test_multiply_adds_and_parameters_are_those_of_the_network(name: str, tmp_path: Path) -> None:
    torch.save(NETWORKS[name][0]().state_dict(), tmp_path / "net.pth")
    found = inspect_file(tmp_path / "net.pth")["generators"][0]
    loaded, _ = load_generator(tmp_path / "net.pth")
    assert found["multiply_adds"] == count_flops(loaded, 256).macs_conv
    assert found["parameters"] == sum(p.numel() for p in loaded.parameters())


def test_the_verb_prints_lines_that_a_study_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    path = tmp_path / "two nets.pth"
    torch.save({"netG_A": Unet().state_dict(), "netG_B": Unet().state_dict()}, path)
    assert main(["inspect", str(path), "--key", "netG_A"]) == 0
    shown = capsys.readouterr().out
    section = yaml.safe_load(shown[shown.index("teacher:") :].replace("\n    ", "\n"))["teacher"]
    assert section == {
        "kind": "checkpoint", "path": str(path), "architecture": "pix2pix_unet", "key": "netG_A", "norm": "batch",
    }  # fmt: skip
    assert main(["inspect", str(path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["generators"]) == 2

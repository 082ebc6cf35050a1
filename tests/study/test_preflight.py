"""What a study names is opened before it runs; how each thing is judged is tested where it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gs_search.data import open_data
from gs_search.errors import ConfigError
from gs_search.measure.psnr import psnr
from gs_search.networks import Architecture, build
from gs_search.study.config import load_study
from gs_search.study.preflight import check_inputs, teacher_notes
from tests.conftest import STUDY
from tests.networks.references import Unet, settled

Write = Callable[..., Path]


def photos(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        Image.effect_noise((48, 40), 60).convert("RGB").save(folder / f"{index:03d}.jpg")


def test_drawn_data_and_the_shipped_teacher_are_fine(write_study: Write) -> None:
    check_inputs(load_study(write_study()))


def test_everything_at_once(write_study: Write, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "teacher.pth").write_bytes(b"no checkpoint")
    study = STUDY.replace("kind: drawn", "kind: photos, path: photos")
    study = study.replace("shipped", "checkpoint, path: teacher.pth")
    with pytest.raises(ConfigError) as caught:
        check_inputs(load_study(write_study(study)))
    assert any("photos" in line for line in caught.value.problems)
    assert any("teacher.pth" in line for line in caught.value.problems)


def test_sound_photos_and_checkpoint(write_study: Write, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 120)
    architecture = Architecture("cyclegan_resnet", width=8, blocks=1)
    save_file(
        build(architecture).state_dict(),
        tmp_path / "own.safetensors",
        metadata={"architecture": json.dumps(architecture.to_json())},
    )
    study = STUDY.replace("kind: drawn", "kind: photos, reference: 8, path: photos")
    study = study.replace("shipped", "checkpoint, path: own.safetensors")
    check_inputs(load_study(write_study(study)))
    study = study.replace("own.safetensors", "own.safetensors, architecture: cartoongan")
    with pytest.raises(ConfigError, match="holds a cyclegan_resnet generator, but the study says cartoongan"):
        check_inputs(load_study(write_study(study)))


def test_pictures_that_a_unet_cannot_halve_often_enough(write_study: Write, tmp_path: Path) -> None:
    architecture = Architecture("pix2pix_unet", width=4, blocks=6, norm="batch")
    metadata = {"architecture": json.dumps(architecture.to_json())}
    save_file(build(architecture).state_dict(), tmp_path / "unet.safetensors", metadata=metadata)
    study = STUDY.replace("shipped", "checkpoint, path: unet.safetensors")
    with pytest.raises(ConfigError, match="image_px: 32 does not suit the pix2pix_unet .* take a multiple of 64"):
        check_inputs(load_study(write_study(study)))


def test_what_a_checkpoint_does_not_tell_is_said_with_its_price(write_study: Write, tmp_path: Path) -> None:
    """The decibels between the two norms are those between the reference network in its two modes."""
    reference = settled(Unet(4, 4))
    torch.save({"G": reference.state_dict(), "F": Unet(4, 4).state_dict()}, tmp_path / "net.pth")
    study = STUDY.replace("shipped", "checkpoint, path: net.pth, key: G")
    config = load_study(write_study(study))
    check_inputs(config)
    said = teacher_notes(config)
    assert said[0] == "teacher: the generator is G of the file"
    assert "norm: batch, the running statistics of the file" in said[1]
    source = open_data(config.data, 32, config.seed).source("val")
    pictures = [source.picture(index)[None] / 127.5 - 1 for index in range(4)]
    with torch.no_grad():
        running = torch.cat([reference(x) for x in pictures])
        own = torch.cat([reference.train()(x) for x in pictures])
    decibels = psnr(running, own)
    assert said[2] == (
        f"teacher: {decibels:.1f} dB between norm: batch and norm: instance on 4 pictures of this study; batch is taken"
    )
    said = teacher_notes(load_study(write_study(study.replace("key: G", "key: G, norm: instance"))))
    assert said[1].endswith("instance is taken, as the study says")
    assert teacher_notes(load_study(write_study())) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("key: H", "teacher.key 'H' names no generator of the file, which has: G, F"),
        ("norm: instance", "holds 2 generators: G, F; choose one with teacher.key"),
        ("key: G, align_corners: true", "teacher.align_corners is given, but pix2pix_unet enlarges otherwise"),
        ("key: G, padding: replicate", "teacher.padding says replicate, but pix2pix_unet has one kind of padding"),
    ],
)
def test_choices_that_do_not_suit_the_file(write_study: Write, tmp_path: Path, said: str, message: str) -> None:
    torch.save({"G": Unet(4, 4).state_dict(), "F": Unet(4, 4).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=message):
        check_inputs(load_study(write_study(STUDY.replace("shipped", f"checkpoint, path: net.pth, {said}"))))


def test_a_network_of_ones_own_is_built_and_tried(write_study: Write, tmp_path: Path) -> None:
    text = "from torch import nn\ndef build(pad=1): return nn.Conv2d(3, 3, 3, padding=pad)\n"
    (tmp_path / "net.py").write_text(text)
    study = STUDY.replace("kind: shipped", "kind: module, factory: 'net.py:build'")
    config = load_study(write_study(study))
    check_inputs(config)
    assert teacher_notes(config) == [
        "teacher: net:build is run; its source travels with the run: net.py",
        "teacher: no teacher.checkpoint is given: the weights are those that the function gives",
    ]
    with pytest.raises(ConfigError, match="1 x 3 x 30 x 30; a study takes generators whose pictures keep their size"):
        check_inputs(load_study(write_study(study.replace("build'", "build', arguments: {pad: 0}"))))


@pytest.mark.parametrize("said", ["key: G", "norm: batch", "padding: zero", "align_corners: false"])
def test_choices_are_about_checkpoints(write_study: Write, said: str) -> None:
    with pytest.raises(ConfigError, match="is not used by kind shipped"):
        load_study(write_study(STUDY.replace("kind: shipped", f"kind: shipped, {said}")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there(write_study: Write) -> None:
    with pytest.raises(ConfigError, match="device: cuda is asked for, but no CUDA device is visible"):
        check_inputs(load_study(write_study(STUDY + "device: cuda\n")))

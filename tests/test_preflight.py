"""What a study names is opened before it runs; how each thing is judged is tested where it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gs_search.config import load_study
from gs_search.errors import ConfigError
from gs_search.networks import Architecture, build
from gs_search.preflight import check_inputs
from tests.conftest import STUDY

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there(write_study: Write) -> None:
    with pytest.raises(ConfigError, match="device: cuda is asked for, but no CUDA device is visible"):
        check_inputs(load_study(write_study(STUDY + "device: cuda\n")))

"""Generators and pictures of somebody who begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from gs_search.networks import Architecture, build

SaveGenerator = Callable[..., Path]
MakePhotos = Callable[..., Path]


@pytest.fixture
def save_generator(tmp_path: Path) -> SaveGenerator:
    """Writer of a small generator with random weights."""

    def save(name: str = "cartoongan", width: int = 4, blocks: int = 1, file: str = "teacher.safetensors") -> Path:
        architecture = Architecture(name, width, blocks)
        path = tmp_path / file
        save_file(build(architecture).state_dict(), path, {"architecture": json.dumps(architecture.to_json())})
        return path

    return save


@pytest.fixture
def make_photos(tmp_path: Path) -> MakePhotos:
    """Writer of a folder of noisy pictures."""

    def make(folder: str = "photos", count: int = 40, side: int = 48) -> Path:
        place = tmp_path / folder
        place.mkdir(parents=True)
        random = np.random.default_rng(count)
        for index in range(count):
            pixels = random.integers(0, 256, (side, side + 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index:03d}.png")
        return place

    return make

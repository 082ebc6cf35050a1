from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImages = Callable[..., list[Path]]


@pytest.fixture
def make_images() -> MakeImages:
    """Writes small noise images, each different, and returns their paths."""

    def make(folder: Path, count: int, size: tuple[int, int] = (40, 30), suffix: str = ".png") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(str(folder)))
        paths = [folder / f"photo {number:03d}{suffix}" for number in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
        return paths

    return make

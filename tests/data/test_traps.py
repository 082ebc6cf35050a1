"""Traps 11 to 13 of the reference implementation: its data. The others are in ``tests/slimming/test_traps.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gs_search.data import open_data
from gs_search.slimming import Lessons
from tests.data.settings import Settings
from tests.slimming.lessons import random_teacher


def photo_folder(path: Path, names: list[str]) -> Path:
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        small.resize((40, 40), Image.Resampling.BICUBIC).save(path / name)
    return path


def test_trap_11_some_views_are_mirrored_and_evaluation_never_is() -> None:
    source = open_data(Settings(kind="drawn", train=4), 32, 0).source("train")
    plain = source.picture(0)
    assert torch.equal(plain, source.picture(0, view=None))
    views = [source.picture(0, view=k).float() for k in range(24)]

    def nearer_to_the_mirrored(view: torch.Tensor) -> bool:
        return bool((view - plain.flip(-1)).square().mean() < (view - plain).square().mean())

    mirrored = sum(map(nearer_to_the_mirrored, views))
    assert 4 <= mirrored <= 20  # the reference mirrors all 24


def test_trap_12_names_that_sort_badly_keep_their_teacher_picture(tmp_path: Path) -> None:
    """In the reference, ``2.png`` and ``200.png`` swap teacher pictures once ``_fake`` is appended to the names."""
    names = ["2.png", "20.png", "200.png", "14.png", "140.png", "3.jpg", "30.jpeg", "4.png"]
    photos = photo_folder(tmp_path / "train", names).parent
    photo_folder(tmp_path / "val", ["a.png", "b.png"])
    source = open_data(Settings(kind="photos", path=photos, train=6, val=2, reference=2), 32, 0).source("train")
    inputs = torch.stack([source.picture(k) for k in range(len(source))])
    teacher = random_teacher()
    lessons = Lessons.write(tmp_path / "lessons", teacher, inputs.__getitem__, len(inputs))
    for index in range(len(source)):
        batch = lessons.batch([index])
        expected = teacher.answer(source.picture(index)[None].float() / 127.5 - 1)[0]
        torch.testing.assert_close(batch.outputs, expected, rtol=0, atol=2e-3)


def test_trap_13_crops_and_flips_are_the_same_for_input_and_teacher(tmp_path: Path) -> None:
    source = open_data(Settings(kind="drawn", train=4), 32, 0).source("train")
    inputs = torch.stack([source.picture(k % 2, view=k) for k in range(6)])
    assert len({view.numpy().tobytes() for view in inputs}) == 6
    teacher = random_teacher()
    lessons = Lessons.write(tmp_path, teacher, inputs.__getitem__, len(inputs))
    batch = lessons.batch(range(6))
    outputs, features = teacher.answer(batch.inputs)
    torch.testing.assert_close(batch.outputs, outputs, rtol=0, atol=2e-3)
    for tap, values in features.items():
        torch.testing.assert_close(batch.features[tap], values, rtol=2e-3, atol=5e-3)

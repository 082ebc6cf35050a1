"""What trainings are taught from: as many views as is said, of every picture, and no silent shortage."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import gs_search.trial.lessons
from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.slimming.lessons import Lessons
from gs_search.slimming.teacher import Teacher
from gs_search.study.config import StudyConfig, load_study
from gs_search.trial.lessons import fresh_lessons, view_of, write_lessons
from tests import tiny_study
from tests.slimming.lessons import random_teacher


class Pictures:
    """A set whose pictures say which view of which they are."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def picture(self, index: int, view: int | None = None) -> Tensor:
        assert view is not None and 0 <= index < self.count
        return torch.full((3, 32, 32), 10 * index + view, dtype=torch.uint8)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return random_teacher()


def study(place: Path, **changes: Any) -> StudyConfig:
    return load_study(tiny_study.write(place, **changes))


def feature_bytes(teacher: Teacher) -> int:
    return sum(2 * values.numel() for values in teacher.answer(torch.zeros(1, 3, 32, 32))[1].values())


def test_trials_train_on_what_is_said(teacher: Teacher, tmp_path: Path) -> None:
    config = study(tmp_path, settings={"steps": 11}, data={"views": None})
    lines: list[str] = []
    pictures: Any = Pictures(9)
    lessons = write_lessons(config, pictures, teacher, tmp_path / "lessons", lines.append)
    assert len(lessons) == lessons.featured == 22
    assert lines == [
        "the teacher's answers on 22 views, 2 or 3 of each of 9 pictures; 22 pictures are seen; "
        f"{22 * (9 * 32 * 32 + feature_bytes(teacher)) / 1e6:.0f} MB"
    ]
    seen = Counter(int(view.flat[0]) for view in lessons.inputs)
    assert seen == Counter(10 * index + view for view in range(3) for index in range(9) if 9 * view + index < 22)


def test_features_without_room_are_said(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 views asked for, three have room; pictures of all are there, however many are asked for."""
    monkeypatch.setattr("gs_search.study.views.FEATURE_BYTES", 3 * feature_bytes(teacher) + 1)
    config, lines = study(tmp_path, data={"views": 8}), list[str]()
    pictures: Any = Pictures(9)
    lessons = write_lessons(config, pictures, teacher, tmp_path / "lessons", lines.append)
    assert (len(lessons), lessons.featured) == (8, 3)
    assert "of the first 8 of 9 pictures" in lines[0] and len(lines) == 2
    assert lines[1].startswith("features are kept of the first 3 of these views") and "38% of the steps" in lines[1]


def test_a_full_disk_is_refused_before_anything_is_written(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study(tmp_path, data={"views": 1_000_000})
    pictures: Any = Pictures(9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9_000_000_000))
    with pytest.raises(BadInput, match=r"1000000 views at 32 px take \d+ MB of disk, and 9000 MB are free; make room"):
        write_lessons(config, pictures, teacher, tmp_path / "lessons", lambda line: None)
    assert not (tmp_path / "lessons").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    folder, none = RunFolder(tmp_path / "run"), Lessons.in_memory(teacher, torch.zeros(1, 3, 32, 32))
    with pytest.raises(BadInput, match=r"views\.bin: 24 views at 32 px take 0 MB more .* lower retrain\.views"):
        fresh_lessons(config, folder, teacher, none, "id", 40)


def test_a_full_training_sees_every_picture(teacher: Teacher, tmp_path: Path) -> None:
    """In the views that the data have by the same numbers; those of the trials come first."""
    config = study(tmp_path)
    source = gs_search.trial.lessons.open_data(config.data, 32, config.seed).source("train")
    first = write_lessons(config, source, teacher, tmp_path / "lessons", lambda line: None)
    lessons, count = fresh_lessons(config, RunFolder(tmp_path / "run"), teacher, first, "id", 4 * 60)
    assert torch.equal(lessons.batch([20, 30]).outputs[0], first.batch([20]).outputs[0])
    assert len(lessons) == count.views == 60 and count.pictures == len(source) == 24
    shown = Counter[int]()
    for number in range(60):
        index, view = number % 24, number // 24
        picture = source.picture(index, view=view)
        assert torch.equal(view_of(source, number), picture)
        assert torch.equal(lessons.batch([number]).inputs[0], picture / 127.5 - 1.0)
        shown[index] += 1
    assert set(shown.values()) == {2, 3} and len(shown) == 24
    assert len({lessons.batch([number]).inputs.numpy().tobytes() for number in range(60)}) == 60

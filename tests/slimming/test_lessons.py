"""Lessons: what is stored, what is painted when it is needed, and that nobody can tell which was which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gs_search.errors import DataError
from gs_search.slimming import Batch, Lessons, Slimmed, SlimmingSettings, Teacher, record_targets, slim
from gs_search.slimming.learning_rates import lesson_numbers
from gs_search.slimming.lessons import FreshLessons
from tests.slimming.lessons import random_teacher

COUNT = 9


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return random_teacher()


@pytest.fixture(scope="module")
def views() -> Tensor:
    noise = torch.rand(COUNT, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 255
    return torch.nn.functional.interpolate(noise, size=32, mode="bicubic").clamp(0, 255).byte()


def assert_same(one: Batch, other: Batch) -> None:
    assert one.indices == other.indices and list(one.features) == list(other.features)
    for left, right in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
        assert left.dtype == torch.float32 and torch.equal(left, right)
    for tap in one.features:
        assert torch.equal(one.features[tap], other.features[tap])


@pytest.mark.parametrize("rows", [[0, 1], [7, 2, 8, 0], [5, 6, 5], [4]])
def test_a_view_has_the_same_bits_wherever_it_is_kept(
    teacher: Teacher, views: Tensor, tmp_path: Path, rows: list[int]
) -> None:
    """And they are the teacher's, in the precision of what is stored; features only where all rows have some."""
    whole = Lessons.write(tmp_path / "whole", teacher, views.__getitem__, COUNT)
    few = Lessons.write(tmp_path / "few", teacher, views.__getitem__, COUNT, featured=3)
    fresh = FreshLessons(tmp_path / "fresh.bin", teacher, views.__getitem__, COUNT, first=few)
    assert (whole.featured, few.featured, fresh.featured, len(few), len(fresh)) == (COUNT, 3, 3, COUNT, COUNT)
    wanted = whole.batch(rows)
    without = wanted if max(rows) < 3 else replace(wanted, features={})
    for lessons in (few, fresh, fresh, Lessons.open(tmp_path / "few")):  # painted, then read
        assert_same(lessons.batch(rows), without)
    outputs, features = teacher.answer(views[rows].float() / 127.5 - 1.0)
    torch.testing.assert_close(wanted.outputs, outputs, rtol=0, atol=2e-3)
    assert set(wanted.features) == set(features) == set(teacher.taps)
    for tap, values in features.items():
        torch.testing.assert_close(wanted.features[tap], values, rtol=2e-3, atol=5e-3)


def test_features_take_room_for_the_views_that_have_them(teacher: Teacher, views: Tensor, tmp_path: Path) -> None:
    Lessons.write(tmp_path / "few", teacher, views.__getitem__, COUNT, featured=2)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "few").glob("features-*")}
    each = {tap: values[0].numel() for tap, values in teacher.answer(torch.zeros(1, 3, 32, 32))[1].items()}
    assert sizes == {f"features-{tap}.npy": 128 + 2 * 2 * count for tap, count in each.items()}


@pytest.mark.parametrize(
    ("featured", "weight", "share"), [(6, 5.0, 0.25), (20, 5.0, 0.5), (40, 5.0, 1.0), (0, 5.0, 0.0), (6, 0.0, None)]
)
def test_steps_with_and_without_features_take_turns(featured: int, weight: float, share: float | None) -> None:
    """Each kind goes round its own views, so that every view is seen, and none much oftener than its kind's others."""
    settings = SlimmingSettings(batch_size=2, feature_weight=weight)
    steps = [lesson_numbers(40, featured, settings, seed=1, step=step) for step in range(240)]
    assert all(len(numbers) == 2 for numbers in steps)
    seen = Counter(int(number) for numbers in steps for number in numbers)
    assert set(seen) == set(range(40))
    with_features = [bool((numbers < featured).all()) for numbers in steps]
    if share is not None:
        assert sum(with_features) == 240 * share
        assert all(
            bool((numbers >= featured).all()) for numbers, has in zip(steps, with_features, strict=True) if not has
        )
        kinds = (range(featured), range(featured, 40))
    else:
        kinds = (range(40),)
    for kind in filter(len, kinds):
        counts = [seen[number] for number in kind]
        assert max(counts) - min(counts) <= 1


def test_a_training_without_some_features_goes_on_in_the_same_bits(
    teacher: Teacher, views: Tensor, tmp_path: Path
) -> None:
    """Killed after any step, with lessons that are read or painted anew; and features were asked for in its steps."""
    first = Lessons.write(tmp_path / "few", teacher, views.__getitem__, COUNT, featured=3)
    targets = record_targets(teacher.network, views[:4].float() / 127.5 - 1.0)
    settings = SlimmingSettings(
        steps=6, batch_size=2, target_gflops_ratio=0.5, repair_pictures=4, adversarial_weight=0.0, feature_weight=5.0
    )

    def run(name: str, steps: int = 99, **more: Any) -> Slimmed:
        lessons = Halting(tmp_path / name, teacher, views.__getitem__, COUNT, first=first)
        lessons.steps = steps
        return slim(teacher, settings, lessons, targets, seed=3, **more)

    whole = run("whole.bin")
    assert "feature" in whole.curve[-1]  # the third and the sixth step
    checkpoint = tmp_path / "checkpoint"
    for steps in (2, 3):
        with pytest.raises(InterruptedError):
            run("killed.bin", steps, checkpoint=checkpoint, checkpoint_every=1)
        if steps == 2:
            (tmp_path / "killed.bin").unlink()
    again = run("killed.bin", checkpoint=checkpoint)
    assert again.curve == whole.curve
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


class Halting(FreshLessons):
    """Cut off after so many steps."""

    steps: int

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        if not self.steps:
            raise InterruptedError
        self.steps -= 1
        return super().batch(indices, device)


class Opened:
    """The views, counting who opens them."""

    def __init__(self, views: Tensor) -> None:
        self.views, self.numbers = views, list[int]()

    def __call__(self, number: int) -> Tensor:
        self.numbers.append(number)
        return self.views[number]


def test_fresh_views_are_painted_once(teacher: Teacher, views: Tensor, tmp_path: Path) -> None:
    """By whichever training comes first, and again where a row was cut off, garbled, or is another teacher's."""
    opened, file = Opened(views), tmp_path / "run" / "fresh.bin"
    first = FreshLessons(file, teacher, opened, COUNT, of="photos")
    wanted = [first.batch([number]) for number in range(COUNT)]
    assert opened.numbers == list(range(COUNT)) == list(range(len(first))) and first.missing_bytes == 0
    assert file.stat().st_size == COUNT * first.row_bytes == COUNT * (9 * 32 * 32 + 4)

    def again(damage: Callable[[bytearray], object] | None, **more: str) -> list[int]:
        content = bytearray(file.read_bytes())
        if damage is not None:
            damage(content)
            file.write_bytes(content)
        opened.numbers = []
        lessons = FreshLessons(file, teacher, opened, COUNT, **{"of": "photos", **more})
        for number in (4, 0, 8):
            assert_same(lessons.batch([number]), wanted[number])
        return opened.numbers

    row = first.row_bytes
    assert again(None) == []
    assert again(lambda content: content.__setitem__(4 * row + 17, content[4 * row + 17] ^ 1)) == [4]
    assert again(lambda content: content.__delitem__(slice(8 * row + 5, None))) == [8]
    assert again(lambda content: content.__setitem__(slice(0, row), bytes(row))) == [0]
    assert again(None, of="other photos") == [4, 0, 8]
    other = random_teacher(blocks=1)
    painted = FreshLessons(file, other, opened, COUNT, of="other photos").batch([4]).outputs
    expected = other.answer(views[[4]].float() / 127.5 - 1.0)[0]
    torch.testing.assert_close(painted, expected, rtol=0, atol=2e-3)


def test_a_file_that_cannot_be_written_is_named(teacher: Teacher, views: Tensor, tmp_path: Path) -> None:
    (tmp_path / "fresh.bin").mkdir()
    with pytest.raises(DataError, match=r"fresh\.bin: cannot be opened"):
        FreshLessons(tmp_path / "fresh.bin", teacher, views.__getitem__, COUNT)
    full = Path("/dev/full")
    if full.exists():
        lessons = FreshLessons(full, teacher, views.__getitem__, COUNT)
        with pytest.raises(DataError, match="/dev/full: cannot be written .*goes on when there is room"):
            lessons.batch([1])

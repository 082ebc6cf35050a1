"""What is taken of a folder, and that no picture is taken twice."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gs_search.data import sieve
from gs_search.data.files import cut, hash_order
from gs_search.data.sieve import Sieve
from gs_search.errors import DataError
from tests.data.conftest import MakeImages

COUNTS = {"test": 6, "val": 8, "reference": 10, "train": 30}


def _photo(seed: int, size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Smooth, as photos are."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def _deal(folder: Path) -> tuple[Sieve, dict[str, list[str]]]:
    taking = Sieve(folder)
    return taking, taking.deal("", COUNTS)


@pytest.mark.parametrize("count", [40, 54, 90])
def test_without_copies_splits_are_those_of_the_names_alone(
    tmp_path: Path, make_images: MakeImages, count: int
) -> None:
    """The oracle has not opened a file: the order of the versions before this one."""
    names = hash_order([path.name for path in make_images(tmp_path, count)])
    taking, splits = _deal(tmp_path)
    assert splits == cut(names, COUNTS, tmp_path)
    assert taking.spare == max(0, count - 54) and not taking.left


def test_a_picture_under_two_names_is_in_one_split(tmp_path: Path) -> None:
    """Copied, converted, with other metadata, turned by EXIF instead of by hand, linked: one picture each."""
    for number in range(30):
        _photo(number).save(tmp_path / f"{number}.jpg", quality=95)
    for number in range(0, 5):
        shutil.copy(tmp_path / f"{number}.jpg", tmp_path / f"copy of {number}.jpg")
    for number in range(5, 10):
        Image.open(tmp_path / f"{number}.jpg").save(tmp_path / f"{number}.png")
    for number in range(10, 15):
        content = (tmp_path / f"{number}.jpg").read_bytes()
        (tmp_path / f"shared {number}.jpg").write_bytes(content[:2] + b"\xff\xfe\0\6abcd" + content[2:])
    for number in range(15, 20):
        turned = Image.open(tmp_path / f"{number}.jpg").transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(tmp_path / f"turned {number}.png", exif=exif)
    for number in range(20, 25):
        (tmp_path / f"link to {number}.jpg").symlink_to(f"{number}.jpg")
    taking, splits = _deal(tmp_path)
    taken = [name for names in splits.values() for name in names]
    assert taking.left == {"copies of others": 25}
    assert len({int(name.split(".")[0].split(" ")[-1]) for name in taken}) == len(taken) >= 28  # shares are rounded


def test_like_pictures_are_no_copies(tmp_path: Path) -> None:
    """A burst: one pixel is another. And flat pictures, of which every thumbnail is the same."""
    base = _photo(0)
    for number in range(40):
        base.putpixel((number, 3), (255, 0, number))
        base.save(tmp_path / f"{number}.png")
    assert not _deal(tmp_path)[0].left


@pytest.mark.parametrize("decoded_pixels", [sieve._DECODED_PIXELS, 0])
def test_damaged_files_are_named_and_passed_over(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, decoded_pixels: int
) -> None:
    """In large sets, too, where not everything is decoded."""
    monkeypatch.setattr(sieve, "_DECODED_PIXELS", decoded_pixels)
    paths = make_images(tmp_path / "a", 30, suffix=".jpg") + make_images(tmp_path / "b", 30)
    for path in (paths[7], paths[41]):
        path.write_bytes(path.read_bytes()[:-900])
    paths[13].write_bytes(b"<html>404</html>")
    Image.new("RGB", (15, 200)).save(paths[50])
    shutil.copy(paths[20], tmp_path / "b" / "copy.png")
    with paths[29].open("ab") as file:
        file.write(b"what a camera appends " * 20)
    counts = {**COUNTS, "train": 100}
    taking = Sieve(tmp_path)
    splits = taking.deal("", counts)
    assert taking.left == {"damaged": 3, "too small or too large": 1, "copies of others": 1}
    assert {line.split(":")[0] for line in taking.named} == {str(paths[n]) for n in (7, 13, 41, 50)}
    assert all("\n" not in line for line in taking.named)
    assert sum(map(len, splits.values())) in (55, 56)  # shares are rounded


def test_of_a_large_folder_no_more_is_decoded_than_is_asked_for(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged among the others is named, too."""
    names = hash_order([path.name for path in make_images(tmp_path, 80)])
    opened: list[Path] = []
    decoded = sieve._decoded
    monkeypatch.setattr(sieve, "_decoded", lambda path, size: (opened.append(path), decoded(path, size))[1])
    for place in (2, 70):
        (tmp_path / names[place]).write_bytes(b"")
    taking, splits = _deal(tmp_path)
    assert sorted(opened) == sorted(tmp_path / name for name in names[:55] if name != names[2])
    assert splits == cut([*names[:2], *names[3:55]], COUNTS, tmp_path)
    assert taking.spare == 24 and [line.split(":")[0] for line in taking.named] == [
        str(tmp_path / names[place]) for place in (2, 70)
    ]


def test_names_that_hold_anything_are_told_in_a_line(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 54)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/br\xff\nken.png"))).write_bytes(b"")
    for number in range(12):
        (tmp_path / f"x.k{number}").touch()
    taking, splits = _deal(tmp_path)
    tally = taking.tally(COUNTS, splits)
    assert tally.named[0].startswith(f"{tmp_path}/br\udcff ken.png: not a readable image")
    line = tally.line()
    assert "\n" not in line and "left out: 1 damaged, 1 .k0" in line and line.endswith(", 5 for 5 other reasons")


def test_more_than_a_few_damaged_files_are_an_error(tmp_path: Path, make_images: MakeImages) -> None:
    for path in make_images(tmp_path, 100)[::5]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="images cannot be used, which is no accident; the first: .*not a readable"):
        Sieve(tmp_path).deal("", {**COUNTS, "train": 100})


def test_too_few_after_sifting_says_why(tmp_path: Path, make_images: MakeImages) -> None:
    for path in itertools.islice(make_images(tmp_path, 12), 6):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"6 images \(left out: 6 damaged\), too few to split into test"):
        _deal(tmp_path)

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gs_search.data import check, check_data
from tests.data.conftest import MakeImages
from tests.data.settings import Settings


def _problems(path: Path) -> list[str]:
    return check_data(Settings("photos", path, train=1000), image_px=32)


def test_good_data_have_no_problems(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 20)
    assert _problems(tmp_path) == []
    assert check_data(Settings("drawn"), 64) == []


def test_a_missing_folder_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    assert _problems(tmp_path / "no")[0].endswith("give the path of a folder of images")


@pytest.mark.parametrize("decoded_pixels", [check._DECODED_PIXELS, 0])
def test_every_bad_image_is_named_in_small_and_large_sets(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, decoded_pixels: int
) -> None:
    monkeypatch.setattr(check, "_DECODED_PIXELS", decoded_pixels)
    paths = make_images(tmp_path / "a", 80, suffix=".jpg") + make_images(tmp_path / "b", 80)
    for path in (paths[7], paths[101]):
        path.write_bytes(path.read_bytes()[:-900])
    paths[33].write_bytes(b"<html>404</html>")
    Image.new("RGB", (1, 1)).save(paths[120])
    with paths[60].open("ab") as file:
        file.write(b"what a camera appends " * 20)
    problems = _problems(tmp_path)
    assert [line.split(":")[0] for line in problems] == [str(paths[n]) for n in (7, 33, 101, 120)]
    assert all("\n" not in line for line in problems)


def test_many_problems_end_in_a_count(tmp_path: Path, make_images: MakeImages) -> None:
    for path in make_images(tmp_path, 50):
        path.write_bytes(b"")
    problems = _problems(tmp_path)
    assert len(problems) == 21 and "30 more images" in problems[-1]

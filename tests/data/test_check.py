from __future__ import annotations

from pathlib import Path

from gs_search.data import check_data
from tests.data.conftest import MakeImages
from tests.data.settings import Settings


def test_good_data_have_no_problems(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30)
    problems, (tally,) = check_data(Settings("photos", tmp_path), 32, batch_sizes=[4, 12])
    assert problems == []
    assert tally.line() == (f"{tmp_path}: 24 pictures (train 12, val 4, test 3, reference 5), 6 more to spare")
    assert check_data(Settings("drawn"), 64) == ([], ())


def test_a_missing_folder_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    assert check_data(Settings("photos", tmp_path / "no"), 32)[0][0].endswith("give the path of a folder of images")


def test_a_folder_for_validation_that_is_too_small_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    """What is cut off the training pictures is never so small."""
    make_images(tmp_path / "train", 14)
    make_images(tmp_path / "val", 3)
    problems, _ = check_data(Settings("photos", tmp_path), 32)
    assert problems == [
        f"{tmp_path}: 3 pictures in split val, but KID needs 4; add pictures, or ask for fewer in other splits"
    ]


def test_a_batch_needs_as_many_pictures(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30)
    problems, _ = check_data(
        Settings("photos", tmp_path, train=15, val=6, test=3, reference=6), 32, batch_sizes=[4, 16]
    )
    assert len(problems) == 1 and "15 pictures in split train, but batch_size is 16" in problems[0]

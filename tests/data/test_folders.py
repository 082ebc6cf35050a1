from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from gs_search.data import DataSource, open_data
from gs_search.errors import DataError
from tests.data.conftest import MakeImages
from tests.data.settings import Settings


def _open(path: Path, **counts: int) -> DataSource:
    return open_data(Settings("folders", path, **counts), 32, seed=0)


def _names(data: DataSource, domain: str, split: str) -> list[str]:
    pictures = getattr(data, domain)(split)
    return [pictures.name(index) for index in range(len(pictures))]


@pytest.fixture
def horses(tmp_path: Path, make_images: MakeImages) -> Path:
    for name, count in (("trainA", 20), ("trainB", 30), ("testA", 6), ("testB", 7)):
        make_images(tmp_path / name, count)
    return tmp_path


def test_cyclegan_layout_with_val_split_off_train(horses: Path) -> None:
    data = _open(horses)
    assert [len(data.source(s)) for s in ("train", "val", "test")] == [12, 4, 3]
    assert all(name.startswith("trainA/") for s in ("train", "val") for name in _names(data, "source", s))
    assert all(name.startswith("testB/") for name in _names(data, "target", "test"))
    assert not set(_names(data, "source", "train")) & set(_names(data, "source", "val"))
    assert data.reference_kind == "target"
    assert data.source("train").picture(0).shape == (3, 32, 32)


def test_val_folders_are_used_where_they_exist(horses: Path, make_images: MakeImages) -> None:
    make_images(horses / "valA", 9)
    data = _open(horses)
    assert all(name.startswith("valA/") for name in _names(data, "source", "val"))
    assert all(name.startswith("trainB/") for name in _names(data, "target", "val"))


def test_reference_is_val_first_then_train(horses: Path) -> None:
    data = _open(horses, reference=9)
    names = _names(data, "target", "reference")
    assert names[:4] == _names(data, "target", "val") and len(names) == 9


def test_a_missing_test_folder_is_cut_from_train_too(horses: Path) -> None:
    shutil.rmtree(horses / "testA")
    data = _open(horses)
    assert all(name.startswith("trainA/") for name in _names(data, "source", "test"))
    splits = [set(_names(data, "source", split)) for split in ("train", "val", "test")]
    assert len(set.union(*splits)) == sum(map(len, splits)) == 19


def test_copies_are_kept_out_in_each_domain_of_its_own(horses: Path) -> None:
    """The same photo may be in both domains; within one it is in one split."""
    for name in ("testA", "trainA", "trainB"):
        Image.linear_gradient("L").save(horses / name / "copied.png")
    data = _open(horses, train=100, test=100)
    assert "trainA/copied.png" not in {name for split in data.sources for name in _names(data, "source", split)}
    assert "trainB/copied.png" in {name for split in data.targets for name in _names(data, "target", split)}
    assert [tally.left_out for tally in data.tallies] == [{"copies of others": 1}, {}]
    assert (
        data.tallies[0]
        .line()
        .startswith(f"{horses} (A): 27 pictures (train 16 of 100, val 4, test 7 of 100); left out: 1 ")
    )


def test_no_test_wanted(horses: Path) -> None:
    with pytest.raises(DataError, match="no pictures to translate in split 'test'"):
        _open(horses, test=0).source("test")


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        (("trainB",), "no trainB in it"),
        (("trainA", "trainB"), "no trainA and no trainB .* kind: photos"),
        (("testA", "testB", "trainA", "trainB", "."), "no such folder"),
    ],
)
def test_missing_folders_are_named(horses: Path, gone: tuple[str, ...], match: str) -> None:
    for name in gone:
        shutil.rmtree(horses / name)
    with pytest.raises(DataError, match=match) as caught:
        _open(horses)
    assert "\n" not in str(caught.value)


def test_no_path() -> None:
    with pytest.raises(DataError, match=r"data\.path"):
        open_data(Settings("folders"), 32, seed=0)


def test_fingerprint_sees_a_changed_file_and_describe_does_not_see_the_place(
    horses: Path, make_images: MakeImages, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = _open(horses)
    fingerprint = before.fingerprint()
    copy = tmp_path_factory.mktemp("copy") / "horses"
    shutil.copytree(horses, copy, copy_function=shutil.copy)
    assert _open(copy).describe() == before.describe()
    assert _open(copy).fingerprint() != fingerprint
    make_images(horses / "trainA", 20, size=(50, 50))
    assert _open(horses).fingerprint() != fingerprint

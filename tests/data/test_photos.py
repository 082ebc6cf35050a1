from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from gs_search.data import DataSource, batch, open_data
from gs_search.errors import DataError
from tests.data.conftest import MakeImages
from tests.data.settings import Settings

SPLITS = ("train", "val", "test", "reference")


def _open(path: Path, seed: int = 0, **counts: int) -> DataSource:
    return open_data(Settings("photos", path, **counts), 32, seed)


def _splits(data: DataSource) -> dict[str, set[str]]:
    sets = {split: data.source(split) for split in SPLITS}  # type: ignore[arg-type]
    return {split: {p.name(i) for i in range(len(p))} for split, p in sets.items()}


def test_a_flat_folder_is_split_four_ways(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30)
    data = _open(tmp_path)
    splits = _splits(data)
    assert [len(splits[split]) for split in SPLITS] == [12, 4, 3, 5]
    assert len(set.union(*splits.values())) == 24
    assert data.target("train") is None and data.reference_kind == "teacher"


@pytest.mark.parametrize("count", [12, 14, 20])
def test_few_photos_are_shared_out(tmp_path: Path, make_images: MakeImages, count: int) -> None:
    """KID needs four of what is measured."""
    make_images(tmp_path, count)
    splits = _splits(_open(tmp_path))
    assert min(map(len, splits.values())) >= 2 and min(len(splits[split]) for split in ("val", "reference")) >= 4
    assert len(set.union(*splits.values())) == sum(map(len, splits.values())) <= count


def test_the_seed_does_not_move_photos_between_splits(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "deep" / "er", 30)
    assert _splits(_open(tmp_path, seed=0)) == _splits(_open(tmp_path, seed=1))


def test_sub_folders_are_the_splits_and_reference_is_cut_from_train(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "train", 40)
    make_images(tmp_path / "val", 10)
    splits = _splits(_open(tmp_path))
    prefixes = {split: {name.split("/")[0] for name in names} for split, names in splits.items()}
    assert prefixes == {"train": {"train"}, "val": {"val"}, "test": {"train"}, "reference": {"train"}}
    assert len(set.union(*splits.values())) == 24


def test_views_are_seeded_crops(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30, size=(80, 50), suffix=".jpg")
    photos = _open(tmp_path).source("train")
    views = batch(photos, [0, 1, 2], views=[None, 4, 5])
    assert views.shape == (3, 3, 32, 32) and views.dtype == torch.float32 and views.abs().max() <= 1
    again = batch(_open(tmp_path).source("train"), [1, 2], views=[4, 5])
    assert torch.equal(views[1:], again)
    assert not torch.equal(batch(photos, [1], 4), batch(_open(tmp_path, seed=1).source("train"), [1], 4))


def test_sets_travel(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30)
    photos = _open(tmp_path).source("train")
    assert torch.equal(pickle.loads(pickle.dumps(photos)).picture(3), photos.picture(3))


def test_a_photo_in_its_own_folder_for_validation_is_not_trained_on(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "train", 40)
    make_images(tmp_path / "val", 6)
    for number, path in enumerate(sorted((tmp_path / "val").iterdir())[:3]):
        shutil.copy(path, tmp_path / "train" / f"copy {number}.png")
    data = _open(tmp_path, train=100, val=100)
    assert {name for names in _splits(data).values() for name in names if "copy" in name} == set()
    assert len(_splits(data)["val"]) == 6
    assert data.tallies[0].left_out == {"copies of others": 3}


def test_a_photo_that_vanishes_is_named(tmp_path: Path, make_images: MakeImages) -> None:
    paths = make_images(tmp_path, 30)
    data = _open(tmp_path)
    for path in paths:
        path.unlink()
    with pytest.raises(DataError, match="no such image"):
        data.source("val").picture(0)
    with pytest.raises(DataError, match="no such image"):
        data.fingerprint()


def test_two_domains_are_not_photos(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "trainA", 3)
    with pytest.raises(DataError, match="kind: folders"):
        _open(tmp_path)


def test_eleven_photos_are_too_few(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 11)
    with pytest.raises(DataError, match="11 images, too few to split"):
        _open(tmp_path)

"""Pictures beside their targets: each target is found by what its source shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gs_search.data import DataSource, check_data, open_data
from gs_search.errors import DataError
from tests.data.settings import Settings


def _picture(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def side_by_side(folder: Path, count: int, first: int = 0, width: int = 60) -> None:
    """The right half is the left one's negative."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        source = _picture(number, (width, 48))
        both = Image.new("RGB", (2 * width, 48))
        both.paste(source, (0, 0))
        both.paste(ImageOps.invert(source), (width, 0))
        both.save(folder / f"{number}.png")


def two_folders(root: Path, count: int, names: tuple[str, str] = ("source", "target")) -> None:
    for number in range(count):
        source, target = (root / name / "deep" / f"{number}" for name in names)
        source.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _picture(number).save(f"{source}.png")
        ImageOps.invert(_picture(number)).save(f"{target}.bmp")


def _open(path: Path, side: str | None = None, seed: int = 0) -> DataSource:
    return open_data(Settings("pairs", path, side=side), 32, seed)  # type: ignore[arg-type]


def _pairs(data: DataSource, split: str, view: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    sets = data.source(split), data.target(split)  # type: ignore[arg-type]
    assert sets[1] is not None and len(sets[0]) == len(sets[1])
    a, b = (torch.stack([pictures.picture(k, view) for k in range(len(pictures))]) for pictures in sets)
    return a.short(), b.short()


@pytest.mark.parametrize("make", [side_by_side, two_folders])
@pytest.mark.parametrize("view", [None, 0, 3])
def test_a_target_is_cropped_and_mirrored_as_its_source(tmp_path: Path, make: object, view: int | None) -> None:
    make(tmp_path, 24)  # type: ignore[operator]
    data = _open(tmp_path)
    assert [len(data.sources[split]) for split in ("train", "val", "test")] == [12, 4, 3]
    for split in ("train", "val", "test"):
        sources, targets = _pairs(data, split, view)
        assert (sources + targets - 255).abs().max() <= 1  # resampling rounds
    assert data.reference_kind == "target" and len(data.targets["reference"]) == 5


def test_the_source_may_be_on_the_right(tmp_path: Path) -> None:
    side_by_side(tmp_path, 24)
    left, right = (_open(tmp_path, side) for side in ("left", "right"))
    assert torch.equal(left.sources["val"].picture(1), right.targets["val"].picture(1))
    assert torch.equal(left.targets["val"].picture(1, view=2), right.sources["val"].picture(1, view=2))
    assert left.describe()["content"] != right.describe()["content"]
    assert torch.equal(_open(tmp_path).sources["val"].picture(1), left.sources["val"].picture(1))


def test_splits_of_their_own(tmp_path: Path) -> None:
    side_by_side(tmp_path / "train", 20)
    side_by_side(tmp_path / "val", 5, first=100)
    data = _open(tmp_path)
    assert {data.sources["val"].name(k).split("/")[0] for k in range(4)} == {"val"}
    assert {data.sources["test"].name(k).split("/")[0] for k in range(3)} == {"train"}


def test_what_makes_no_pair_is_counted(tmp_path: Path) -> None:
    two_folders(tmp_path, 30, ("A", "B"))
    (tmp_path / "B" / "deep" / "3.bmp").unlink()
    (tmp_path / "B" / "deep" / "4.bmp").write_bytes(b"")
    _picture(5, (48, 48)).save(tmp_path / "B" / "deep" / "5.bmp")
    _picture(6, (120, 96)).save(tmp_path / "B" / "deep" / "6.bmp")  # larger, as of a network that enlarges
    problems, (tally,) = check_data(Settings("pairs", tmp_path, train=100), 32)
    assert problems == []
    assert tally.left_out == {"without a partner": 1, "damaged": 1, "of another shape than their partner": 1}
    assert tally.named[0].startswith(f"{tmp_path}/B/deep/4.bmp: ")
    assert not tally.side_by_side


def test_photos_that_look_like_pairs_are_said_to_and_one_half_can_be_taken(tmp_path: Path) -> None:
    side_by_side(tmp_path, 30, width=48)
    _, (tally,) = check_data(Settings("photos", tmp_path), 32)
    assert "nearly all are twice as wide as high" in tally.notes()[0] and "data.kind: pairs" in tally.notes()[0]
    half = Settings("photos", tmp_path, side="left")
    _, (tally,) = check_data(half, 32)
    assert tally.notes() == []
    photos, pairs = open_data(half, 32, 0), _open(tmp_path)
    same = photos.sources["test"].name(0)
    place = [pairs.sources["test"].name(k) for k in range(3)].index(same)
    assert torch.equal(photos.sources["test"].picture(0), pairs.sources["test"].picture(place))


@pytest.mark.parametrize(
    ("folders", "side", "match"),
    [
        ((), None, "no images in it"),
        (("trainA", "trainB"), None, "write kind: folders"),
        (("source", "target"), "left", "data.side is about two pictures side by side in one"),
    ],
)
def test_folders_that_are_no_pairs(tmp_path: Path, folders: tuple[str, ...], side: str | None, match: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=match) as caught:
        _open(tmp_path, side)
    assert "\n" not in str(caught.value)

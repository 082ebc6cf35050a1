"""Two unpaired domains in CycleGAN's layout: ``trainA trainB``, perhaps ``valA valB testA testB``."""

from __future__ import annotations

from pathlib import Path

from gs_search.data.files import FilePictures, cut, list_images
from gs_search.data.source import DataSettings, DataSource
from gs_search.data.views import Views
from gs_search.errors import DataError

__all__ = ["open_folders"]


def open_folders(config: DataSettings, image_px: int, seed: int) -> DataSource:
    """Domain A is translated, domain B is the target.

    A missing ``val`` or ``test`` folder is replaced by a part of ``train``, which then loses it.

    Raises:
        DataError: ``trainA`` or ``trainB`` is missing, a folder is empty or too small.
    """
    if config.path is None:
        raise DataError("data.path: kind folders needs the folder that holds trainA and trainB")
    root = config.path
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data.path names the folder that holds trainA and trainB")
    missing = [name for name in ("trainA", "trainB") if not (root / name).is_dir()]
    if missing:
        hint = "; for one folder of photos write kind: photos" if len(missing) == 2 else ""
        raise DataError(f"{root}: no {' and no '.join(missing)} in it, which kind folders needs{hint}")
    views = Views(image_px, seed)
    return DataSource("folders", image_px, seed, *(_domain(root, letter, config, views) for letter in "AB"))


def _domain(root: Path, letter: str, config: DataSettings, views: Views) -> dict[str, FilePictures]:
    counts = {"test": config.test, "val": config.val}
    own = {split: f"{split}{letter}" for split in counts if (root / f"{split}{letter}").is_dir()}
    names = {
        split: [f"{folder}/{name}" for name in list_images(root / folder)[: counts[split]]]
        for split, folder in own.items()
    }

    train = [f"train{letter}/{name}" for name in list_images(root / f"train{letter}")]
    lacking = {split: count for split, count in counts.items() if split not in own}
    names |= cut(train, {**lacking, "train": config.train}, root / f"train{letter}")
    if letter == "B":
        names["reference"] = (names["val"] + names["train"])[: config.reference]
    return {split: FilePictures(root, names[split], views) for split in sorted(names)}

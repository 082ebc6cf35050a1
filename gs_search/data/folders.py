"""Two unpaired domains in CycleGAN's layout: ``trainA trainB``, perhaps ``valA valB testA testB``."""

from __future__ import annotations

from pathlib import Path

from gs_search.data.files import FilePictures
from gs_search.data.sieve import Sieve
from gs_search.data.source import DataSettings, DataSource
from gs_search.data.tally import Tally
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
    (sources, a), (targets, b) = (_domain(root, letter, config, views) for letter in "AB")
    return DataSource("folders", image_px, seed, sources, targets, (a, b))


def _domain(root: Path, letter: str, config: DataSettings, views: Views) -> tuple[dict[str, FilePictures], Tally]:
    asked = {"test": config.test, "val": config.val, "train": config.train}
    own = {split: f"{split}{letter}/" for split in ("test", "val") if (root / f"{split}{letter}").is_dir()}
    sieve = Sieve(root)
    names = {split: sieve.take_below(folder, asked[split]) for split, folder in own.items()}
    names |= sieve.deal(f"train{letter}/", {split: count for split, count in asked.items() if split not in own})
    tally = sieve.tally(asked, names, letter)
    if letter == "B":
        names["reference"] = (names["val"] + names["train"])[: config.reference]
    return {split: FilePictures(root, names[split], views) for split in sorted(names)}, tally

"""One folder of photos, for a teacher whose target domain is not at hand.

FID then compares with the teacher's own translations of photos that are neither trained on nor translated by
the student: the split ``reference``.
"""

from __future__ import annotations

from gs_search.data.files import FilePictures
from gs_search.data.sieve import Sieve
from gs_search.data.source import DataSettings, DataSource
from gs_search.data.views import Views
from gs_search.errors import DataError

__all__ = ["open_photos"]


def open_photos(config: DataSettings, image_px: int, seed: int) -> DataSource:
    """Split a folder of photos.

    Either images at any depth, dealt out by the hash of their names, or sub-folders ``train`` and perhaps
    ``val`` and ``test``; ``reference`` and the missing ones are then cut from ``train``.

    Raises:
        DataError: no folder, no images, or too few.
    """
    if config.path is None:
        raise DataError("data.path: kind photos needs a folder of photos")
    root = config.path
    if (root / "trainA").is_dir():
        raise DataError(f"{root}: has trainA in it, two domains; write kind: folders")
    asked = {"test": config.test, "val": config.val, "reference": config.reference, "train": config.train}
    prefix = "train/" if (root / "train").is_dir() else ""
    own = {split: f"{split}/" for split in ("val", "test") if prefix and (root / split).is_dir()}
    sieve = Sieve(root)
    names = {split: sieve.take_below(folder, asked[split]) for split, folder in own.items()}
    names |= sieve.deal(prefix, {split: count for split, count in asked.items() if split not in own})
    views = Views(image_px, seed)
    sources = {split: FilePictures(root, names[split], views, config.side) for split in sorted(names)}
    return DataSource(
        "photos", image_px, seed, sources, tallies=(sieve.tally(asked, names, halves=config.side is not None),)
    )

"""Pairs: each picture with what it is to become, cropped and mirrored alike.

For paired training, and for teachers that are known by what they have painted alone. In pix2pix's layout both lie side
by side in one picture; or two folders, ``source`` and ``target`` (or ``A`` and ``B``), hold files of equal names.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from gs_search.data.files import FilePictures, list_images
from gs_search.data.sieve import Sieve
from gs_search.data.source import DataSettings, DataSource
from gs_search.data.views import Views
from gs_search.errors import DataError

__all__ = ["open_pairs"]

_FOLDERS = (("source", "target"), ("A", "B"))
_OTHER: dict[str, Literal["left", "right"]] = {"left": "right", "right": "left"}


def open_pairs(config: DataSettings, image_px: int, seed: int) -> DataSource:
    """Split pairs as photos are: images at any depth, or sub-folders ``train`` and perhaps ``val`` and ``test``.

    With two folders, each has these. Of side-by-side pictures ``data.side`` says where the source is, left by default.

    Raises:
        DataError: no folder, no pairs, or too few.
    """
    if config.path is None:
        raise DataError(
            "data.path: kind pairs needs a folder of pictures with two side by side, or of source and target"
        )
    root = config.path
    if (root / "trainA").is_dir():
        raise DataError(f"{root}: has trainA in it, two domains that are not paired; write kind: folders")
    sides = next(((a, b) for a, b in _FOLDERS if (root / a).is_dir() and (root / b).is_dir()), None)
    if sides is not None and config.side is not None:
        message = "data.side is about two pictures side by side in one, but there are folders"
        raise DataError(f"{root}: {message} {' and '.join(sides)}; remove it")
    top = "" if sides is None else f"{sides[0]}/"
    sieve = Sieve(root, {} if sides is None else _partners(root, *sides))
    asked = {"test": config.test, "val": config.val, "train": config.train}
    prefix = f"{top}train/" if (root / top / "train").is_dir() else top
    own = {split: f"{top}{split}/" for split in ("val", "test") if prefix != top and (root / top / split).is_dir()}
    names = {split: sieve.take_below(folder, asked[split]) for split, folder in own.items()}
    names |= sieve.deal(prefix, {split: count for split, count in asked.items() if split not in own})
    tally = sieve.tally(asked, names, halves=True)
    names["reference"] = (names["val"] + names["train"])[: config.reference]
    views, side = Views(image_px, seed), None if sides is not None else config.side or "left"
    sources = {split: FilePictures(root, names[split], views, side) for split in ("test", "train", "val")}
    targets = {
        split: FilePictures(
            root, [sieve.partners.get(name, name) for name in names[split]], views, side and _OTHER[side]
        )
        for split in sorted(names)
    }
    return DataSource("pairs", image_px, seed, sources, targets, (tally,))


def _partners(root: Path, source: str, target: str) -> dict[str, str]:
    """Names below the source folder to those below the target folder that differ in their suffix at most."""
    known = {str(PurePosixPath(name).with_suffix("")): name for name in list_images(root / target).names}
    found = {}
    for name in list_images(root / source).names:
        partner = known.get(str(PurePosixPath(name).with_suffix("")))
        found[f"{source}/{name}"] = f"{target}/{partner}" if partner else ""
    return found

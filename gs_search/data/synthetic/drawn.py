"""The drawn data set: horses (domain A) and zebras (domain B) in landscapes, unpaired, made of nothing.

Every picture is a pure function of (seed, species, index): no files, no downloads, any number of pixels,
two milliseconds at 64 px. They serve quick starts and tests, and show the eye whether a generator works.
"""

from __future__ import annotations

from typing import get_args

from PIL import Image
from torch import Tensor

from gs_search.data.source import DataSettings, DataSource
from gs_search.data.synthetic.equine import Species, paint_equine
from gs_search.data.synthetic.landscape import paint_foreground, paint_landscape
from gs_search.data.synthetic.rng import Dice
from gs_search.data.views import Views

__all__ = ["DRAWING_VERSION", "DrawnPictures", "draw", "open_drawn"]

DRAWING_VERSION = 1
"""Raised whenever a change of the drawing code changes pixels; part of every fingerprint."""

_OVERSAMPLING = 3
_SPLITS = ("train", "val", "test", "reference")
_NUMBERS_A_SPLIT = 10_000_000
"""Splits are ranges of numbers, as far apart as a split can be large."""


def draw(seed: int, species: Species, index: int, image_px: int) -> Image.Image:
    """Draw one picture, ``3 * image_px`` wide: averaging it down is the antialiasing."""
    dice = Dice(DRAWING_VERSION, seed, get_args(Species).index(species), index)
    canvas, land = paint_landscape(dice, image_px, _OVERSAMPLING)
    if dice.chance(0.35):
        size, side = dice.uniform(0.22, 0.30), dice.choice((0.0, 0.65))
        feet = land.horizon + 0.10 + size * dice.uniform(0.25, 0.5)
        paint_equine(canvas, dice, species, land, side + dice.uniform(0.1, 0.25), feet, size)
    feet = dice.uniform(0.84, 0.92)
    paint_equine(canvas, dice, species, land, dice.uniform(0.46, 0.54), feet, dice.uniform(0.40, 0.48))
    paint_foreground(canvas, land, dice, feet)
    return canvas.image


class DrawnPictures:
    """``count`` pictures of one species, numbers ``first`` and following; a ``PictureSet``."""

    def __init__(self, seed: int, species: Species, first: int, count: int, image_px: int) -> None:
        self._seed, self._species, self._first, self._count = seed, species, first, count
        self._views = Views(image_px, seed, Image.Resampling.BOX)

    def __len__(self) -> int:
        return self._count

    def picture(self, index: int, view: int | None = None) -> Tensor:
        """See ``PictureSet.picture``."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        image = draw(self._seed, self._species, self._first + index, self._views.image_px)
        return self._views.of(image, index, view)

    def name(self, index: int) -> str:
        """Species and number."""
        return f"{self._species}-{self._first + index}"

    def identity(self, *, exact: bool) -> list[str]:
        """One line says it all, on this machine and elsewhere."""
        return [f"drawn {DRAWING_VERSION} {self._seed} {self._species} {self._first} {self._count}"]


def open_drawn(config: DataSettings, image_px: int, seed: int) -> DataSource:
    """Horses to translate and zebras as target; ``reference`` are zebras of their own numbers."""
    counts = {"train": config.train, "val": config.val, "test": config.test, "reference": config.reference}
    first = {split: number * _NUMBERS_A_SPLIT for number, split in enumerate(_SPLITS)}

    def pictures(species: Species, split: str) -> DrawnPictures:
        return DrawnPictures(seed, species, first[split], counts[split], image_px)

    sources = {split: pictures("horse", split) for split in _SPLITS[:3]}
    targets = {split: pictures("zebra", split) for split in _SPLITS}
    return DataSource("drawn", image_px, seed, sources, targets)

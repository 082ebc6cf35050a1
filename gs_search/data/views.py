"""How an image of any size becomes a square picture: centred to evaluate, cropped at random to train."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from gs_search.data.images import image_to_tensor
from gs_search.data.synthetic.rng import Dice

__all__ = ["Views"]

_SMALLEST_CROP = 0.8
"""Shortest side of a random crop, as a share of the image's shorter side."""
_STREAM = 0x76696577
"""Keeps these dice apart from those that draw pictures."""


@dataclass(frozen=True)
class Views:
    """Square views of images. A random view is a pure function of (seed, index, view)."""

    image_px: int
    seed: int
    resampling: Image.Resampling = Image.Resampling.BICUBIC

    def of(self, image: Image.Image, index: int, view: int | None = None) -> Tensor:
        """A view of an RGB image: uint8, 3 x image_px x image_px.

        Args:
            image: any size.
            index: number of the picture in its set.
            view: None for the largest centred square; k for the k-th random crop and flip.
        """
        side, flip = float(min(image.size)), False
        left, top = (image.width - side) / 2, (image.height - side) / 2
        if view is not None:
            dice = Dice(_STREAM, self.seed, index, view)
            side = side * dice.uniform(_SMALLEST_CROP, 1.0)
            left, top = dice.uniform(0, image.width - side), dice.uniform(0, image.height - side)
            flip = dice.chance(0.5)
        size = (self.image_px, self.image_px)
        square = image.resize(size, self.resampling, box=(left, top, left + side, top + side))
        if flip:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image_to_tensor(square)

"""Drawing tools of the drawn data set: smooth curves, and a supersampled canvas.

Points are arrays of ``n x 2`` in picture units: x to the right and y downwards, both from 0 to 1, whatever
the number of pixels. A canvas is drawn several times larger than the picture and averaged down, which is the
whole of the antialiasing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["Canvas", "Colour", "Points", "closed_curve", "mix", "open_curve", "ribbon", "shade"]

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour on the way from ``a`` (share 0) to ``b`` (share 1)."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` times a ``factor`` of 0 or more, clipped to 255."""
    r, g, b = colour
    return min(255, round(r * factor)), min(255, round(g * factor)), min(255, round(b * factor))


@lru_cache(maxsize=64)
def _catmull_rom(count: int, samples: int, closed: bool) -> Points:
    """Matrix (curve points x control points) of the Catmull-Rom spline through ``count`` control points."""
    spans = count if closed else count - 1
    t = np.tile(np.arange(samples) / samples, spans)
    span = np.repeat(np.arange(spans), samples)
    if not closed:
        t, span = np.append(t, 1.0), np.append(span, spans - 1)
    weights = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    matrix = np.zeros((len(t), count))
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = (span + offset) % count if closed else np.clip(span + offset, 0, count - 1)
        np.add.at(matrix, (np.arange(len(t)), index), weight)
    return matrix


def closed_curve(controls: Points, samples: int = 5) -> Points:
    """Smooth outline through control points ``... x n x 2``: ``... x (n * samples) x 2``."""
    return _catmull_rom(controls.shape[-2], samples, True) @ controls


def open_curve(controls: Points, samples: int = 5) -> Points:
    """Smooth line through control points ``... x n x d``, ends included."""
    return _catmull_rom(controls.shape[-2], samples, False) @ controls


def ribbon(spine: Points, half_width: Points) -> tuple[Points, Points]:
    """Both sides of bands around spines ``... x n x 2``: left and right, seen along them with y upwards."""
    tangent = np.empty_like(spine)
    tangent[..., 1:-1, :] = spine[..., 2:, :] - spine[..., :-2, :]
    tangent[..., 0, :] = spine[..., 1, :] - spine[..., 0, :]
    tangent[..., -1, :] = spine[..., -1, :] - spine[..., -2, :]
    normal = tangent[..., ::-1] * (-1.0, 1.0)
    normal *= (half_width / (np.sqrt((tangent * tangent).sum(-1)) + 1e-12))[..., None]
    return spine + normal, spine - normal


class Canvas:
    """A square picture under construction, ``oversampling`` times larger than the finished one.

    Attributes:
        image: the RGB image, ``side`` x ``side``.
    """

    def __init__(self, image_px: int, oversampling: int, rows: Points) -> None:
        """Start from horizontal rows of colour, ``side x 3``."""
        self.side = image_px * oversampling
        strip = Image.fromarray((rows[:, None, :] + 0.5).astype(np.uint8))
        self.image = strip.resize((self.side, self.side), Image.Resampling.NEAREST)
        # "RGBA" on an RGB image: fills with an alpha below 255 are blended.
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def polygon(self, points: Points, colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon ``n x 2``."""
        self.polygons(points[None], colour, alpha)

    def polygons(self, points: Points, colour: Colour, alpha: float = 1.0) -> None:
        """Fill polygons ``k x n x 2``."""
        ink = (*colour, round(255 * alpha))
        for flat in self.pixels(points):
            self._draw.polygon(flat, ink)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fill an ellipse of centre (x, y) and half-axes rx, ry."""
        s = self.side
        box = ((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s)
        self._draw.ellipse(box, (*colour, round(255 * alpha)))

    def pixels(self, points: Points) -> list[list[float]]:
        """Flat pixel coordinates of polygons ``k x n x 2``, as Pillow wants them."""
        return (points * self.side).round().reshape(len(points), -1).tolist()

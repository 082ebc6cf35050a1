"""A zebra's stripes: bands across trunk, neck, head and legs, a fan on the haunch."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from gs_search.data.synthetic.brush import Canvas, Colour, Points, open_curve, ribbon
from gs_search.data.synthetic.rng import Dice
from gs_search.data.synthetic.skeleton import Body

__all__ = ["Stripes"]

# A zebra's stripes across the head, in head units.
_FACE = np.array(
    [
        *(
            [
                (u, 0.1),
                (u + 0.03, 0.1),
                (u + 0.045, 0.0),
                (u + 0.022, v),
                (u + 0.02, 0.5 * v),
                (u + 0.018, 0.0),
            ]
            for u, v in ((0.055, -0.13), (0.200, -0.09), (0.265, -0.08))
        ),
        [(0.03, -0.02), (0.10, -0.045), (0.16, -0.12), (0.12, -0.12), (0.08, -0.075), (0.03, -0.055)],
    ]
)
_FLANK = np.array([0.30, 0.50])
# Half a stripe's length along the neck: over the upright mane on one side, past the throat on the other.
_NECK_REACH = np.linspace(0.30, 0.18, 16)


class Stripes:
    """The stripes of one animal."""

    def __init__(self, canvas: Canvas, dice: Dice, body: Body) -> None:
        self._canvas, self._dice, self._body = canvas, dice, body
        self._phase = dice.unit()
        self._weight = dice.uniform(0.88, 1.12)

    def paint(self, mask: Image.Image, colour: Colour) -> None:
        """Paint all stripes inside the silhouette ``mask``."""
        stripes = Image.new("L", mask.size)
        draw = ImageDraw.Draw(stripes)
        body, pixels = self._body, self._canvas.pixels
        blades = body.place(self._blades(np.concatenate([self._trunk(), self._haunch(), self._neck()])))
        for bands in (blades, body.on_head(_FACE), self.rings(0), self.rings(1)):
            for band in pixels(bands):
                draw.polygon(band, 255)
        if box := mask.getbbox():
            self._canvas.image.paste(colour, box, ImageChops.multiply(stripes.crop(box), mask.crop(box)))

    def rings(self, leg: int) -> Points:
        """Bands round one leg, below the trunk: k x 4 x 2 in picture units."""
        left, right = self._body.leg_sides[:, leg]
        # Wider than the leg: a ring ends where the silhouette does.
        left, right = left + 0.2 * (left - right), right + 0.2 * (right - left)
        start = (3.0, 5.0)[leg % 2] + self._phase + 2.15 * np.arange(7.0 - leg % 2)
        stop = start + 0.95 * self._weight
        return np.stack([_at(left, start), _at(left, stop), _at(right, stop), _at(right, start)], axis=1)

    def _blades(self, stripes: Points) -> Points:
        """Outlines of curved stripes in body units: k x 18 x 2.

        Each of the ``k x 6 x 2`` rows holds three points, then (half-width, unused) at each of them.
        """
        spine, width = open_curve(stripes[:, :3], 4), open_curve(stripes[:, 3:, :1], 4)[..., 0]
        left, right = ribbon(spine, width * self._weight)
        return np.concatenate([left, right[:, ::-1]], axis=1)

    def _trunk(self) -> Points:
        x = 0.35 + 0.02 * self._phase + 0.095 * np.arange(6)
        lean, noise = 0.10 * (0.62 - x), self._dice.units(6, 2) - 0.5
        low = _points(x + 0.3 * lean, 0.49 + 0.1 * noise[:, 1])
        return _stripes(_points(x - lean, 1.06), _points(x + 0.025 * noise[:, 0], 0.76), low, (26, 26, 4))

    def _haunch(self) -> Points:
        step = np.arange(5)
        angle = np.radians(104 + 19 * step + 6 * self._phase)
        out = _points(np.cos(angle), np.sin(angle))
        end = _FLANK + 0.56 * out
        end[:, 1] -= 0.05 + 0.02 * step
        return _stripes(_FLANK + 0.10 * out, _FLANK + 0.30 * out, end, (8, 30, 34))

    def _neck(self) -> Points:
        neck = self._body.neck
        left, right = ribbon(neck, _NECK_REACH)
        at = np.arange(4.4 + self._phase, 14.6, 1.85)
        a, b = _at(left, at), _at(right, at)
        middle = (a + b) / 2 + 0.6 * (_at(neck, at) - _at(neck, at + 1))
        return _stripes(a, middle, b, (23, 21, 10))


def _at(curve: Points, position: Points) -> Points:
    """Points of a curve at fractional sample numbers."""
    lower = np.minimum(position.astype(int), len(curve) - 2)
    rest = (position - lower)[:, None]
    return curve[lower] * (1 - rest) + curve[lower + 1] * rest


def _points(x: Points, y: Points | float) -> Points:
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _stripes(start: Points, middle: Points, end: Points, half_widths: tuple[int, int, int]) -> Points:
    """Rows for ``Stripes._blades``; half-widths in thousandths."""
    rows = np.empty((len(start), 6, 2))
    rows[:, 0], rows[:, 1], rows[:, 2] = start, middle, end
    rows[:, 3:, 0] = np.array(half_widths) / 1000
    return rows

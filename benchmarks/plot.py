"""Line plots as PNG, drawn with Pillow: the package has no plotting library that writes pictures without a browser."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Curve", "Panel", "write_plot"]

Curve = Mapping[float, Sequence[float]]
"""x to its values, one a seed."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers can tell apart."""

SCALE = 3
"""Drawn so many times larger and averaged down: Pillow's lines have no antialiasing."""

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 138, 34, 46
"""Margins; the legend stands in the right one, where it hides nothing."""
LEGEND_LINE = 16


@dataclass(frozen=True)
class Panel:
    """One plot: a line through the means, a dot for every value."""

    title: str
    x: str
    y: str
    curves: Mapping[str, Curve]
    log_x: bool = False
    x_names: Mapping[float, str] = field(default_factory=dict)
    """What stands below an x instead of its number."""


def write_plot(path: Path, panels: Sequence[Panel], columns: int = 2) -> None:
    """Draw the panels side by side, ``columns`` in a row."""
    columns = min(columns, len(panels))
    sheet = Image.new("RGB", (columns * WIDTH, math.ceil(len(panels) / columns) * HEIGHT), "white")
    for k, panel in enumerate(panels):
        sheet.paste(_draw(panel), (k % columns * WIDTH, k // columns * HEIGHT))
    sheet.save(path)


def _draw(panel: Panel) -> Image.Image:
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(11 * SCALE)
    curves = {name: curve for name, given in panel.curves.items() if (curve := _finite(given))}
    xs = [x for curve in curves.values() for x in curve]
    ys = [y for curve in curves.values() for values in curve.values() for y in values]
    pen.text((LEFT * SCALE, 10 * SCALE), panel.title, "black", ImageFont.load_default(13 * SCALE))
    if xs:
        x_axis, y_axis = _Axis(xs, LEFT, WIDTH - RIGHT, log=panel.log_x), _Axis(ys, HEIGHT - BOTTOM, TOP)
        for tick in y_axis.ticks():
            at = y_axis.at(tick)
            pen.line((LEFT * SCALE, at, (WIDTH - RIGHT) * SCALE, at), "#dddddd", SCALE)
            pen.text(((LEFT - 6) * SCALE, at), f"{tick:g}", "black", font, anchor="rm")
        for tick in sorted(set(xs)) if len(set(xs)) <= 8 else x_axis.ticks():
            at = x_axis.at(tick)
            pen.line((at, (HEIGHT - BOTTOM) * SCALE, at, (HEIGHT - BOTTOM + 4) * SCALE), "black", SCALE)
            name = panel.x_names.get(tick, f"{tick:.3g}")
            pen.text((at, (HEIGHT - BOTTOM + 6) * SCALE), name, "black", font, anchor="mt")
        for curve, colour in zip(curves.values(), _colours(), strict=False):
            _draw_curve(pen, curve, colour, x_axis, y_axis)
        _draw_legend(pen, list(curves), font)
    pen.line(
        [(LEFT * SCALE, TOP * SCALE), (LEFT * SCALE, (HEIGHT - BOTTOM) * SCALE)]
        + [((WIDTH - RIGHT) * SCALE, (HEIGHT - BOTTOM) * SCALE)],
        "black",
        SCALE,
    )
    pen.text(((LEFT + WIDTH - RIGHT) // 2 * SCALE, (HEIGHT - 14) * SCALE), panel.x, "black", font, anchor="mm")
    pen.text(((WIDTH - RIGHT) * SCALE, 18 * SCALE), panel.y, "black", font, anchor="rm")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


class _Axis:
    """From values to places on the enlarged picture."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool = False) -> None:
        self.log, self.start, self.end = log, start * SCALE, end * SCALE
        low, high = self._scaled(min(values)), self._scaled(max(values))
        spare = 0.06 * (high - low) or 0.5
        self.low, self.high = low - spare, high + spare

    def at(self, value: float) -> float:
        return self.start + (self._scaled(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Some four to nine round numbers."""
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        step *= next(f for f in (0.1, 0.2, 0.5, 1, 2) if (self.high - self.low) / (f * step) <= 9)
        count = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        ticks = [round(k * step, 10) for k in count]
        return [10**tick for tick in ticks] if self.log else ticks

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def _draw_curve(pen: ImageDraw.ImageDraw, curve: Curve, colour: str, x_axis: _Axis, y_axis: _Axis) -> None:
    points = [(x_axis.at(x), y_axis.at(statistics.fmean(ys))) for x, ys in sorted(curve.items())]
    pen.line(points, colour, 2 * SCALE, joint="curve")
    for x, ys in curve.items():
        for y in ys:
            pen.circle((x_axis.at(x), y_axis.at(y)), 2.6 * SCALE, fill=colour)


def _draw_legend(
    pen: ImageDraw.ImageDraw, names: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    for line, (name, colour) in enumerate(zip(names, _colours(), strict=False)):
        pen.text(((WIDTH - RIGHT + 10) * SCALE, (TOP + line * LEGEND_LINE) * SCALE), name, colour, font)


def _finite(curve: Curve) -> dict[float, list[float]]:
    kept = {x: [y for y in ys if math.isfinite(y)] for x, ys in curve.items()}
    return {x: ys for x, ys in kept.items() if ys}


def _colours() -> list[str]:
    return list(COLOURS) * 4

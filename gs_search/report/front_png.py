"""A front as a PNG: FID against GFLOPs and against MB, with intervals, ties, the teacher and the untouched input.

Drawn with Pillow, which is there anyway: Plotly writes pictures through a browser only.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gs_search.report.labels import place_labels
from gs_search.report.theme import LIGHT
from gs_search.results.pareto import front_indices

__all__ = ["front_png"]

WIDTH, HEIGHT = 600, 430
"""Of one panel, in units of which the picture has two pixels each."""
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 40, 52
LEGEND = 62
SCALE, PIXELS = 4, 2
"""Drawn at ``SCALE`` pixels a unit and averaged down: Pillow's lines have no antialiasing."""

COSTS = (
    ("gflops", "GFLOPs a picture (billions of multiply-adds)"),
    ("size_mb", "size, MB (millions of bytes, packed)"),
)
"""In letters that Pillow's own font has."""


def front_png(document: Mapping[str, Any]) -> bytes:
    """Draw the document of ``front_document``; one panel a cost, side by side, a legend below both."""
    sheet = Image.new("RGB", (2 * WIDTH * SCALE, (HEIGHT + LEGEND) * SCALE), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (cost, title) in enumerate(COSTS):
        _Panel(pen, document, cost, title, index * WIDTH).draw()
    _legend(pen, document)
    small = sheet.resize((2 * WIDTH * PIXELS, (HEIGHT + LEGEND) * PIXELS), Image.Resampling.BOX)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True, dpi=(192, 192))
    return stream.getvalue()


def bars(document: Mapping[str, Any]) -> list[tuple[float, float]]:
    """From where to where the FID of each member is uncertain.

    The interval over other seeds where there is one. Else half of the tie margin to either side of the search's FID:
    two such bars overlap where the two tie.
    """
    found = []
    for member in document["front"]:
        again, fid = member["repeats"], member["objectives"]["fid"]
        if again and again["low"] is not None:
            found.append((again["low"], again["high"]))
        else:
            found.append((fid - document["tie_margin"] / 2, fid + document["tie_margin"] / 2))
    return found


@dataclass
class _Panel:
    """FID against one cost."""

    pen: ImageDraw.ImageDraw
    document: Mapping[str, Any]
    cost: str
    title: str
    offset: int

    def draw(self) -> None:
        members, teacher = self.document["front"], self.document["teacher"]
        costs = [member["objectives"][self.cost] for member in members]
        fids = [member["objectives"]["fid"] for member in members]
        spans, noise = bars(self.document), 2 * float(self.document["noise"].get("fid_std") or 0.0)
        untouched = self.document["input"]["fid"]
        told = [*fids, *_means(members).values(), *(end for span in spans for end in span)]
        told += [teacher["fid"] - noise, teacher["fid"] + noise]
        self.x = _Scale([*costs, teacher[self.cost]], self.offset + LEFT, self.offset + WIDTH - RIGHT, log=True)
        self.y = _Scale([*told, untouched], HEIGHT - BOTTOM, TOP)
        self._axes()
        left, right = (self.offset + LEFT) * SCALE, (self.offset + WIDTH - RIGHT) * SCALE
        band = [(left, self.y.at(teacher["fid"] + noise)), (right, self.y.at(teacher["fid"] - noise))]
        self.pen.rectangle(band, fill=_pale(LIGHT.teacher))
        _dashed(self.pen, left, right, self.y.at(untouched), LIGHT.input)
        self._staircase(costs, fids, right)
        self._ties(costs, fids)
        for cost, (low, high) in zip(costs, spans, strict=True):
            self._bar(self.x.at(cost), self.y.at(low), self.y.at(high))
        for member, cost, fid in zip(members, costs, fids, strict=True):
            self._student(self.x.at(cost), self.y.at(fid), member)
        _diamond(self.pen, self.x.at(teacher[self.cost]), self.y.at(teacher["fid"]))
        self._labels(costs, fids)

    def _axes(self) -> None:
        left, right = (self.offset + LEFT) * SCALE, (self.offset + WIDTH - RIGHT) * SCALE
        top, bottom = TOP * SCALE, (HEIGHT - BOTTOM) * SCALE
        small, text = _font(11), LIGHT.text
        for tick in self.y.ticks():
            self.pen.line((left, self.y.at(tick), right, self.y.at(tick)), LIGHT.grid, SCALE)
            self.pen.text((left - 7 * SCALE, self.y.at(tick)), f"{tick:g}", text, small, anchor="rm")
        for tick in self.x.ticks():
            self.pen.line((self.x.at(tick), top, self.x.at(tick), bottom), LIGHT.grid, SCALE)
            self.pen.text((self.x.at(tick), bottom + 7 * SCALE), f"{tick:g}", text, small, anchor="mt")
        self.pen.rectangle((left, top, right, bottom), outline=LIGHT.grid, width=SCALE)
        self.pen.text(((left + right) / 2, bottom + 28 * SCALE), self.title, text, _font(13), anchor="mt")
        self.pen.text((left, top - 9 * SCALE), "FID (lower is better)", text, _font(13), anchor="ls")

    def _staircase(self, costs: Sequence[float], fids: Sequence[float], right: float) -> None:
        """The best FID at most at each cost."""
        pairs = np.array([costs, fids]).T
        corners = sorted(pairs[front_indices(pairs)].tolist())
        line = []
        for index, (cost, fid) in enumerate(corners):
            end = self.x.at(corners[index + 1][0]) if index + 1 < len(corners) else right
            line += [(self.x.at(cost), self.y.at(fid)), (end, self.y.at(fid))]
        self.pen.line(line, _pale(LIGHT.front, 0.45), int(1.5 * SCALE))

    def _ties(self, costs: Sequence[float], fids: Sequence[float]) -> None:
        """A broad line between members that tie."""
        places = {
            member["number"]: (self.x.at(cost), self.y.at(fid))
            for member, cost, fid in zip(self.document["front"], costs, fids, strict=True)
        }
        for member in self.document["front"]:
            for other in member["ties"]:
                if member["number"] < other:
                    self.pen.line([places[member["number"]], places[other]], _pale(LIGHT.knee, 0.5), 7 * SCALE)

    def _bar(self, x: float, low: float, high: float) -> None:
        self.pen.line((x, low, x, high), LIGHT.front, int(1.5 * SCALE))
        for y in (low, high):
            self.pen.line((x - 4 * SCALE, y, x + 4 * SCALE, y), LIGHT.front, int(1.5 * SCALE))

    def _student(self, x: float, y: float, member: Mapping[str, Any]) -> None:
        self.pen.circle((x, y), 5 * SCALE, fill=LIGHT.front)
        if member["number"] == self.document["knee"]:
            self.pen.circle((x, y), 9 * SCALE, outline=LIGHT.knee, width=int(2.5 * SCALE))
        if (again := member["repeats"]) and again["mean"] is not None:
            mean = self.y.at(again["mean"])
            self.pen.circle((x, mean), 4 * SCALE, fill="white", outline=LIGHT.front, width=int(1.5 * SCALE))

    def _labels(self, costs: Sequence[float], fids: Sequence[float]) -> None:
        names = [str(member["number"]) for member in self.document["front"]]
        shares = [(self.x.share(cost), self.y.share(fid)) for cost, fid in zip(costs, fids, strict=True)]
        rings = [(shares[index][0], self.y.share(mean)) for index, mean in _means(self.document["front"]).items()]
        sides = place_labels([*rings, *shares], [""] * len(rings) + names)[len(rings) :]
        for cost, fid, name, side in zip(costs, fids, names, sides, strict=True):
            if side is None:  # one of many, with no room beside it
                continue
            up, across = side.split()
            x = self.x.at(cost) + {"left": -9, "center": 0, "right": 9}[across] * SCALE
            y = self.y.at(fid) + {"top": -12, "middle": 0, "bottom": 12}[up] * SCALE
            anchor = {"left": "r", "center": "m", "right": "l"}[across] + "m"
            self.pen.text(
                (x, y), name, LIGHT.text, _font(11), anchor=anchor, stroke_width=2 * SCALE, stroke_fill="white"
            )


def _means(members: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Means over other seeds, by the place of the member."""
    found = {index: (member["repeats"] or {}).get("mean") for index, member in enumerate(members)}
    return {index: mean for index, mean in found.items() if mean is not None}


class _Scale:
    """From values to places on the enlarged picture."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool = False) -> None:
        self.log, self.start, self.end = log, start * SCALE, end * SCALE
        if log:  # a student may have lost every channel
            values = [value for value in values if value > 0] or [1.0]
        low, high = self._scaled(min(values)), self._scaled(max(values))
        least = math.log10(2) if log else 2.0
        spare = max(0.07 * (high - low), (least - (high - low)) / 2)
        self.low, self.high = low - spare, high + spare

    def share(self, value: float) -> float:
        if self.log and value <= 0:
            return 0.0
        return (self._scaled(value) - self.low) / (self.high - self.low)

    def at(self, value: float) -> float:
        return self.start + self.share(value) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers inside, some four to nine."""
        if self.log:
            steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            every = [step * 10.0**decade for decade in decades for step in steps]
            return [tick for tick in every if self.low <= math.log10(tick) <= self.high]
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        step *= next(factor for factor in (0.1, 0.2, 0.5, 1, 2) if (self.high - self.low) / (factor * step) <= 9)
        return [round(k * step, 10) for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def _legend(pen: ImageDraw.ImageDraw, document: Mapping[str, Any]) -> None:
    again = any(member["repeats"] and member["repeats"]["low"] is not None for member in document["front"])
    bar = "95 % over other seeds (ring: their mean)" if again else "noise of FID: bars that overlap tie"
    noise = 2 * float(document["noise"].get("fid_std") or 0.0)
    entries = [
        "student on the front",
        "knee",
        bar,
        "tie in FID",
        f"teacher, ± {noise:.1f} noise",
        "input left as it is",
    ]
    widths = [pen.textlength(entry, _font(12)) for entry in entries]
    gap = (2 * WIDTH * SCALE - sum(widths)) / (len(entries) + 1)
    x, y = gap + 8 * SCALE, (HEIGHT + 14) * SCALE
    for index, (entry, width) in enumerate(zip(entries, widths, strict=True)):
        at = x - 16 * SCALE
        if index in (0, 1):
            pen.circle((at, y), 5 * SCALE, fill=LIGHT.front)
        if index == 1:
            pen.circle((at, y), 9 * SCALE, outline=LIGHT.knee, width=int(2.5 * SCALE))
        elif index == 2:
            pen.line((at, y - 8 * SCALE, at, y + 8 * SCALE), LIGHT.front, int(1.5 * SCALE))
        elif index == 3:
            pen.line((at - 9 * SCALE, y, at + 6 * SCALE, y), _pale(LIGHT.knee, 0.5), 7 * SCALE)
        elif index == 4:
            pen.rectangle((at - 10 * SCALE, y - 6 * SCALE, at + 8 * SCALE, y + 6 * SCALE), fill=_pale(LIGHT.teacher))
            _diamond(pen, at, y)
        elif index == 5:
            _dashed(pen, at - 12 * SCALE, at + 8 * SCALE, y, LIGHT.input)
        pen.text((x, y), entry, LIGHT.text, _font(12), anchor="lm")
        x += width + gap
    pictures, px = document["protocol"].get("pictures", "?"), document["protocol"].get("image_px", "?")
    told = f"front of {document['study']}; FIDs of {pictures} pictures of {px} px, {len(document['front'])} of "
    told += f"{document['finished']} students"
    pen.text((WIDTH * SCALE, (HEIGHT + 40) * SCALE), told, LIGHT.text, _font(12), anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)


def _pale(colour: str, share: float = 0.2) -> tuple[int, int, int]:
    """The colour over white."""
    red, green, blue = (round(255 + share * (int(colour[i : i + 2], 16) - 255)) for i in (1, 3, 5))
    return red, green, blue


def _dashed(pen: ImageDraw.ImageDraw, left: float, right: float, y: float, colour: str) -> None:
    x = left
    while x < right:
        pen.line((x, y, min(x + 8 * SCALE, right), y), colour, 2 * SCALE)
        x += 13 * SCALE


def _diamond(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    half = 7 * SCALE
    pen.polygon([(x - half, y), (x, y - half), (x + half, y), (x, y + half)], fill=LIGHT.teacher)

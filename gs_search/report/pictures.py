"""Sample pictures of trials as data URIs, within what a report may weigh.

A trial's ``samples.png`` has three rows of pictures (input, teacher, student), on the same inputs in every
trial of a study, so the first two rows are embedded once and every trial adds its own. The front's rows are kept
bit for bit where they are small enough; the other trials share what room is left, at a quality that lets all of
them in, or in the order in which they are given until it is full.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, features

__all__ = ["Samples", "read_samples"]

ROWS = 3
GUTTER = 2  # pixels between the pictures of a grid
BUDGET = 9_000_000
"""Characters of all pictures: with plotly.js (5 MB) a report stays below 15 MB, which a mail or a phone takes."""
LOSSLESS_BUDGET = 4_000_000
"""Characters of the front's rows, above which they are not kept bit for bit."""
QUALITIES = (90, 80, 65, 50)
TRIED = 8
"""Rows by which a quality is judged, before all are written in it."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Rows of pictures, each one image as a data URI."""

    columns: int = 0
    side: int = 0
    """Side of a picture, in pixels."""
    input: str | None = None
    teacher: str | None = None
    students: Mapping[int, str] = field(default_factory=dict)
    """By trial number; trials whose ``samples.png`` is missing or unreadable are not in it, nor those without room."""
    lossless: bool = True
    """Whether the first rows (the front's, the input's and the teacher's) are the originals, bit for bit."""
    left_out: int = 0
    """Trials with readable pictures for which there was no room."""


def read_samples(
    paths: Mapping[int, Path], side: int, *, first: Sequence[int] | None = None, budget: int = BUDGET
) -> Samples:
    """Cut the grids of trials into rows. A missing or unreadable grid leaves its trial out.

    Args:
        paths: files by trial number, in the order in which they are wanted.
        side: side of a picture, in pixels.
        first: the trials, at the head of ``paths``, that get the best there is; None stands for all.
        budget: characters of all rows together.
    """
    first = list(paths) if first is None else first
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:  # PIL computes without Python's lock
        heads = {n: cut for n, cut in _cuts({n: paths[n] for n in first if n in paths}, side, workers) if cut}
        rest = {number: path for number, path in paths.items() if number not in heads and number not in first}
        shared = next(iter(heads.values()), None)
        if shared is None:
            shared = next((cut for _, cut in _cuts(rest, side, workers) if cut), None)
        if shared is None:
            return Samples(side=side)
        rows = {-2: shared[0], -1: shared[1]} | {number: cut[2] for number, cut in heads.items()}
        written = dict(zip(rows, workers.map(_png, rows.values()), strict=True))
        lossless = sum(map(len, written.values())) <= min(LOSSLESS_BUDGET, budget)
        if not lossless:
            quality = _quality(list(rows.values())[:TRIED], len(rows), budget)
            lossy = workers.map(lambda row: _lossy(row, quality), rows.values())
            written = dict(zip(rows, lossy, strict=True))
        room = budget - len(written[-2]) - len(written[-1])
        students, left_out = _within(((n, uri) for n, uri in written.items() if n >= 0), room)
        room -= sum(map(len, students.values()))
        more, left_out_too = _others(rest, side, room, workers)
    return Samples(
        columns=(shared[0].width + GUTTER) // (side + GUTTER),
        side=side,
        input=written[-2],
        teacher=written[-1],
        students=students | more,
        lossless=lossless,
        left_out=left_out + left_out_too,
    )


Cut = list[Image.Image]


def _others(paths: Mapping[int, Path], side: int, room: int, workers: ThreadPoolExecutor) -> tuple[dict[int, str], int]:
    """Rows of the remaining trials in one quality, as many as there is room for, and how many there was none for."""
    tried = [cut[2] for _, cut in _cuts(dict(list(paths.items())[:TRIED]), side, workers) if cut]
    if not tried:
        return {}, 0
    quality = _quality(tried, len(paths), room)

    def write(path: Path) -> str | None:
        cut = _read(path, side)
        return _lossy(cut[2], quality) if cut else None

    written = zip(paths, workers.map(write, paths.values()), strict=True)
    return _within(((number, uri) for number, uri in written if uri), room)


def _within(uris: Iterator[tuple[int, str]], room: int) -> tuple[dict[int, str], int]:
    """Take rows one after the other until one does not fit; count that and all after it."""
    taken: dict[int, str] = {}
    left_out = 0
    for number, uri in uris:
        if left_out or len(uri) > room:
            left_out += 1
        else:
            taken[number] = uri
            room -= len(uri)
    return taken, left_out


def _quality(rows: Sequence[Image.Image], count: int, room: int) -> int:
    """The best quality in which ``count`` rows like these fit, or the lowest."""
    for quality in QUALITIES:
        if sum(len(_lossy(row, quality)) for row in rows) / len(rows) * count * 1.05 <= room:
            return quality
    return QUALITIES[-1]


def _cuts(paths: Mapping[int, Path], side: int, workers: ThreadPoolExecutor) -> Iterator[tuple[int, Cut | None]]:
    return zip(paths, workers.map(lambda path: _read(path, side), paths.values()), strict=True)


def _read(path: Path, side: int) -> Cut | None:
    try:
        with Image.open(path) as grid:
            return _cut(grid.convert("RGB"), side)
    except (OSError, ValueError, SyntaxError):  # PIL: missing, truncated or not an image; _cut: not such a grid
        return None


def _cut(grid: Image.Image, side: int) -> Cut:
    """Three rows of square pictures with gutters between them, without a border."""
    step = side + GUTTER
    if grid.height != ROWS * step - GUTTER or (grid.width + GUTTER) % step:
        raise ValueError(f"{grid.width} x {grid.height} is not a grid of {ROWS} rows of {side} px")
    return [grid.crop((0, top, grid.width, top + side)) for top in range(0, grid.height, step)]


def _png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _lossy(picture: Image.Image, quality: int) -> str:
    out = io.BytesIO()
    if features.check("webp"):
        picture.save(out, "WEBP", quality=quality, method=3)
        return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    picture.save(out, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")

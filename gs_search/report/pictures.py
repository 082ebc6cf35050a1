"""Sample pictures of trials as data URIs.

A trial's ``samples.png`` has three rows of pictures (input, teacher, student), on the same inputs in every
trial of a study, so the first two rows are embedded once and every trial adds its own.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

__all__ = ["Samples", "read_samples"]

ROWS = 3
GUTTER = 2  # pixels between the pictures of a grid
PNG_LIMIT = 150_000  # bytes of one row; above it a report of twenty members would weigh more than a phone likes
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Rows of pictures, each one image as a data URI."""

    columns: int = 0
    input: str | None = None
    teacher: str | None = None
    students: Mapping[int, str] = field(default_factory=dict)
    """By trial number; trials whose ``samples.png`` is missing or unreadable are not in it."""
    lossless: bool = True


def read_samples(paths: Mapping[int, Path], side: int) -> Samples:
    """Cut the grids of some trials into rows. A missing or unreadable grid leaves its trial out.

    Args:
        paths: files by trial number.
        side: side of a picture, in pixels.
    """
    rows: dict[int, list[Image.Image]] = {}
    for number, path in paths.items():
        try:
            with Image.open(path) as grid:
                rows[number] = _cut(grid.convert("RGB"), side)
        except (OSError, ValueError):  # PIL: missing, truncated or not an image; _cut: not such a grid
            continue
    if not rows:
        return Samples()
    shared = next(iter(rows.values()))
    lossless = all(len(_png(cut[-1])) <= PNG_LIMIT for cut in rows.values())
    return Samples(
        columns=(shared[0].width + GUTTER) // (side + GUTTER),
        input=_data_uri(shared[0], lossless),
        teacher=_data_uri(shared[1], lossless),
        students={number: _data_uri(cut[2], lossless) for number, cut in rows.items()},
        lossless=lossless,
    )


def _cut(grid: Image.Image, side: int) -> list[Image.Image]:
    """Three rows of square pictures with gutters between them, without a border."""
    step = side + GUTTER
    if grid.height != ROWS * step - GUTTER or (grid.width + GUTTER) % step:
        raise ValueError(f"{grid.width} x {grid.height} is not a grid of {ROWS} rows of {side} px")
    return [grid.crop((0, top, grid.width, top + side)) for top in range(0, grid.height, step)]


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def _data_uri(picture: Image.Image, lossless: bool) -> str:
    if lossless:
        return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")

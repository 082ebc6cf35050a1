"""Pictures in memory and in files.

In memory pictures are float32, N x 3 x H x W, RGB, in [-1, 1]; stored, shown and measured they are uint8.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from gs_search.data.colour import Treatment, lab_to_rgb, to_srgb, treatment_of
from gs_search.errors import DataError

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "Header",
    "UnfitSize",
    "from_uint8",
    "grid",
    "image_to_tensor",
    "read_header",
    "read_image",
    "to_uint8",
    "write_png",
]

MAX_PIXELS = 100_000_000
"""Larger images are refused: a small file can unpack to any amount of memory."""
MIN_SIDE = 16
"""Images with a shorter side than this show nothing to learn from."""


class UnfitSize(DataError):
    """An image that is too small or too large to be used."""


# What Pillow's decoders raise on damaged files (they do not agree on one type).
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)

_HIGHLIGHT = 16.0
"""Floats up to here count from 0 to 1 with highlights beyond; nothing that counts to 255 is so dark."""
_SIXTEEN_BITS = (np.arange(65536) / 257.0).round().astype(np.uint8)
"""What becomes of each value."""
_UNDERSHOOT = 0.25
"""Floats further below zero count from -1; sharpening alone leaves less."""

_PHOTOMETRIC, _ZERO_IS_WHITE = 262, 0
"""A tag of TIFF, and its value in scans and X-rays."""

# By EXIF's orientation: what puts the stored pixels upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_uint8(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] to uint8 in 0..255: clamped, and rounded half up."""
    return (pictures.float() * 127.5 + 128.0).floor().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 pictures in [-1, 1]; ``to_uint8`` inverts it exactly."""
    return images.float() / 127.5 - 1.0


def image_to_tensor(image: Image.Image) -> Tensor:
    """RGB image to uint8, 3 x H x W."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def write_png(path: Path, image: Tensor) -> None:
    """Write uint8 3 x H x W as PNG."""
    Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy()).save(path, "PNG")


def grid(rows: Sequence[Tensor], gutter: int = 2, background: int = 255) -> Tensor:
    """Tile rows of equally large pictures (uint8, N x 3 x H x W each) into one image, uint8 3 x H' x W'."""
    columns = max(len(row) for row in rows)
    height, width = rows[0].shape[-2:]
    shape = (3, len(rows) * (height + gutter) - gutter, columns * (width + gutter) - gutter)
    sheet = torch.full(shape, background, dtype=torch.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + gutter), c * (width + gutter)
            sheet[:, top : top + height, left : left + width] = picture
    return sheet


class Header(NamedTuple):
    """What an image file says of itself."""

    size: tuple[int, int]
    """Width and height as stored."""
    profile: Treatment
    """What its colour profile asks for."""


def read_header(path: Path) -> Header:
    """Look at an image file without decoding it.

    Raises:
        DataError: not an image, or of a size that cannot be used.
    """
    with _open(path) as image:
        return Header(image.size, treatment_of(image))


def read_image(path: Path, enough_px: int | None = None) -> Image.Image:
    """Decode an image file of any mode to RGB, upright.

    Transparent parts become white, colours with a profile are converted to sRGB, 16-bit and float images are scaled to
    8 bits, of an animation the first frame counts, and the camera's orientation is applied. A picture with broken
    metadata or a broken profile is a picture.

    Args:
        path: the file.
        enough_px: a shorter side that suffices; large JPEGs are then decoded at a fraction of their size.

    Raises:
        DataError: missing, not an image, damaged, truncated, or of a size that cannot be used.
    """
    with _open(path) as image:
        if enough_px is not None:
            image.draft(None, (enough_px, enough_px))
        # Pillow inverts a TIFF whose zeros are white, but not of 16 bits.
        negative = image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _ZERO_IS_WHITE
        try:
            shown = _to_rgb(to_srgb(_upright(image)))
            return ImageOps.invert(shown) if negative else shown
        except _DECODER_ERRORS as error:
            problem = f"damaged or truncated image ({_brief(error)}); replace or delete it"
            raise DataError(f"{path}: {problem}") from None


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns at a limit of its own below ours, and of broken metadata.
            warnings.simplefilter("ignore")
            image = Image.open(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except Image.DecompressionBombError:
        raise UnfitSize(f"{path}: larger than {MAX_PIXELS // 10**6} megapixels; scale it down") from None
    except _DECODER_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({_brief(error, path)}); replace or delete it") from None
    width, height = image.size
    problem = None
    if width * height > MAX_PIXELS:
        problem = f"{width} x {height}, larger than {MAX_PIXELS // 10**6} megapixels; scale it down"
    elif min(width, height) < MIN_SIDE:
        problem = f"{width} x {height} pixels; images need at least {MIN_SIDE} on each side"
    if problem:
        image.close()
        raise UnfitSize(f"{path}: {problem}")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """The decoded picture, turned as its EXIF says.

    Not ``ImageOps.exif_transpose``: it also writes the metadata anew, and fails where they cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow turns a TIFF while it decodes, in that same way, unless the tag is gone by then.
        orientation = _take_orientation(image) if image.format == "TIFF" else None
        image.load()
        turn = _TURNS.get(_take_orientation(image) if orientation is None else orientation)
    return image if turn is None else image.transpose(turn)


def _take_orientation(image: Image.Image) -> int:
    """Remove EXIF's orientation from an image in memory and return it; 1, which turns nothing, if unreadable."""
    try:
        return int(image.getexif().pop(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser of metadata raises almost anything
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "LAB":
        return lab_to_rgb(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_bytes(np.asarray(image), image.mode, image.format)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray, mode: str, kind: str | None) -> np.ndarray:
    """Scale grey values of more than 8 bits to 0..255.

    16 bits are 0..65535. Other whole numbers and floats do not say what is white; by their maximum: -1..1, 0..1,
    0..255 or 0..65535, each where it fits. What lies between, as floats up to 2, is scaled by its own maximum, which
    shows it all.
    """
    if mode.startswith("I;16"):
        return _SIXTEEN_BITS[values]
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    top, bottom = (float(f(values[finite], initial=0.0)) for f in (np.max, np.min))
    values = np.where(finite, values, np.where(values > 0, top, 0.0))
    deep = mode == "I" and kind in ("PNG", "PPM")
    if mode == "F" and top <= 1.0 and -1.0 <= bottom < -_UNDERSHOOT:
        values, white = (values + 1.0) / 2.0, 1.0
    elif mode == "F" and top <= 1.0:
        white = 1.0
    elif deep or 255.0 < top <= 65535.0:
        white = 65535.0
    elif top > 65535.0 or mode == "F" and top <= _HIGHLIGHT:
        white = top
    else:
        white = 255.0
    return (values * (255.0 / white)).round().clip(0, 255).astype(np.uint8)


def _brief(error: BaseException, path: Path | None = None) -> str:
    """The first line of an error, without the path that Pillow repeats in it."""
    lines = str(error).splitlines() or [type(error).__name__]
    if not lines[0].startswith("cannot identify"):
        return lines[0][:120]
    if path is not None and path.read_bytes()[:4] in (b"II*\0", b"MM\0*"):
        return "a TIFF of an unusual kind, such as floats in several channels; save it with 8 or 16 bits"
    return "unknown format"

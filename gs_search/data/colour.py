"""Colours as a browser shows them: profiles that pictures carry are converted to sRGB.

Cameras and telephones write Adobe RGB or Display P3 into a picture's profile; taken for sRGB, its colours are paler.
"""

from __future__ import annotations

import functools
import io
import itertools
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

__all__ = ["Treatment", "lab_to_rgb", "to_srgb", "treatment_of"]

Treatment = Literal["none", "converted", "broken"]
"""What a picture's profile asks for: nothing (there is none, or it is sRGB), a conversion, or it cannot be used."""

_SAME = 2
"""Levels of 255 within which a profile is taken for sRGB, of which there are many versions."""
_COLOURS = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
"""Modes that are converted, and the colour space that their profile has to be of."""
_RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def treatment_of(image: Image.Image) -> Treatment:
    """What ``to_srgb`` will do to an image, which need not be decoded yet."""
    profile = image.info.get("icc_profile")
    mode = _mode_of_colours(image.mode)
    if not profile or mode is None:
        return "none"
    return _transform(profile, mode)[0]


def to_srgb(image: Image.Image) -> Image.Image:
    """Colours converted to sRGB; the image itself where it has no profile, sRGB's, or one that cannot be used.

    Args:
        image: decoded, of any mode; deep modes (16 bits, floats) are left as they are.

    Returns:
        RGB, or RGBA where there was transparency; the image's own mode where nothing is converted.
    """
    if treatment_of(image) != "converted":
        return image
    mode = _mode_of_colours(image.mode)
    assert mode is not None
    transform = _transform(image.info["icc_profile"], mode)[1]
    assert transform is not None
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    plain = image if image.mode == mode else image.convert(f"{mode}A" if alpha else mode).convert(mode)
    converted = ImageCms.applyTransform(plain, transform)
    assert converted is not None, "not in place"
    converted.info.clear()
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Mode LAB, which Pillow converts by profiles alone."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB", _RELATIVE)
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None, "not in place"
    return converted


def _mode_of_colours(mode: str) -> str | None:
    """The mode that the profile of an image of ``mode`` is about."""
    if mode in ("L", "LA", "1"):
        return "L"
    if mode in ("RGB", "RGBA", "RGBa", "P", "PA"):
        return "RGB"
    return "CMYK" if mode == "CMYK" else None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> tuple[Treatment, ImageCms.ImageCmsTransform | None]:
    """A profile's way to sRGB; pictures of one camera share it."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _COLOURS[mode]:
            return "broken", None
        transform = ImageCms.buildTransform(opened, _srgb(), mode, "RGB", _RELATIVE, _FLAGS)
        if mode != "CMYK":
            levels = np.array(list(itertools.product(range(0, 256, 51), repeat=3)), dtype=np.uint8)
            probe = Image.fromarray(levels[None] if mode == "RGB" else levels[None, :, 0])
            shown = ImageCms.applyTransform(probe, transform)
            assert shown is not None, "not in place"
            change = np.asarray(shown, np.int16) - np.asarray(probe.convert("RGB"), np.int16)
            if np.abs(change).max() <= _SAME:
                return "none", None
        return "converted", transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "broken", None

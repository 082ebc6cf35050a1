"""Colour profiles, compared with the arithmetic of the standards; the profiles are written by hand."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from gs_search.data.images import read_header, read_image
from gs_search.data.sieve import Sieve

# Red, green, blue in XYZ under D50, from the ICC profiles that the standards give.
SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
P3 = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
GAMMAS = {"adobe": 563 / 256, "p3": None, "srgb": None}  # None: the curve of sRGB
PRIMARIES = {"adobe": ADOBE, "p3": P3, "srgb": SRGB}
WHITE = (0.96420, 1.0, 0.82491)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(name: str) -> bytes:
    """A display profile of three primaries and a curve (ICC.1:2001-04)."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(*WHITE)}
    for letter, primary in zip(b"rgb", PRIMARIES[name], strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(*primary)
        tags[bytes([letter]) + b"TRC"] = _curve(GAMMAS[name])
    return _written(tags, b"RGB ")


def grey_profile(gamma: float) -> bytes:
    return _written({b"wtpt": b"XYZ " + bytes(4) + _fixed(*WHITE), b"kTRC": _curve(gamma)}, b"GRAY")


def _written(tags: dict[bytes, bytes], space: bytes) -> bytes:
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), **tags}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    header = struct.pack(">I", at + len(body)) + bytes(4) + b"\x04\x20\0\0" + b"mntr" + space + b"XYZ " + bytes(12)
    header += b"acsp" + bytes(28) + _fixed(*WHITE)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _decode(values: np.ndarray, gamma: float | None) -> np.ndarray:
    if gamma is not None:
        return values**gamma
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def expected(pixels: np.ndarray, name: str) -> np.ndarray:
    """sRGB bytes of N x 3 bytes in the colours of a profile, clipped to what sRGB can show."""
    light = _decode(pixels / 255.0, GAMMAS[name]) @ np.array(PRIMARIES[name]) @ np.linalg.inv(np.array(SRGB))
    light = light.clip(0, 1)
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).round()


def _pixels() -> np.ndarray:
    """Colours inside of what sRGB can show, and a few outside."""
    rng = np.random.default_rng(0)
    grey = rng.integers(40, 216, (390, 1))
    return np.vstack([grey + rng.integers(-40, 40, (390, 3)), np.eye(3) * 255, [[255] * 3] * 7]).astype(np.uint8)


def _bytes(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.int16).reshape(-1, 3)


@pytest.mark.parametrize("name", ["adobe", "p3"])
@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
def test_colours_are_those_of_the_profile(tmp_path: Path, name: str, kind: str) -> None:
    pixels = _pixels()
    lossless = {"lossless": True} if kind == "webp" else {}
    path = tmp_path / f"x.{kind}"
    Image.fromarray(pixels.reshape(20, 20, 3)).save(path, icc_profile=profile(name), **lossless)
    found, wanted = _bytes(read_image(path)), expected(pixels, name)
    assert np.abs(found - wanted).max() <= 2
    assert np.abs(_pixels() - wanted).max() > 20, "the profile changes something"
    assert read_header(path).profile == "converted"


def test_a_photo_with_a_profile_as_a_camera_writes_it(tmp_path: Path) -> None:
    """JPEG, turned, decoded at a fraction."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixel = np.array([[200, 60, 90]], np.uint8)
    image = Image.new("RGB", (400, 320), tuple(pixel[0]))
    image.save(tmp_path / "x.jpg", icc_profile=profile("p3"), exif=exif, quality=100, subsampling=0)
    photo = read_image(tmp_path / "x.jpg", enough_px=64)
    assert photo.width < photo.height < 400
    assert np.abs(_bytes(photo) - expected(pixel, "p3")).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_parts_stay_transparent(tmp_path: Path, mode: str) -> None:
    pixel = np.array([[200, 60, 90]], np.uint8)
    image = Image.new("RGBA", (20, 20), (*pixel[0], 255))
    image.paste((0, 0, 0, 0), (10, 0, 20, 20))
    image = image if mode == "RGBA" else image.quantize(4)
    image.save(tmp_path / "x.png", icc_profile=profile("adobe"))
    read = read_image(tmp_path / "x.png")
    assert np.abs(np.array(read.getpixel((3, 3))) - expected(pixel, "adobe")).max() <= 2
    assert read.getpixel((15, 3)) == (255, 255, 255)


def test_grey_with_a_profile(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 100).save(tmp_path / "x.png", icc_profile=grey_profile(1.0))
    light = 100 / 255
    wanted = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(_bytes(read_image(tmp_path / "x.png")) - wanted).max() <= 1


def test_a_profile_of_other_colours_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.new("CMYK", (20, 20), (0, 0, 0, 0)).save(path, icc_profile=profile("p3"))
    assert read_header(path).profile == "broken"
    assert read_image(path).getpixel((3, 3)) == (255, 255, 255)


SRGB_FROM_LCMS = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("content", [profile("srgb"), SRGB_FROM_LCMS], ids=["by hand", "lcms"])
def test_srgb_changes_no_byte(tmp_path: Path, content: bytes) -> None:
    pixels = _pixels()
    Image.fromarray(pixels.reshape(20, 20, 3)).save(tmp_path / "x.png", icc_profile=content)
    assert (_bytes(read_image(tmp_path / "x.png")) == pixels).all()
    assert read_header(tmp_path / "x.png").profile == "none"


BROKEN = {
    "no profile": b"\xff" * 300,
    "cut off": profile("adobe")[:200],
    "of grey": grey_profile(2.2),
    "empty tags": profile("adobe")[:128] + bytes(400),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_broken_profile_is_ignored(tmp_path: Path, content: bytes, kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (10, 200, 30)).save(stream, "PNG" if kind == "png" else "JPEG", icc_profile=content)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(stream.getvalue())
    assert np.abs(_bytes(read_image(path)) - [10, 200, 30]).max() <= (0 if kind == "png" else 4)
    assert read_header(path).profile == "broken"


def test_profiles_are_counted(tmp_path: Path) -> None:
    kinds = {"p3": profile("p3"), "srgb": profile("srgb"), "broken": b"no profile", "none": None}
    for number, (name, content) in enumerate(kinds.items()):
        for copy in range(number + 1):
            image = Image.fromarray(np.random.default_rng(10 * number + copy).integers(0, 256, (20, 20, 3), np.uint8))
            image.save(tmp_path / f"{name} {copy}.png", icc_profile=content)
    taking = Sieve(tmp_path)
    taking.take_below("", 100)
    assert taking.treated == {
        "converted to sRGB from their colour profile": 1,
        "with a colour profile that cannot be used, taken for sRGB": 3,
    }

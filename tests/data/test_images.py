from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gs_search.data import images
from gs_search.data.images import from_uint8, grid, read_header, read_image, to_uint8, write_png
from gs_search.errors import DataError


def test_every_byte_survives_the_way_through_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(every)), every)
    assert from_uint8(every)[[0, 255]].tolist() == [-1.0, 1.0]


def test_to_uint8_rounds_half_up_and_clamps() -> None:
    values = torch.tensor([-9.0, -1.0, 0.5 / 127.5 - 1, 0.0, 1.0, 1.7])
    assert to_uint8(values).tolist() == [0, 0, 1, 128, 255, 255]


def test_png_round_trip(tmp_path: Path) -> None:
    picture = torch.randint(0, 256, (3, 17, 23), dtype=torch.uint8)
    write_png(tmp_path / "x.png", picture)
    assert torch.equal(images.image_to_tensor(read_image(tmp_path / "x.png")), picture)


def test_grid_places_pictures_between_gutters() -> None:
    rows = [torch.full((3, 3, 4, 5), 10, dtype=torch.uint8), torch.full((2, 3, 4, 5), 20, dtype=torch.uint8)]
    sheet = grid(rows, gutter=2)
    assert sheet.shape == (3, 10, 19)
    assert (sheet[:, :4, :5] == 10).all() and (sheet[:, 6:, 7:12] == 20).all()
    assert (sheet[:, 4:6] == 255).all() and (sheet[:, 6:, 14:] == 255).all()


def _colour(path: Path) -> tuple[int, ...]:
    image = read_image(path)
    assert image.mode == "RGB"
    return tuple(image.getpixel((5, 5)))  # type: ignore[arg-type]


# mode, value of all pixels, file suffix, RGB expected
MODES = [
    ("RGB", (10, 200, 30), ".png", (10, 200, 30)),
    ("L", 77, ".png", (77, 77, 77)),
    ("1", 1, ".png", (255, 255, 255)),
    ("LA", (40, 0), ".png", (255, 255, 255)),
    ("RGBA", (200, 0, 0, 255), ".png", (200, 0, 0)),
    ("RGBA", (200, 0, 0, 0), ".png", (255, 255, 255)),
    ("CMYK", (0, 0, 0, 255), ".tif", (0, 0, 0)),
    ("CMYK", (0, 0, 0, 0), ".tif", (255, 255, 255)),
    ("I;16", 65535, ".png", (255, 255, 255)),
    ("I;16", 257 * 90, ".tif", (90, 90, 90)),
    ("I;16", 200, ".png", (1, 1, 1)),
    ("F", 0.5, ".tif", (128, 128, 128)),
    ("F", 90.0, ".tif", (90, 90, 90)),
    ("F", 257.0 * 90, ".tif", (90, 90, 90)),
    ("I", 90, ".tif", (90, 90, 90)),
    ("I", 257 * 90, ".tif", (90, 90, 90)),
    ("RGBA", (200, 0, 0, 51), ".webp", (244, 204, 204)),
]


@pytest.mark.parametrize(("mode", "value", "suffix", "expected"), MODES)
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str, value: object, suffix: str, expected: tuple[int, ...]) -> None:
    path = tmp_path / f"x{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((20, 20), value, np.uint16)).save(path)
    else:
        Image.new(mode, (20, 20), value).save(path)  # type: ignore[arg-type]
    assert _colour(path) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0, 2.0], [0, 64, 128, 255]),  # highlights beyond 1
        ([-1.0, 0.0, 0.5, 1.0], [0, 128, 191, 255]),  # as generators paint
        ([-0.1, 0.0, 0.5, 1.0], [0, 0, 128, 255]),  # sharpened
        ([0.0, 1.0, 17.0, 255.0], [0, 1, 17, 255]),
        ([0.0, 1e5, 1e6, 2e6], [0, 13, 128, 255]),
        ([0.0, float("nan"), 0.5, float("inf")], [0, 0, 128, 128]),  # the largest that is a number, in 0..1
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]),
    ],
)
def test_floats_of_any_range_show(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    pixels = np.tile(np.repeat(np.array(values, np.float32), 5), (20, 1))
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    image = read_image(tmp_path / "x.tif")
    found = [image.getpixel((column, 3)) for column in (2, 7, 12, 17)]
    assert found == [(level,) * 3 for level in expected]


def _deep_png(path: Path, pixel: tuple[int, ...], kind: int) -> None:
    """A PNG of 16 bits, which Pillow does not write in colours; ``kind``: 2 RGB, 4 grey and alpha, 6 RGBA."""
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * 20
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 20, 20, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(row * 20),
        b"IEND": b"",
    }
    body = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


def _tiff(path: Path, pixels: np.ndarray, sample_format: int) -> None:
    """An RGB TIFF, H x W x 3; ``sample_format``: 1 whole numbers, 3 floats."""
    height, width, bits = *pixels.shape[:2], pixels.dtype.itemsize * 8
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None), (277, 3), (278, height)]
    tags += [(279, pixels.nbytes), (339, None)]
    at = 10 + 12 * len(tags) + 4
    places = {258: (3, 3, at), 339: (3, 3, at + 6), 273: (4, 1, at + 12)}
    entries = b"".join(struct.pack("<HHII", tag, *places.get(tag, (4, 1, value))) for tag, value in tags)
    over = struct.pack("<6H", *[bits] * 3, *[sample_format] * 3)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + over + pixels.tobytes())


@pytest.mark.parametrize(
    ("pixel", "kind", "expected"),
    [
        ((257 * 10, 257 * 200, 257 * 30), 2, (10, 200, 30)),
        ((257 * 40, 65535), 4, (40, 40, 40)),
        ((257 * 40, 0), 4, (255, 255, 255)),
        ((257 * 10, 257 * 200, 257 * 30, 65535), 6, (10, 200, 30)),
    ],
)
def test_colours_of_16_bits_in_png(
    tmp_path: Path, pixel: tuple[int, ...], kind: int, expected: tuple[int, ...]
) -> None:
    _deep_png(tmp_path / "x.png", pixel, kind)
    assert _colour(tmp_path / "x.png") == expected


def test_colours_of_16_bits_and_floats_in_tiff(tmp_path: Path) -> None:
    _tiff(tmp_path / "x.tif", np.full((20, 20, 3), [257 * 10, 257 * 200, 257 * 30], np.uint16), 1)
    assert _colour(tmp_path / "x.tif") == (10, 200, 30)
    _tiff(tmp_path / "x.tif", np.full((20, 20, 3), 0.5, np.float32), 3)
    with pytest.raises(DataError, match="a TIFF of an unusual kind, such as floats in several channels"):
        read_header(tmp_path / "x.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_zeros_are_white(tmp_path: Path, dtype: type) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 20), 90 if dtype is np.uint8 else 257 * 90, dtype)).save(stream, "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)
    content = stream.getvalue()
    assert content.count(entry + b"\1\0") == 1
    (tmp_path / "x.tif").write_bytes(content.replace(entry + b"\1\0", entry + b"\0\0"))
    assert _colour(tmp_path / "x.tif") == (165, 165, 165)


def test_lab_is_grey_where_it_should_be(tmp_path: Path) -> None:
    Image.new("LAB", (20, 20), (128, 128, 128)).save(tmp_path / "x.tif")  # L* of 50.2: 119.6 in sRGB
    assert all(abs(level - 119.6) <= 2 for level in _colour(tmp_path / "x.tif"))


def test_palette_with_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 9, 99, 199])
    image.save(tmp_path / "opaque.gif")
    assert _colour(tmp_path / "opaque.gif") == (9, 99, 199)
    image.save(tmp_path / "clear.png", transparency=1)
    assert _colour(tmp_path / "clear.png") == (255, 255, 255)


def test_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    red, green, blue = _colour(tmp_path / "x.jpg")
    assert red > 240 and green < 15 and blue < 15


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (20, 40)


def _exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block by hand: tag, type, count, value of each entry."""
    at, fields, values = 10 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(values))
        values += value if len(value) > 4 else b""
        fields += struct.pack("<HHI", tag, kind, count) + place
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4) + values


def _with_exif(block: bytes, kind: str) -> bytes:
    """A red and blue picture of 40 x 20 that carries the block, put in without Pillow's help."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    stream = io.BytesIO()
    if kind == "WEBP":
        image.save(stream, kind, exif=block)
        return stream.getvalue()
    image.save(stream, kind)
    content = stream.getvalue()
    if kind == "JPEG":
        segment = b"Exif\0\0" + block
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    chunk, end = b"eXIf" + block, content.index(b"IEND") - 4
    return content[:end] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[end:]


TURNED = (0x0112, 3, 1, struct.pack("<H", 6))
ODD_EXIF = {
    "a rational over 0": (_exif(TURNED, (0x011A, 5, 1, struct.pack("<II", 72, 0))), True),
    "text for a number": (_exif(TURNED, (0x011A, 2, 4, b"abc\0")), True),
    "text for a folder of tags": (_exif(TURNED, (0x8769, 2, 4, b"abc\0")), True),
    "a folder of tags beyond the end": (_exif(TURNED, (0x8769, 4, 1, struct.pack("<I", 2**31 - 1))), True),
    "orientation twice": (_exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))), True),
    "orientation as text": (_exif((0x0112, 2, 2, b"6\0")), True),
    "orientation over 0": (_exif((0x0112, 5, 1, struct.pack("<II", 6, 0))), False),
    "orientation in bytes": (_exif((0x0112, 7, 4, b"\6\0\0\0")), False),
    "an orientation that is none": (_exif((0x0112, 3, 1, struct.pack("<H", 99))), False),
    "cut off": (_exif(TURNED)[:13], False),
    "begins beyond its end": (b"II*\0" + struct.pack("<I", 9_999_999), False),
    "no block at all": (b"\xff" * 40, False),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("block", "turned"), ODD_EXIF.values(), ids=ODD_EXIF)
def test_a_picture_with_broken_metadata_is_a_picture(tmp_path: Path, kind: str, block: bytes, turned: bool) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(_with_exif(block, kind))
    read_header(path)
    image = read_image(path)
    assert image.size == ((20, 40) if turned else (40, 20))
    red, _, blue = image.getpixel((10, 5))  # type: ignore[misc]
    assert red > 240 > 15 > blue


def test_every_orientation_as_pillow_turns_it(tmp_path: Path) -> None:
    """Also of TIFF files, which Pillow turns by itself, and of one whose other tags it cannot write."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    for number, kind in itertools.product(range(1, 9), ("png", "tif")):
        exif = Image.Exif()
        exif[0x0112] = number
        Image.fromarray(pixels).save(tmp_path / f"x.{kind}", exif=exif)
        with Image.open(tmp_path / f"x.{kind}") as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / f"x.{kind}")), expected)
    content = (tmp_path / "x.tif").read_bytes()
    for name, entry in {"over_0": (5, 1), "text": (2, 4)}.items():  # in the place of the compression's tag, 1: none
        place = content.index(struct.pack("<HHIH", 0x0103, 3, 1, 1))
        odd = content[:place] + struct.pack("<HHII", 0x011A, *entry, 8) + content[place + 12 :]
        (tmp_path / f"{name}.tif").write_bytes(odd)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / f"{name}.tif")), expected)


def test_large_jpeg_is_decoded_at_a_fraction(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 1200), "teal").save(tmp_path / "x.jpg")
    width, height = read_image(tmp_path / "x.jpg", enough_px=128).size
    assert 128 <= height < 1200 and width * 3 == height * 4


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"])
def test_truncated_image_is_one_line_with_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path)
    _truncated(path)
    with pytest.raises(DataError, match="cut") as caught:
        read_image(path)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).count(str(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_what_is_no_image_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: (not a readable|damaged)") as caught:
        read_image(path)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 1)])
def test_too_small_images_are_refused_by_their_header(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]} pixels; images need at least 16"):
        read_header(tmp_path / "x.png")


@pytest.mark.parametrize("size", [(10_100, 10_000), (20_000, 20_000)])
def test_too_large_images_are_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    # A small file that would unpack to hundreds of megabytes: one row repeated by hand.
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    png += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(DataError, match="larger than 100 megapixels"):
        read_image(tmp_path / "bomb.png")

"""Looking at all pictures of a study before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gs_search.data.files import FilePictures
from gs_search.data.images import check_header, read_image
from gs_search.data.opening import open_data
from gs_search.data.source import DataSettings
from gs_search.errors import DataError

__all__ = ["check_data"]

_DECODED_PIXELS = 200_000_000
"""Up to so many pixels (a few seconds) everything is decoded; beyond, a sample and what looks cut off."""
_SAMPLE = 32
_TAIL = 64
_REPORTED = 20
# How complete files end. Cameras append data of their own, so that a missing end is a suspicion, no proof.
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


def check_data(config: DataSettings, image_px: int) -> list[str]:
    """Find what would stop a study later: missing folders, unusable images; one line each, [] if all is well.

    Every header is read. Small sets are decoded as a whole, of large ones a sample and all suspicious files.
    """
    try:
        data = open_data(config, image_px, seed=0)
    except DataError as error:
        return [str(error)]
    sets = [*data.sources.values(), *data.targets.values()]
    paths = sorted({path for pictures in sets for path in _paths(pictures)})
    problems: dict[Path, str] = {}
    pixels = 0
    for path in paths:
        try:
            width, height = check_header(path)
            pixels += width * height
        except DataError as error:
            problems[path] = str(error)
    sound = [path for path in paths if path not in problems]
    if pixels > _DECODED_PIXELS:
        step = max(1, len(sound) // _SAMPLE)
        sound = [path for place, path in enumerate(sound) if place % step == 0 or _looks_cut_off(path)]
    for path in sound:
        try:
            read_image(path, enough_px=2 * image_px)
        except DataError as error:
            problems[path] = str(error)
    lines = [problems[path] for path in sorted(problems)]
    if len(lines) > _REPORTED:
        lines[_REPORTED:] = [f"{config.path}: {len(lines) - _REPORTED} more images cannot be used"]
    return lines


def _paths(pictures: object) -> Iterator[Path]:
    if isinstance(pictures, FilePictures):
        yield from (pictures.path(index) for index in range(len(pictures)))


def _looks_cut_off(path: Path) -> bool:
    ending = _ENDINGS.get(path.suffix.lower())
    if ending is None:
        return False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        return ending not in file.read()

"""Pictures in files: finding them, ordering them, splitting them.

Order and splits depend on the names alone (their sha256), neither on the file system nor on the study's seed:
a picture that one study held back for testing is not trained on by the next.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from gs_search.data.images import read_image
from gs_search.data.views import Views
from gs_search.errors import DataError

__all__ = ["FEWEST", "FilePictures", "Listing", "Side", "cut", "hash_order", "list_images"]

Side = Literal["left", "right"]

_SUFFIXES = frozenset(
    (
        *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    )
)
_NOT_READ = frozenset(
    (
        *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".jp2", ".jxl", ".nef"),
        *(".orf", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga", ".xcf"),
    )
)
"""Pictures too, but not for what decodes them here on every machine."""
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
FEWEST = 4
"""Pictures that KID needs of each of two sets (``measure.kid``)."""
_MEASURED = ("val", "reference")
_LONGEST = 9
"""Letters of a suffix that is named."""
_SNIFFED = 20
"""So many files of one foreign suffix are opened and found to be no pictures; the rest is believed to be the same."""


@dataclass
class Listing:
    """The files below a folder.

    Attributes:
        names: paths relative to the folder of what may be pictures, in hash order.
        left: reason to the number of files that were left out for it; hidden files and folders do not count.
    """

    names: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def list_images(folder: Path) -> Listing:
    """List all images below a folder, at any depth, by their suffix in upper or lower case.

    Links are followed, each folder is read once, so that circles end. Files and folders whose name begins with a dot
    do not exist here.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; give the path of a folder of images")
    found = Listing()
    strangers: Counter[str] = Counter()
    for entry in _files(folder, found.left):
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in _SUFFIXES:
            found.names.append(Path(entry.path).relative_to(folder).as_posix())
        elif suffix in _NOT_READ:
            found.left[f"{suffix}, which is not read (convert them to JPEG or PNG)"] += 1
        elif strangers[suffix] < _SNIFFED and _begins_as_image(entry.path):
            found.left["images without a suffix of images (rename them)"] += 1
        else:
            strangers[suffix] += 1
            known = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= _LONGEST
            found.left[f"{suffix if known else 'of other kinds'}, no images"] += 1
    if not found.names:
        raise DataError(f"{folder}: no images in it ({', '.join(sorted(s[1:] for s in _SUFFIXES))}){_but(found.left)}")
    found.names = hash_order(found.names)
    return found


def _files(folder: Path, left: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """All files below a folder; those in folders of its own first, so that what is also linked has its real name."""
    read: set[tuple[int, int]] = set()
    waiting, linked = [str(folder)], list[str]()
    while waiting or linked:
        place = waiting.pop(0) if waiting else linked.pop(0)
        try:
            stat = os.stat(place)
            if (stat.st_dev, stat.st_ino) in read:
                left["links to folders that are read anyway"] += 1
                continue
            read.add((stat.st_dev, stat.st_ino))
            with os.scandir(place) as entries:
                there = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"{place}: cannot be listed ({error.strerror}); check its permissions") from None
        for entry in there:
            if entry.is_dir():
                (linked if entry.is_symlink() else waiting).append(entry.path)
            elif entry.is_file():
                yield entry
            elif entry.is_symlink():
                left["links that lead nowhere"] += 1


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_BEGINNINGS) and (start[:4] != b"RIFF" or start[8:] == b"WEBP")


def _but(left: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items(), key=lambda item: -item[1])[:3])
    return f" (left out: {told})" if told else ""


def hash_order(names: Sequence[str]) -> list[str]:
    """Sort names by their sha256."""
    return sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())


def cut(
    names: Sequence[str], counts: Mapping[str, int], where: Path, left: Mapping[str, int] | None = None
) -> dict[str, list[str]]:
    """Deal names out to splits in the order of ``counts``; where names are short, in proportion.

    Every split gets two at least, or the one it asks for; what is measured gets ``FEWEST``.

    Args:
        left: what an error says was left out, see ``Listing``.

    Raises:
        DataError: too few names.
    """
    wanted = {split: count for split, count in counts.items() if count > 0}
    least = {split: min(FEWEST if split in _MEASURED else 2, count) for split, count in wanted.items()}
    if len(names) < sum(least.values()):
        few = f"{where}: {len(names)} images{_but(left or {})}"
        raise DataError(f"{few}, too few to split into {', '.join(wanted)}; add more")
    share = min(1.0, len(names) / max(1, sum(wanted.values())))
    rest, owed = list(names), sum(least.values())
    result: dict[str, list[str]] = {split: [] for split in counts}
    for split, count in wanted.items():
        owed -= least[split]
        size = min(max(least[split], int(count * share)), len(rest) - owed)
        result[split], rest = rest[:size], rest[size:]
    return result


class FilePictures:
    """Images below a folder, decoded when asked for; a ``PictureSet``.

    Args:
        side: take this half of each image alone.
    """

    def __init__(self, folder: Path, names: Sequence[str], views: Views, side: Side | None = None) -> None:
        self._folder, self._names, self._views, self._side = folder, tuple(names), views, side

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        """File of a picture."""
        return self._folder / self._names[index]

    def picture(self, index: int, view: int | None = None) -> Tensor:
        """See ``PictureSet.picture``."""
        # Twice the pixels of the view, so that the resampling below decides how the picture looks.
        image = read_image(self.path(index), enough_px=2 * self._views.image_px)
        if self._side is not None:
            half = image.width // 2
            left = 0 if self._side == "left" else image.width - half
            image = image.crop((left, 0, left + half, image.height))
        return self._views.of(image, index, view)

    def name(self, index: int) -> str:
        """Path below the folder."""
        return self._names[index]

    def identity(self, *, exact: bool) -> list[str]:
        """Name and size of each file; if ``exact`` also where it is and when it was changed."""
        lines = [str(self._folder.resolve())] if exact else []
        lines += [self._side] if self._side is not None else []
        for index, name in enumerate(self._names):
            try:
                stat = self.path(index).stat()
            except OSError:
                raise DataError(f"{self.path(index)}: no such image") from None
            lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns if exact else ''}")
        return lines

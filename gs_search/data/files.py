"""Pictures in files: finding them, ordering them, splitting them.

Order and splits depend on the names alone (their sha256), neither on the file system nor on the study's seed:
a picture that one study held back for testing is not trained on by the next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from gs_search.data.images import read_image
from gs_search.data.views import Views
from gs_search.errors import DataError

__all__ = ["FilePictures", "cut", "hash_order", "list_images"]

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def list_images(folder: Path) -> list[str]:
    """Paths, relative to ``folder``, of all images below it, in hash order; hidden files do not count.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; give the path of a folder of images")

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    names = []
    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in _SUFFIXES:
                names.append(Path(place, file).relative_to(folder).as_posix())
    if not names:
        raise DataError(f"{folder}: no images in it ({', '.join(sorted(s[1:] for s in _SUFFIXES))})")
    return hash_order(names)


def hash_order(names: Sequence[str]) -> list[str]:
    """Sort names by their sha256."""
    return sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())


def cut(names: Sequence[str], counts: Mapping[str, int], where: Path) -> dict[str, list[str]]:
    """Deal names out to splits in the order of ``counts``; where names are short, in proportion.

    Every split gets two at least (or the one it asks for): less cannot be measured.

    Raises:
        DataError: too few names.
    """
    wanted = {split: count for split, count in counts.items() if count > 0}
    least = {split: min(2, count) for split, count in wanted.items()}
    if len(names) < sum(least.values()):
        raise DataError(f"{where}: {len(names)} images, too few to split into {', '.join(wanted)}; add more")
    share = min(1.0, len(names) / max(1, sum(wanted.values())))
    left, owed = list(names), sum(least.values())
    result: dict[str, list[str]] = {split: [] for split in counts}
    for split, count in wanted.items():
        owed -= least[split]
        size = min(max(least[split], int(count * share)), len(left) - owed)
        result[split], left = left[:size], left[size:]
    return result


class FilePictures:
    """Images below a folder, decoded when asked for; a ``PictureSet``."""

    def __init__(self, folder: Path, names: Sequence[str], views: Views) -> None:
        self._folder, self._names, self._views = folder, tuple(names), views

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        """File of a picture."""
        return self._folder / self._names[index]

    def picture(self, index: int, view: int | None = None) -> Tensor:
        """See ``PictureSet.picture``."""
        # Twice the pixels of the view, so that the resampling below decides how the picture looks.
        image = read_image(self.path(index), enough_px=2 * self._views.image_px)
        return self._views.of(image, index, view)

    def name(self, index: int) -> str:
        """Path below the folder."""
        return self._names[index]

    def identity(self, *, exact: bool) -> list[str]:
        """Name and size of each file; if ``exact`` also where it is and when it was changed."""
        lines = [str(self._folder.resolve())] if exact else []
        for index, name in enumerate(self._names):
            try:
                stat = self.path(index).stat()
            except OSError:
                raise DataError(f"{self.path(index)}: no such image") from None
            lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns if exact else ''}")
        return lines

"""Which files of a folder are pictures that can be used, and no picture twice.

Decided when data are opened: later every picture has its number. Files are looked at in the order in which they would
be dealt out, and no more of them are decoded than are asked for, so that a large folder opens as fast as a small one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from gs_search.data.colour import Treatment
from gs_search.data.files import cut, list_images
from gs_search.data.images import UnfitSize, read_header, read_image
from gs_search.data.tally import Tally
from gs_search.errors import DataError
from gs_search.system.machine import cores

__all__ = ["Sieve"]

MANY = 10
"""So many damaged files are passed over in any case."""
MOST = 0.05
"""Share of damaged files beyond which a folder is refused: more is no accident but a failed download."""

_CHUNK = 256
_DECODED_PIXELS = 4_000_000_000
"""Up to so many pixels (some twenty seconds) everything is decoded; beyond, only what looks cut off."""
_TAIL = 64
# How complete files end. Cameras append data of their own, so that a missing end is a suspicion, no proof.
_ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
_GRID = 8
_NEAR = 3
"""Grey levels by which the thumbnails of one picture may differ: a JPEG is decoded at a fraction, a PNG is not."""
_NEAR_MEAN = 1
_CELL = 4
"""Grey levels to a cell: pictures are compared with those whose quarters have means in the same or the next cell."""

_TREATED = {
    "converted": "converted to sRGB from their colour profile",
    "broken": "with a colour profile that cannot be used, taken for sRGB",
}

_Look = tuple[tuple[int, int], tuple[int, ...]]

_NEARLY_ALL = 0.9
_SHAPE = 0.02
"""Share by which the proportions of two partners may differ, as sizes are rounded."""

_OVERLOOKED = 20_000
"""So many files that are not asked for are looked at, not decoded, to name what is damaged."""


@dataclass(frozen=True)
class _Seen:
    """What one look at a file has told."""

    size: tuple[int, int] = (0, 0)
    """Upright where decoded."""
    problem: str | None = None
    unfit: bool = False
    profile: Treatment = "none"
    thumbnail: np.ndarray | None = None
    """Means of 8 x 8 fields, grey, int16; None if not decoded."""


_seen: dict[tuple[str, int, int, bool], _Seen] = {}
"""By path, size, time of change and whether it was decoded: a process opens the same data several times."""


class Sieve:
    """Takes pictures below ``root``, and remembers what it has taken and left out.

    Args:
        root: folder to which names are relative.
        partners: name to the name of a file without which the picture is of no use, or to nothing, if there is none.
    """

    def __init__(self, root: Path, partners: Mapping[str, str] | None = None) -> None:
        self.root, self.partners = root, dict(partners or {})
        self.wide = self.taken = 0
        self.left: Counter[str] = Counter()
        self.treated: Counter[str] = Counter()
        self.named: list[str] = []
        self.spare = 0
        self._pixels = _DECODED_PIXELS
        self._damaged = self._looked_at = 0
        self._by_bytes: defaultdict[int, list[Path]] = defaultdict(list)
        self._by_look: defaultdict[_Look, list[tuple[Path, np.ndarray]]] = defaultdict(list)
        self._digests: dict[tuple[Path, bool], bytes] = {}

    def take(self, names: Sequence[str], most: int) -> list[str]:
        """The first names of sound pictures that are no copies of what was taken before, in order.

        Raises:
            DataError: too many of the files are damaged.
        """
        taken: list[str] = []
        place = 0
        while len(taken) < most and place < len(names):
            chunk = names[place : place + min(_CHUNK, most - len(taken))]
            place += len(chunk)
            for name, seen in zip(chunk, self._look(chunk), strict=True):
                self._looked_at += 1
                if seen.problem is not None:
                    self._damaged += not seen.unfit
                    self._leave(seen, seen.problem)
                elif name in self.partners and not self._is_pair(self.partners[name], seen):
                    continue
                elif self._is_copy(self.root / name, seen):
                    self.left["copies of others"] += 1
                else:
                    taken.append(name)
                    self.taken += 1
                    self.wide += abs(seen.size[0] - 2 * seen.size[1]) <= 1
                    if seen.profile != "none":
                        self.treated[_TREATED[seen.profile]] += 1
            if self._damaged > max(MANY, MOST * self._looked_at):
                damaged = f"{self._damaged} of {self._looked_at} images cannot be used"
                raise DataError(f"{self.root}: {damaged}, which is no accident; the first: {self.named[0]}")
        rest = names[place:]
        self.spare += len(rest)
        for seen in self._look(rest[:_OVERLOOKED], decode=False):
            if seen.problem is not None:
                self.spare -= 1
                self._leave(seen, seen.problem)
        return taken

    def _is_pair(self, partner: str, seen: _Seen) -> bool:
        """Whether a picture's partner is there, sound and of the same shape; if not, it is counted."""
        if not partner:
            self.left["without a partner"] += 1
            return False
        (other,) = self._look([partner])
        if other.problem is not None:
            self._damaged += not other.unfit
            self._leave(other, other.problem)
        elif abs(seen.size[0] / seen.size[1] / (other.size[0] / other.size[1]) - 1) > _SHAPE:
            self.left["of another shape than their partner"] += 1
        else:
            return True
        return False

    def _leave(self, seen: _Seen, problem: str) -> None:
        self.left["too small or too large" if seen.unfit else "damaged"] += 1
        self.named.append(" ".join(problem.splitlines()))  # names may hold anything

    def take_below(self, folder: str, most: int) -> list[str]:
        """``take`` of all images below a folder whose name, relative to the root, ends in a slash or is empty."""
        listing = list_images(self.root / folder)
        self.left.update(listing.left)
        return self.take([folder + name for name in listing.names], most)

    def deal(self, folder: str, counts: Mapping[str, int]) -> dict[str, list[str]]:
        """Sound pictures below a folder, dealt out to splits.

        Raises:
            DataError: too few, or too many damaged ones.
        """
        return cut(self.take_below(folder, sum(counts.values())), counts, self.root / folder, self.left)

    def tally(
        self, asked: Mapping[str, int], taken: Mapping[str, Sequence[str]], what: str = "", *, halves: bool = False
    ) -> Tally:
        """What became of all files so far.

        Args:
            what: tells domains of one root apart.
            halves: two pictures side by side are known to be two.
        """
        return Tally(
            where=f"{self.root}{what and f' ({what})'}",
            asked=dict(asked),
            taken={split: len(names) for split, names in taken.items()},
            spare=self.spare + self.taken - sum(map(len, taken.values())),
            left_out=dict(self.left),
            treated=dict(self.treated),
            named=tuple(self.named),
            side_by_side=not halves and self.wide >= _NEARLY_ALL * self.taken > 0,
        )

    def _look(self, names: Sequence[str], *, decode: bool = True) -> list[_Seen]:
        paths = [self.root / name for name in names]
        with ThreadPoolExecutor(cores()) as pool:  # decoders work outside of Python's lock
            headers = list(pool.map(_header, paths))
            decoded = []
            for seen in headers:
                self._pixels -= seen.size[0] * seen.size[1] if decode else 0
                decoded.append(decode and self._pixels >= 0)
            return list(pool.map(_look, paths, headers, decoded))

    def _is_copy(self, path: Path, seen: _Seen) -> bool:
        """Whether a picture with the same bytes, or the same pixels, was taken; if not, it is taken."""
        try:
            same_size = self._by_bytes[path.stat().st_size]
        except OSError:
            raise DataError(f"{path}: no such image") from None
        if any(self._digest(path, pixels=False) == self._digest(other, pixels=False) for other in same_size):
            return True
        if seen.thumbnail is not None:
            quarters = seen.thumbnail.reshape(2, _GRID // 2, 2, _GRID // 2).mean((1, 3)).ravel()
            cells = [sorted({int(q - _NEAR_MEAN) // _CELL, int(q + _NEAR_MEAN) // _CELL}) for q in quarters]
            for cell in itertools.product(*cells):
                for other, thumbnail in self._by_look.get((seen.size, cell), ()):
                    near = np.abs(seen.thumbnail - thumbnail).max() <= _NEAR
                    if near and self._digest(path, pixels=True) == self._digest(other, pixels=True):
                        return True
            own = tuple(int(q) // _CELL for q in quarters)
            self._by_look[seen.size, own].append((path, seen.thumbnail))
        same_size.append(path)
        return False

    def _digest(self, path: Path, *, pixels: bool) -> bytes:
        """Of the file, or of what it shows."""
        key = (path, pixels)
        if key not in self._digests:
            content = read_image(path).tobytes() if pixels else path.read_bytes()
            self._digests[key] = hashlib.sha256(content).digest()
        return self._digests[key]


def _header(path: Path) -> _Seen:
    try:
        header = read_header(path)
        return _Seen(header.size, profile=header.profile)
    except DataError as error:
        return _Seen(problem=str(error), unfit=isinstance(error, UnfitSize))


def _look(path: Path, header: _Seen, decode: bool) -> _Seen:
    """Decode a picture whose header is sound, at a fraction of its size where that is quicker."""
    if header.problem is not None:
        return header
    try:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns, decode)
        if key not in _seen:
            _seen[key] = _decoded(path, header) if decode or _looks_cut_off(path) else header
        return _seen[key]
    except OSError as error:
        return _Seen(problem=f"{path}: cannot be read ({error.strerror})")


def _decoded(path: Path, header: _Seen) -> _Seen:
    try:
        image = read_image(path, enough_px=8 * _GRID)
    except DataError as error:
        return _Seen(problem=str(error))
    turned = (image.width > image.height) != (header.size[0] > header.size[1])
    small = image.convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    size = header.size[::-1] if turned else header.size
    return replace(header, size=size, thumbnail=np.asarray(small, dtype=np.int16))


def _looks_cut_off(path: Path) -> bool:
    with path.open("rb") as file:
        ending = _ENDINGS.get(file.read(2))
        if ending is None:
            return False
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        return ending not in file.read()

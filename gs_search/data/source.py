"""What a study sees of its data: sets of pictures, by split and by domain.

Every set is cheap to construct and to send to another process: pictures are drawn or decoded when asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from gs_search.data.images import from_uint8
from gs_search.data.tally import Tally
from gs_search.errors import DataError

__all__ = ["DataSettings", "DataSource", "PictureSet", "Split", "batch"]

Split = Literal["train", "val", "test", "reference"]


class DataSettings(Protocol):
    """The ``data`` section of a study, as far as this package reads it. Counts are upper limits."""

    @property
    def kind(self) -> Literal["drawn", "folders", "photos", "pairs"]: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def side(self) -> Literal["left", "right"] | None: ...
    @property
    def train(self) -> int: ...
    @property
    def val(self) -> int: ...
    @property
    def test(self) -> int: ...
    @property
    def reference(self) -> int: ...


class PictureSet(Protocol):
    """An ordered set of pictures. The order is random but fixed, so that any first few are a fair sample."""

    def __len__(self) -> int: ...

    def picture(self, index: int, view: int | None = None) -> Tensor:
        """Picture ``index`` as uint8, 3 x image_px x image_px.

        Args:
            index: 0 <= index < len(self).
            view: None: the view for evaluation, the largest centred square. k: the k-th random crop and flip,
                a pure function of the study's seed, ``index`` and k.

        Raises:
            DataError: the file is gone, damaged or unusable.
        """
        ...

    def name(self, index: int) -> str:
        """What to call the picture in a report."""
        ...

    def identity(self, *, exact: bool) -> list[str]:
        """One line a picture (or one for all) that changes when its content does.

        ``exact`` lines are for caches on this machine, the others are the same wherever the data are copied.
        """
        ...


@dataclass(frozen=True)
class DataSource:
    """All sets of one study.

    Attributes:
        kind: as in the study file.
        image_px: side of every picture.
        sources: pictures to translate, by split.
        targets: real pictures of the target domain, by split; empty where there are none.
        tallies: what became of the files of each domain; no part of what the data are.
    """

    kind: str
    image_px: int
    seed: int
    sources: Mapping[str, PictureSet]
    targets: Mapping[str, PictureSet] = field(default_factory=dict)
    tallies: tuple[Tally, ...] = ()

    @property
    def reference_kind(self) -> Literal["target", "teacher"]:
        """What translations are compared with: real target pictures, or the teacher's of other photos."""
        return "target" if self.targets else "teacher"

    def source(self, split: Split) -> PictureSet:
        """Pictures to translate: ``train``, ``val``, ``test``; with photos also ``reference``.

        Raises:
            DataError: the study has no such pictures.
        """
        return self._existing(self.sources, split, "pictures to translate")

    def target(self, split: Split) -> PictureSet | None:
        """Real pictures of the target domain, or None where the study has no target domain.

        ``reference`` is the set for FID that no training sees where the data allow it: fresh drawings, or the
        target pictures of ``val`` and, where these are fewer than asked for, of ``train``.
        """
        return self._existing(self.targets, split, "target pictures") if self.targets else None

    def describe(self) -> dict[str, object]:
        """Kind, counts and a hash of the content: what a protocol must say about its pictures."""
        counts = {
            name: {split: len(pictures) for split, pictures in sets.items()}
            for name, sets in (("source", self.sources), ("target", self.targets))
        }
        content = self._hash(exact=False)
        return {"kind": self.kind, "image_px": self.image_px, "counts": counts, "content": content}

    def fingerprint(self) -> str:
        """sha256 that changes with any picture, its size in pixels, or the seed of the random views."""
        return self._hash(exact=True)

    def _existing(self, sets: Mapping[str, PictureSet], split: str, what: str) -> PictureSet:
        if split not in sets or len(sets[split]) == 0:
            raise DataError(f"data of kind {self.kind}: no {what} in split {split!r}, only in {', '.join(sets)}")
        return sets[split]

    def _hash(self, *, exact: bool) -> str:
        digest = hashlib.sha256(f"{self.kind} {self.image_px} {self.seed if exact else ''}\n".encode())
        for domain, sets in (("source", self.sources), ("target", self.targets)):
            for split, pictures in sorted(sets.items()):
                lines = [f"{domain} {split} {len(pictures)}", *pictures.identity(exact=exact)]
                digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def batch(pictures: PictureSet, indices: Sequence[int], views: Sequence[int | None] | int | None = None) -> Tensor:
    """Float32 pictures in [-1, 1], N x 3 x H x W, of ``indices`` (one view for all, or one for each)."""
    if views is None or isinstance(views, int):
        views = [views] * len(indices)
    images = [pictures.picture(index, view) for index, view in zip(indices, views, strict=True)]
    return from_uint8(torch.stack(images))

"""What a student is taught: views of pictures (a crop and flip each), with the teacher's answers to them.

``Lessons`` are computed once and read by many trials from memory-mapped files: the teacher's picture of every view,
and its features, which are a hundred times as large, of the first views as far as there is room. ``FreshLessons`` are
for a long training: many views, each painted when a step first asks for it, and kept on disk from there on. Views are
painted one at a time, so that a lesson has the same bits whenever, and by whomever, it is made.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from gs_search.errors import DataError
from gs_search.slimming.teacher import Batch, Teacher

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FreshLessons", "Lessons"]

CHECKSUM_BYTES = 4

View = Callable[[int], Tensor]
"""A view by its number: bytes, 3 x H x W."""


class Lessons:
    """The teacher's answers on a fixed list of views.

    Args:
        inputs: V x 3 x H x W, bytes or floats in [-1, 1].
        outputs: V x 3 x H x W in [-1, 1].
        features: tap to F x C x h x w, those of the first F views.
    """

    def __init__(self, inputs: np.ndarray, outputs: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        self.inputs, self.outputs, self.features = inputs, outputs, dict(features)
        self.featured = min(map(len, self.features.values()), default=0)
        """Views that have features: the first ones."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What ``write`` has left in a folder, memory-mapped.

        Raises:
            DataError: something is missing.
        """
        try:
            taps: dict[str, str] = json.loads((folder / "taps.json").read_text())
            arrays = {tap: np.load(folder / name, mmap_mode="r") for tap, name in taps.items()}
            inputs, outputs = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("inputs", "outputs"))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: the teacher's answers are incomplete ({error}); delete the folder") from None
        return cls(inputs, outputs, arrays)

    @classmethod
    def in_memory(cls, teacher: Teacher, inputs: Tensor, *, batch_size: int = 4) -> Self:
        """The answers for ``inputs`` (V x 3 x H x W in [-1, 1]), kept in memory."""
        device = next(teacher.network.parameters()).device
        answers = [teacher.answer(part.to(device)) for part in inputs.float().split(batch_size)]
        outputs = torch.cat([pictures for pictures, _ in answers]).cpu()
        features = {tap: torch.cat([found[tap] for _, found in answers]).cpu().numpy() for tap in answers[0][1]}
        return cls(inputs.float().cpu().numpy(), outputs.numpy(), features)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """The views ``indices`` as float32 tensors; with features where all of them have some."""
        rows = np.asarray(indices)

        def load(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array[rows])).to(device).float()

        inputs = load(self.inputs)
        if self.inputs.dtype == np.uint8:
            inputs = inputs / 127.5 - 1.0
        taught = self.features if (rows < self.featured).all() else {}
        features = {tap: load(array) for tap, array in taught.items()}
        return Batch(inputs, load(self.outputs), features, tuple(rows.tolist()))

    @classmethod
    def write(cls, folder: Path, teacher: Teacher, view: View, count: int, *, featured: int | None = None) -> Self:
        """Compute and store the answers for the views 0 to ``count`` - 1; the index is written last.

        Pictures go through one at a time, so that no more than one is in memory; answers are float16.

        Args:
            featured: views whose features are stored, the first ones; None: all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "taps.json").unlink(missing_ok=True)
        featured = count if featured is None else min(featured, count)
        arrays: dict[str, np.memmap] = {}
        files: dict[str, str] = {}

        def put(name: str, file: str, number: int, rows: int, value: np.ndarray) -> None:
            if name not in arrays:
                files[name] = file
                arrays[name] = np.lib.format.open_memmap(
                    folder / file, mode="w+", dtype=value.dtype, shape=(rows, *value.shape)
                )
            arrays[name][number] = value

        for number in range(count):
            picture = view(number)
            outputs, features = _answer(teacher, picture[None])
            put("inputs", "inputs.npy", number, count, picture.numpy())
            put("outputs", "outputs.npy", number, count, outputs[0].cpu().numpy())
            if number < featured:
                for tap, values in features.items():
                    put(f"tap {tap}", f"features-{quote(tap, safe='')}.npy", number, featured, values[0].cpu().numpy())
        for array in arrays.values():
            array.flush()
        taps = {name.removeprefix("tap "): file for name, file in files.items() if name.startswith("tap ")}
        (folder / "taps.json").write_text(json.dumps(taps))
        return cls.open(folder)


class FreshLessons:
    """Views for a long training, each painted by the teacher when a step first asks for it.

    A row of the file is a view's bytes, the teacher's picture in float16, and a checksum of both, of the teacher and of
    what the views are of; a row that is not there yet, was cut off, or is another teacher's, is made anew. Trainings of
    one study share the file, also at the same time: whoever writes a row writes the same bits.

    Args:
        path: of the file; it grows to ``row_bytes`` times ``count`` at most.
        view: a view by its number.
        first: the answers to the first views, where some of them have features.
        of: names the pictures.
    """

    def __init__(
        self, path: Path, teacher: Teacher, view: View, count: int, *, first: Lessons | None = None, of: str = ""
    ) -> None:
        self._first = first
        self.featured = 0 if first is None else min(first.featured, count)
        self.path, self.teacher, self._view, self._count = path, teacher, view, count
        self._shape = (3, teacher.image_px, teacher.image_px)
        self._numbers = int(np.prod(self._shape))
        self.row_bytes = 3 * self._numbers + CHECKSUM_BYTES
        self._salt = zlib.crc32(of.encode())
        for tensor in teacher.network.state_dict().values():
            self._salt = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), self._salt)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch()
            with self._open():
                pass
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror})") from None

    def __len__(self) -> int:
        return self._count

    @property
    def missing_bytes(self) -> int:
        """What the file may still grow by."""
        return max(0, self._count * self.row_bytes - 512 * self.path.stat().st_blocks)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """The views ``indices`` as float32 tensors; with features where all of them have some."""
        numbers = [int(index) for index in indices]
        if self._first is not None and max(numbers) < self.featured:
            return self._first.batch(numbers, device)
        rows = []
        with self._open() as file:
            for number in numbers:
                row = self._read(file, number)
                if row is None:
                    picture = self._view(number)
                    row = (picture, _answer(self.teacher, picture[None])[0][0].cpu())
                    self._write(file, number, *row)
                rows.append(row)
        inputs = torch.stack([picture for picture, _ in rows]).to(device).float() / 127.5 - 1.0
        outputs = torch.stack([output for _, output in rows]).to(device).float()
        return Batch(inputs, outputs, {}, tuple(numbers))

    def _open(self) -> FileIO:
        return self.path.open("r+b", buffering=0)

    def _read(self, file: FileIO, number: int) -> tuple[Tensor, Tensor] | None:
        content = os.pread(file.fileno(), self.row_bytes, number * self.row_bytes)
        body, mark = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if len(content) < self.row_bytes or self._checksum(body) != mark:
            return None
        picture = np.frombuffer(body[: self._numbers], dtype=np.uint8).reshape(self._shape)
        output = np.frombuffer(body[self._numbers :], dtype=np.float16).reshape(self._shape)
        return torch.from_numpy(picture.copy()), torch.from_numpy(output.copy())

    def _write(self, file: FileIO, number: int, picture: Tensor, output: Tensor) -> None:
        body = picture.contiguous().numpy().tobytes() + output.contiguous().numpy().tobytes()
        try:
            os.pwrite(file.fileno(), body + self._checksum(body), number * self.row_bytes)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}); the same command goes on when there is room"
            ) from None

    def _checksum(self, body: bytes) -> bytes:
        """Never that of zeros, which a file has where nothing was written."""
        return (zlib.crc32(body, self._salt) or 1).to_bytes(CHECKSUM_BYTES, "little")


def _answer(teacher: Teacher, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The teacher's answer to pictures (N x 3 x H x W bytes) in float16, on the teacher's device."""
    device = next(teacher.network.parameters()).device
    outputs, features = teacher.answer(pictures.to(device).float() / 127.5 - 1.0)
    return outputs.half(), {tap: values.half() for tap, values in features.items()}

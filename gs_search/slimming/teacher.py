"""The dense generator as slimming sees it: its channels traced, its answers remembered.

``Teacher`` holds the slimmable copy of a generator and says what a student is taught: the teacher's picture and
its features, taken where convolutions read normalised streams. ``Lessons`` are these answers for a fixed list of
views (a crop and flip of one picture), computed once and read by many trials from memory-mapped files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import DataError
from gs_search.slimming.channels import Alive, ChannelGraph, trace
from gs_search.slimming.layers import SlimConv, convolutions, slimmable
from gs_search.slimming.sparsity import rescale_

__all__ = ["Batch", "Lessons", "Teacher", "record_features"]


@dataclass(frozen=True)
class Batch:
    """One step's material; all float32 on the training device.

    Attributes:
        inputs: N x 3 x H x W in [-1, 1].
        outputs: the teacher's pictures, the same shape and range.
        features: tap to the teacher's N x C x h x w.
    """

    inputs: Tensor
    outputs: Tensor
    features: Mapping[str, Tensor]


class Teacher:
    """A generator prepared for slimming.

    Args:
        generator: takes and returns N x 3 x H x W in [-1, 1]; is copied, never changed.
        image_px: size of the pictures at which costs are counted and the graph is traced.

    Raises:
        UnsupportedNetwork: the generator cannot be slimmed.
    """

    def __init__(self, generator: nn.Module, image_px: int) -> None:
        self.network = slimmable(generator).eval()
        self.graph: ChannelGraph = trace(self.network, image_px)
        self.network.requires_grad_(False)
        self.taps = _taps(self.graph, self.network)

    def to(self, device: torch.device | str) -> Teacher:
        self.network.to(device)
        return self

    def student(self, importance: str = "rank") -> tuple[nn.Module, dict[str, np.ndarray]]:
        """A trainable copy, rescaled if ``importance`` is ``rank``, and each group's signal growth."""
        import copy

        network = copy.deepcopy(self.network).requires_grad_(True)
        if importance == "rank":
            return network, rescale_(self.graph, network)
        return network, {name: np.ones(group.size) for name, group in self.graph.groups.items()}

    @torch.no_grad()
    def answer(self, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's pictures and the features at its taps."""
        with record_features(self.network, self.taps) as features:
            outputs = self.network(pictures)
        return outputs, dict(features)

    def tap_growth(self, factors: Mapping[str, np.ndarray], alive: Alive, tap: str) -> tuple[np.ndarray, np.ndarray]:
        """Channels of a tap that are alive (positions), and how much the rescale has grown each of them."""
        width = self.graph.layers[tap].inputs
        keep = self.graph.kept(alive, tap, "in", width)
        growth = np.ones(width, dtype=np.float32)
        for name, group in self.graph.groups.items():
            for slot in group.slots:
                if slot.module == tap and slot.role == "in":
                    growth[slot.positions] = factors[name][slot.channels]
        positions = np.flatnonzero(keep)
        return positions, growth[positions]


@contextmanager
def record_features(network: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open, every forward pass leaves the inputs of the convolutions ``taps`` in the dict.

    A tap whose residual block has vanished leaves nothing.
    """
    features: dict[str, Tensor] = {}
    handles = []
    layers = convolutions(network)
    for name in (tap for tap in taps if tap in layers):

        def record(module: SlimConv, inputs: tuple[Tensor, ...], name: str = name) -> None:
            features[name] = inputs[0]

        handles.append(layers[name].register_forward_pre_hook(record))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


class Lessons:
    """The teacher's answers on a fixed list of views, in a folder of memory-mapped arrays.

    Inputs are stored as bytes, answers and features as float16.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.taps: dict[str, str] = json.loads((folder / "taps.json").read_text())
            self.inputs = np.load(folder / "inputs.npy", mmap_mode="r")
            self.outputs = np.load(folder / "outputs.npy", mmap_mode="r")
            self.features = {tap: np.load(folder / name, mmap_mode="r") for tap, name in self.taps.items()}
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: the teacher's answers are incomplete ({error}); delete the folder") from None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """The views ``indices`` as float32 tensors."""
        rows = np.asarray(indices)

        def load(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array[rows])).to(device).float()

        features = {tap: load(array) for tap, array in self.features.items()}
        return Batch(load(self.inputs) / 127.5 - 1.0, load(self.outputs), features)

    @classmethod
    def write(cls, folder: Path, teacher: Teacher, inputs: Tensor, *, batch_size: int = 4) -> Lessons:
        """Compute and store the answers for ``inputs`` (V x 3 x H x W bytes); the index is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        device = next(teacher.network.parameters()).device
        np.save(folder / "inputs.npy", inputs.numpy())
        arrays: dict[str, np.memmap] = {}
        files: dict[str, str] = {}
        for start in range(0, len(inputs), batch_size):
            pictures = inputs[start : start + batch_size].to(device).float() / 127.5 - 1.0
            outputs, features = teacher.answer(pictures)
            for tap, values in {"": outputs, **features}.items():
                if tap not in arrays:
                    files[tap] = f"features-{tap}.npy" if tap else "outputs.npy"
                    shape = (len(inputs), *values.shape[1:])
                    arrays[tap] = np.lib.format.open_memmap(
                        folder / files[tap], mode="w+", dtype=np.float16, shape=shape
                    )
                arrays[tap][start : start + batch_size] = values.cpu().half().numpy()
        for array in arrays.values():
            array.flush()
        del files[""]
        (folder / "taps.json").write_text(json.dumps(files))
        return cls(folder)


def _taps(graph: ChannelGraph, network: nn.Module) -> tuple[str, ...]:
    """Convolutions whose inputs are taught: those that read a normalised stream outside residual branches."""
    layers = convolutions(network)
    taps = []
    for name in graph.layers:
        sources = [g for g in graph.groups.values() if any(s.module == name and s.role == "in" for s in g.slots)]
        gated = any(layers[s.module].gate is not None for g in sources for s in g.slots if s.role == "out")
        if sources and not gated and not any(group.block for group in sources):
            taps.append(name)
    return tuple(taps)

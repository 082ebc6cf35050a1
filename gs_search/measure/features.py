"""Inception features of pictures, all of them: a last partial batch is a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gs_search.measure.inception import FEATURES, Inception, load_inception

__all__ = ["Precision", "inception_features"]

Precision = Literal["float32", "bf16"]

# Larger batches fall out of a core's cache (4: 51 ms a picture, 8: 53, 12: 57); a GPU wants more.
BATCH_CPU = 4
BATCH_GPU = 64


def inception_features(
    images: Tensor | Iterable[Tensor],
    *,
    model: Inception | None = None,
    batch_size: int | None = None,
    precision: Precision = "float32",
    threads: int = 1,
) -> np.ndarray:
    """Return float32 N x 2048 features, in the order of the images.

    Args:
        images: uint8 N x 3 x H x W, RGB; or any number of such tensors. How pictures of one size are cut into
            tensors has no influence on the result: they are put together into batches of ``batch_size``.
        model: the network; loaded if not given.
        batch_size: 4 on a CPU, 64 on a GPU if not given.
        precision: "float32" is pytorch-fid's; "bf16" is about twice as fast on CPUs that have it, and
            deviates: ``benchmarks/README.md`` says by how much.
        threads: batches at once on a CPU, for who has idle cores; features are the same to the bit where torch itself
            computes with one thread.
    """
    model = load_inception() if model is None else model
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = BATCH_CPU if device.type == "cpu" else BATCH_GPU
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")

    def describe(batch: Tensor) -> np.ndarray:
        with torch.inference_mode(), _arithmetic(device, precision):  # both hold for one thread
            features: np.ndarray = model(batch).cpu().numpy()
            return features

    batches = _batches([images] if isinstance(images, Tensor) else images, batch_size)
    empty = np.empty((0, FEATURES), np.float32)
    if threads <= 1 or device.type != "cpu":
        return np.concatenate([empty, *map(describe, batches)])
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate([empty, *pool.map(describe, batches)])


def _batches(images: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Cut anew into batches of ``size``, smaller only at the end and where H x W changes."""
    waiting: list[Tensor] = []
    count = 0
    for part in images:
        if part.dtype != torch.uint8 or part.ndim != 4 or part.shape[1] != 3:
            raise ValueError(f"images must be uint8 N x 3 x H x W, but are {part.dtype} {tuple(part.shape)}")
        if waiting and part.shape[2:] != waiting[0].shape[2:]:
            yield torch.cat(waiting)
            waiting, count = [], 0
        while count + len(part) >= size:
            head, part = part[: size - count], part[size - count :]
            yield torch.cat([*waiting, head])
            waiting, count = [], 0
        if len(part):
            waiting.append(part)
            count += len(part)
    if waiting:
        yield torch.cat(waiting)


@contextlib.contextmanager
def _arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    if precision == "bf16":
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    elif device.type == "cuda":
        # TF32 is on by default in convolutions and is not float32.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    else:
        yield

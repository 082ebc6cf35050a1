"""What exported files are worth: FID of the pictures that they paint, milliseconds beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gs_search.data.images import to_uint8
from gs_search.export.onnx.runtime import paired_milliseconds
from gs_search.export.progress import Tick
from gs_search.measure.features import inception_features
from gs_search.measure.fid import frechet_distance
from gs_search.measure.kid import kernel_distance
from gs_search.measure.psnr import psnr
from gs_search.system.machine import cores
from gs_search.trial.assets import TrialAssets

__all__ = ["latencies", "picture_figures"]

THREADS = (1, 2)

PORTION = 20
"""Pictures between two words on how far it is: whole batches, so that features stay as they are."""


def picture_figures(painted: Tensor, ground: TrialAssets, tick: Tick = lambda done: None) -> dict[str, float]:
    """FID, KID and distance to the teacher of a file's own pictures, by the study's protocol; on all cores.

    Args:
        painted: of all validation pictures, N x 3 x H x W in [-1, 1].
        tick: told how many of them have been described.
    """
    parts, done = [], 0
    for chunk in to_uint8(painted).split(PORTION):
        parts.append(inception_features(chunk, model=ground.inception, threads=cores()))
        done += len(chunk)
        tick(done)
    features = np.concatenate(parts)
    return {
        "fid": frechet_distance(features, ground.reference),
        "kid": kernel_distance(features, ground.reference.features).full,
        "psnr_to_teacher": psnr(painted, ground.validation_outputs),
    }


def latencies(
    files: Mapping[str, Path],
    image_px: int,
    *,
    rounds: int,
    timer: Callable[..., Mapping[str, Sequence[float]]] = paired_milliseconds,
) -> dict[str, Any]:
    """Milliseconds of each file on one picture, and by how much the first is faster than the others.

    Args:
        files: ``integer``, ``float`` and ``teacher``, of which some may be missing.
        timer: times files of another runtime.

    Returns:
        ``threads``: for 1 and 2: ``ms`` (medians; of one thread, its processor time), ``ratios`` (medians over the
        rounds of the other file's time over the smallest's, and the middle half of them); ``load`` before, and whether
        the machine was ``contended``.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {}
    for threads in THREADS:
        if threads > cores:
            continue
        times = {name: np.array(ms) for name, ms in timer(files, image_px, threads=threads, rounds=rounds).items()}
        pairs = [
            pair
            for pair in (("float", "integer"), ("teacher", "integer"), ("teacher", "float"))
            if set(pair) <= set(times)
        ]
        found[str(threads)] = {
            "ms": {name: float(np.median(ms)) for name, ms in times.items()},
            "ratios": {f"{slow}/{fast}": _ratio(times[slow] / times[fast]) for slow, fast in pairs},
        }
    return {
        "image_px": image_px,
        "threads": found,
        "rounds": rounds,
        "load": round(load, 2),
        "contended": load > 0.5 * cores,
    }


def _ratio(ratios: np.ndarray) -> dict[str, float]:
    low, middle, high = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return {"median": middle, "low": low, "high": high}

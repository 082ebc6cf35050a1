"""Milliseconds that a generator takes for one picture."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

__all__ = ["latency_ms"]

WARM_UP = 2
"""Passes before the first one that counts: allocator, and on a GPU the choice of kernels."""


def latency_ms(module: nn.Module, image_px: int, *, repeats: int = 5, channels: int = 3) -> float:
    """Return the median over ``repeats`` passes of one picture, on one CPU thread or on the module's GPU.

    It is wall-clock time: other processes on the machine lengthen it.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, but is {repeats}")
    parameter = next(module.parameters(), torch.empty(0))
    x = torch.zeros(1, channels, image_px, image_px, dtype=parameter.dtype, device=parameter.device)
    threads, training = torch.get_num_threads(), [m for m in module.modules() if m.training]
    torch.set_num_threads(1)
    module.eval()
    try:
        with torch.inference_mode():
            seconds = [_seconds(module, x) for _ in range(WARM_UP + repeats)][WARM_UP:]
    finally:
        torch.set_num_threads(threads)
        for m in training:
            m.training = True
    return 1e3 * statistics.median(seconds)


def _seconds(module: nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter()
    module(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from gs_search.measure.latency import latency_ms


class Sleeper(nn.Module):
    """Sleeps the given milliseconds one pass after the other, and notes what it sees."""

    def __init__(self, milliseconds: list[float]) -> None:
        super().__init__()
        self.milliseconds = iter(milliseconds)
        self.seen: list[tuple[int, bool, tuple[int, ...]]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((torch.get_num_threads(), self.training, tuple(x.shape)))
        time.sleep(next(self.milliseconds) / 1e3)
        return x


def test_median_of_the_passes_after_the_warm_up() -> None:
    module = Sleeper([30, 30, 1, 10, 60])
    assert 10 <= latency_ms(module, 16, repeats=3) < 30
    assert module.seen == [(1, False, (1, 3, 16, 16))] * 5


def test_threads_and_mode_are_put_back_even_after_an_error() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        module = Sleeper([0, 0])
        with pytest.raises(StopIteration):
            latency_ms(module, 16, repeats=1)
        assert torch.get_num_threads() == 2 and module.training
    finally:
        torch.set_num_threads(threads)


def test_no_repeats_no_median() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        latency_ms(nn.Identity(), 16, repeats=0)

"""Lines now and then, and pictures in order whatever core made them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from gs_search.export.progress import in_parallel, one_thread, progress


def test_a_line_every_five_seconds_at_most() -> None:
    lines: list[str] = []
    times = iter([0.0, 2.0, 5.0, 5.0, 7.0, 11.0, 11.0])  # asked once, and once more where a line is due
    tick = progress(lines.append, "layers", 40, clock=lambda: next(times))
    for done in (1, 8, 9, 30):
        tick(done)
    assert lines == ["layers: 8 of 40", "layers: 30 of 40"]


def test_pictures_stay_in_order() -> None:
    pictures = torch.arange(22.0).view(22, 1)
    second, told = threading.Event(), []

    def run(chunk: Tensor) -> Tensor:
        if chunk[0] == 4:
            second.set()
        elif chunk[0] == 0:
            second.wait(2)  # where there are several cores, the first ends last
        assert torch.get_num_threads() == 1
        return 2 * chunk

    with one_thread():
        assert torch.equal(in_parallel(run, pictures, told.append), 2 * pictures)
    assert told == [4, 8, 12, 16, 20, 22]


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

"""Lines that say how far a long step has come, and pictures made by all cores at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from gs_search.system.machine import cores

__all__ = ["Tick", "in_parallel", "one_thread", "progress"]

Tick = Callable[[int], None]
"""Told how many are done."""

EVERY_S = 5.0

CHUNK = 4
"""Pictures at once, as everywhere in the package: sums of other batches end in other bits."""


def progress(log: Callable[[str], None], what: str, total: int, *, clock: Callable[[], float] = time.monotonic) -> Tick:
    """Return what logs ``what: done of total``, a line every five seconds at most; nothing of a step that is quick."""
    last = clock()

    def tick(done: int) -> None:
        nonlocal last
        if clock() - last >= EVERY_S:
            last = clock()
            log(f"{what}: {done} of {total}")

    return tick


def in_parallel(run: Callable[[Tensor], Tensor], pictures: Tensor, tick: Tick) -> Tensor:
    """``run`` on a few pictures at once, on as many cores as there are; the results in one tensor, in order.

    Args:
        run: computes with one thread; several calls at once.
    """
    found, done = [], 0
    with ThreadPoolExecutor(cores()) as pool:
        for part in pool.map(run, pictures.split(CHUNK)):
            found.append(part)
            done += len(part)
            tick(done)
    return torch.cat(found)


@contextmanager
def one_thread() -> Iterator[None]:
    """While open, torch computes with one thread in each of Python's: its own wait busily for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Work that pauses, as a generator does, run by somebody who has no use for the pauses."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

__all__ = ["returned"]

T = TypeVar("T")


def returned(work: Generator[Any, None, T]) -> T:
    """Run ``work`` to its end, past all pauses, and return what it returns; what it raises is passed on."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result

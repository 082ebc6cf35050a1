"""Random numbers that are a pure function of a key, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dice"]

T = TypeVar("T")


class Dice:
    """A stream of random numbers that is a pure function of its key of whole numbers."""

    _BLOCK = 256

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._numbers: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._numbers:
            # One block at a time: a scalar call to numpy costs more than the number is worth.
            self._numbers = self._generator.random(self._BLOCK).tolist()
        return self._numbers.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def units(self, *shape: int) -> NDArray[np.float64]:
        """An array of numbers in [0, 1)."""
        return self._generator.random(shape)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[int(self.unit() * len(options))]

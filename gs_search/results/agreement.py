"""How well one order foretells another: Kendall's tau, with an exact interval for few points. Pure numpy.

The interval is that of Mallows' model (Biometrika, 1957): the second order is the first one disturbed, an order with d
turned pairs having a probability proportional to q**d. The number of turned pairs then has a known distribution
(Mahonian numbers times q**d), from which an interval for its mean follows as Clopper's and Pearson's does for a share:
no resampling, and no interval of width zero where three points happen to agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["agreement", "turned_pairs"]

TAIL = 0.025
"""Of each side: 95 % intervals."""

FLATTEST = 60.0
"""Largest |log q|: beyond it all orders are one to a computer."""


def agreement(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Compare two orders of the same n points.

    Returns:
        ``n``; ``kendall_tau`` (tau-b, -1 to 1; None below two points, or where one order is all ties); ``low`` and
        ``high``, its 95 % interval; ``chance``, the probability that an order drawn at random agrees as well or better;
        ``enough``: whether n points could say anything, for below five even a perfect agreement, or its opposite, is
        chance in more than one of twenty cases.
    """
    assert len(first) == len(second)
    n = len(first)
    pairs = n * (n - 1) // 2
    found: dict[str, Any] = {"n": n, "kendall_tau": None, "low": None, "high": None, "chance": None}
    found["enough"] = 2 / math.factorial(min(n, 20)) <= 2 * TAIL
    a, b = (np.sign(np.subtract.outer(v, v))[np.triu_indices(n, 1)] for v in map(np.asarray, (first, second)))
    scale = math.sqrt(float((a != 0).sum() * (b != 0).sum()))
    if pairs == 0 or scale == 0:
        return found
    turned = float((a * b < 0).sum() + 0.5 * (a * b == 0).sum())  # a tie is half turned
    uniform = turned_pairs(n)
    worse, better = math.ceil(turned), math.floor(turned)
    return found | {
        "kendall_tau": float((a * b).sum() / scale),
        "low": -1.0 if worse == pairs else _tau_where(uniform, lambda p: float(p[: worse + 1].sum()) - TAIL),
        "high": 1.0 if better == 0 else _tau_where(uniform, lambda p: TAIL - float(p[better:].sum())),
        "chance": float(uniform[: worse + 1].sum()),
    }


def turned_pairs(n: int) -> NDArray[np.float64]:
    """Probability of each number of turned pairs, 0 to n (n - 1) / 2, in an order drawn at random."""
    shares = np.ones(1)
    for k in range(2, n + 1):
        shares = np.convolve(shares, np.full(k, 1 / k))
    return shares


def _tau_where(uniform: NDArray[np.float64], falling: Callable[[NDArray[np.float64]], float]) -> float:
    """The mean tau of the model at the disturbance, rising with log q, at which ``falling`` passes zero."""
    counts = np.arange(len(uniform))
    logs = np.log(uniform)

    def shares(log_q: float) -> NDArray[np.float64]:
        weights = logs + counts * log_q
        weights = np.exp(weights - weights.max())
        return np.asarray(weights / weights.sum())

    low, high = -FLATTEST, FLATTEST
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(shares(middle)) > 0 else (low, middle)
    return float(1 - 2 * (shares(low) @ counts) / counts[-1])

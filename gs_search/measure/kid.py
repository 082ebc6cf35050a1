"""The kernel distance between two sets of features: KID (Binkowski et al., ICLR 2018).

The squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, unbiased: unlike FID its expectation
does not depend on the number of pictures, and it is negative at times for sets that are alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gs_search.errors import BadInput

__all__ = ["KernelDistance", "kernel_distance"]


class KernelDistance(NamedTuple):
    """KID, in the kernel's unit (tables often show it times 1000 or 100)."""

    mean: float
    """Mean over the subsets, the published definition."""
    std: float
    """Standard deviation over the subsets: of one subset, not of the mean."""
    full: float
    """The unbiased estimate from all pictures at once."""


def kernel_distance(
    features: np.ndarray,
    reference_features: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Compare n x d with m x d features. Needs memory for three matrices of n x n, m x m and n x m float64.

    Subsets are drawn without replacement, of ``subset_size`` or, where a set is smaller than twice that, of
    half the smaller set: subsets that are the whole set would all be the same.

    Raises:
        BadInput: fewer than four pictures in a set, values that are not finite, or d that differ.
    """
    x, y = (np.asarray(f, np.float64) for f in (features, reference_features))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 4:
        raise BadInput(f"KID needs two sets of at least four pictures each, but got features {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInput("KID needs finite features, but some are NaN or infinite")
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    size = min(subset_size, len(x) // 2, len(y) // 2)
    random = np.random.default_rng(seed)
    values = np.empty(subsets)
    for k in range(subsets):
        i = random.choice(len(x), size, replace=False)
        j = random.choice(len(y), size, replace=False)
        values[k] = _discrepancy(xx[np.ix_(i, i)], yy[np.ix_(j, j)], xy[np.ix_(i, j)])
    return KernelDistance(float(values.mean()), float(values.std()), _discrepancy(xx, yy, xy))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def _discrepancy(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    def off_diagonal_mean(k: np.ndarray) -> float:
        return float((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)))

    return off_diagonal_mean(xx) + off_diagonal_mean(yy) - 2 * float(xy.mean())

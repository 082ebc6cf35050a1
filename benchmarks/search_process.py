"""A Gaussian process: from a few measured points of a box to a value, and how sure it is, everywhere in it.

Its kernel is a plane, for what goes on beyond the measured points, and a Matern 5/2 whose length differs from one
input to the next; lengths, slopes and noise are those under which the measured values are most likely (Rasmussen and
Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.30), with weak priors that matter while points are few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["Process"]

Array = NDArray[np.float64]

LEAST_NOISE = 1e-6
"""Variance of the noise in shares of that of the values: keeps the matrix invertible."""

PRIORS = {"lengths": (math.log(1.0), 1.0), "slopes": (math.log(0.3), 2.0), "height": (0.0, 1.0), "noise": (-5.0, 3.0)}
"""Mean and standard deviation of the logarithms, for inputs in 0..1 and values of variance 1."""

ITERATIONS = 80


@dataclass(frozen=True)
class _Logs:
    """What is fitted, as logarithms: d lengths, d slopes (variances), height and noise (variances)."""

    lengths: Tensor
    slopes: Tensor
    height: Tensor
    noise: Tensor

    @classmethod
    def of(cls, flat: Tensor) -> _Logs:
        d = (len(flat) - 2) // 2
        return cls(flat[:d], flat[d : 2 * d], flat[-2], flat[-1])

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """n x m covariances of the inputs a (n x d) and b (m x d), without noise."""
        plane = ((a - 0.5) * self.slopes.exp()) @ (b - 0.5).T
        away = (a[:, None] - b[None]) / self.lengths.exp()
        # The small number: the square root has no slope at 0.
        r = (5.0 * away.square().sum(-1) + 1e-12).sqrt()
        return plane + self.height.exp() * (1 + r + r * r / 3) * (-r).exp() + 1.0  # 1: the mean is not known

    def penalty(self) -> Tensor:
        found = torch.zeros((), dtype=torch.float64)
        for name, (mean, spread) in PRIORS.items():
            found = found + (((getattr(self, name) - mean) / spread) ** 2).sum() / 2
        return found


class Process:
    """A fitted Gaussian process. Pure: the same points give the same process.

    Args:
        inputs: n x d, in 0..1.
        values: n.
        least_noise: standard deviation of the values that is known to be noise.
        like: take over that one's lengths, slopes and noise instead of fitting.
    """

    def __init__(
        self, inputs: ArrayLike, values: ArrayLike, *, least_noise: float = 0.0, like: Process | None = None
    ) -> None:
        x, y = np.asarray(inputs, np.float64), np.asarray(values, np.float64)
        self._x = torch.from_numpy(x)
        self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        self._y = torch.from_numpy((y - self._mean) / self._scale)
        self._least = LEAST_NOISE + (least_noise / self._scale) ** 2
        self._flat: Tensor = like._flat if like is not None else self._fit()
        with torch.no_grad():
            self._factor = torch.linalg.cholesky(self._matrix(_Logs.of(self._flat)))
            self._weights = torch.cholesky_solve(self._y[:, None], self._factor)[:, 0]

    @property
    def noise(self) -> float:
        """Standard deviation of what the process takes for noise, in the unit of the values."""
        return self._scale * math.sqrt(float(_Logs.of(self._flat).noise.exp()) + self._least)

    @property
    def lengths(self) -> Array:
        """Distance, in shares of an input's range, over which the value changes; long where an input is idle."""
        return np.asarray(_Logs.of(self._flat).lengths.exp().numpy())

    def __call__(self, inputs: ArrayLike) -> Array:
        """Most likely values at m x d inputs, noise taken off."""
        x = torch.from_numpy(np.atleast_2d(np.asarray(inputs, np.float64)))
        with torch.no_grad():
            found = _Logs.of(self._flat).kernel(x, self._x) @ self._weights
        return np.asarray(found.numpy()) * self._scale + self._mean

    def left_out(self) -> Array:
        """What is predicted for each of the n points without it, lengths and the like kept (ibid., eq. 5.12)."""
        with torch.no_grad():
            inverse = torch.cholesky_inverse(self._factor)
            found = self._y - self._weights / inverse.diagonal()
        return np.asarray(found.numpy()) * self._scale + self._mean

    def _matrix(self, logs: _Logs) -> Tensor:
        noise = logs.noise.exp() + self._least
        return logs.kernel(self._x, self._x) + noise * torch.eye(len(self._x), dtype=torch.float64)

    def _fit(self) -> Tensor:
        d = self._x.shape[1]
        start = [PRIORS["lengths"][0]] * d + [PRIORS["slopes"][0]] * d + [PRIORS["height"][0], PRIORS["noise"][0]]

        def unlikely(flat: Array) -> tuple[float, Array]:
            at = torch.from_numpy(flat.copy()).requires_grad_()
            logs = _Logs.of(at)
            factor, failed = torch.linalg.cholesky_ex(self._matrix(logs))
            if failed:
                return 1e10, np.zeros_like(flat)
            half = torch.linalg.solve_triangular(factor, self._y[:, None], upper=False)
            loss = half.square().sum() / 2 + factor.diagonal().log().sum() + logs.penalty()
            loss.backward()
            assert at.grad is not None
            return float(loss.detach()), at.grad.numpy()

        bounds = [(-4.0, 5.0)] * d + [(-12.0, 4.0)] * d + [(-10.0, 5.0), (-14.0, 1.0)]
        options = {"maxiter": ITERATIONS}
        found = minimize(unlikely, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return torch.from_numpy(np.asarray(found.x))

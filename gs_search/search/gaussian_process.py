"""A Gaussian process: from the points that were tried to a value at any other one, and how sure it is.

Its covariance is Matern 5/2 with a length for each input. Lengths, height and noise are those under which the known
values are most likely, with weak priors that matter while trials are few (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, sections 2.2 and 5.4). Numpy and scipy only; a hundred points take a tenth of a second,
two hundred less than half of one. Pure: the same points give the same process.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

__all__ = ["Process"]

Array = NDArray[np.float64]

LENGTH = 0.3
"""Usual length of an input in 0..1, for one input; it grows with the root of their number, as distances do."""

SPREADS = {"length": 1.0, "height": 1.0, "noise": 2.0}
"""Standard deviations of the priors, of natural logarithms."""

NOISE = math.exp(-4.0)
"""Usual variance of the noise, where that of the values is 1."""

JITTER = 1e-6
"""Added to the noise, which keeps the matrix invertible where points come twice."""

MEAN_VARIANCE = 1.0
"""Of the constant that the values lie around: it is not known."""

ITERATIONS = 60


class Process:
    """A Gaussian process through known points.

    Args:
        inputs: n x d, in 0..1; n at least 1.
        values: n.
    """

    def __init__(self, inputs: ArrayLike, values: ArrayLike) -> None:
        self._x = np.asarray(inputs, np.float64)
        y = np.asarray(values, np.float64)
        self._mean, self._scale = float(y.mean()), float(y.std())
        if self._scale <= 1e-12 * max(1.0, abs(self._mean)):
            self._scale = 1.0  # all alike, rounding aside
        self._y = (y - self._mean) / self._scale
        self._squares = (self._x[:, None] - self._x[None]) ** 2
        self._logs = self._fit()
        self._factor = cholesky(self._covariance(self._logs)[0], lower=True)
        self._weights = cho_solve((self._factor, True), self._y)

    @property
    def noise(self) -> float:
        """Standard deviation of what is taken for noise, in the unit of the values."""
        return self._scale * math.sqrt(math.exp(self._logs[-1]))

    @property
    def lengths(self) -> Array:
        """How far one has to go along each input for the value to change; far along one that does not matter."""
        return np.exp(self._logs[:-2])

    def __call__(self, inputs: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation of the values at m x d inputs, noise taken off."""
        points = np.asarray(inputs, np.float64)
        shrink = np.exp(-self._logs[:-2])
        a, b = points * shrink, self._x * shrink
        squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * a @ b.T
        height = math.exp(self._logs[-2])
        across = height * _matern(np.sqrt(5.0 * np.maximum(squares, 0.0))) + MEAN_VARIANCE
        known = solve_triangular(self._factor, across.T, lower=True)
        variance = np.maximum(height + MEAN_VARIANCE - (known * known).sum(axis=0), 0.0)
        return across @ self._weights * self._scale + self._mean, np.sqrt(variance) * self._scale

    def _covariance(self, logs: Array) -> tuple[Array, Array]:
        """Covariances of the known values, and distances over lengths."""
        r = np.sqrt(5.0 * (self._squares @ np.exp(-2.0 * logs[:-2])))
        matrix = math.exp(logs[-2]) * _matern(r) + MEAN_VARIANCE
        matrix[np.diag_indices_from(matrix)] += math.exp(logs[-1]) + JITTER
        return matrix, r

    def _fit(self) -> Array:
        """Logarithms of the d lengths, the height and the noise."""
        d = self._x.shape[1]
        usual = np.array([math.log(LENGTH * math.sqrt(d))] * d + [0.0, math.log(NOISE)])
        spread = np.array([SPREADS["length"]] * d + [SPREADS["height"], SPREADS["noise"]])

        def unlikely(logs: Array) -> tuple[float, Array]:
            off = (logs - usual) / spread
            loss, slope = self._minus_log_likelihood(logs)
            return loss + float(off @ off) / 2.0, slope + off / spread

        bounds = [(-3.0, 4.0)] * d + [(-4.0, 4.0), (-12.0, 0.0)]
        found = minimize(unlikely, usual, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        return np.asarray(found.x, np.float64)

    def _minus_log_likelihood(self, logs: Array) -> tuple[float, Array]:
        """Of the known values, but for a constant, and its derivatives (ibid., eq. 5.8 and 5.9)."""
        matrix, r = self._covariance(logs)
        try:
            factor = cholesky(matrix, lower=True)
        except LinAlgError:
            return 1e10, np.zeros_like(logs)
        weights = cho_solve((factor, True), self._y)
        inner = 0.5 * (cho_solve((factor, True), np.eye(len(r))) - np.outer(weights, weights))
        height, noise = math.exp(logs[-2]), math.exp(logs[-1])
        # The derivative of the Matern covariance by the logarithm of a length.
        along = inner * (height * 5.0 / 3.0 * (1.0 + r) * np.exp(-r))
        lengths = np.einsum("ij,ijd->d", along, self._squares) * np.exp(-2.0 * logs[:-2])
        rest = [float((inner * height * _matern(r)).sum()), float(np.trace(inner)) * noise]
        loss = 0.5 * float(self._y @ weights) + float(np.log(np.diag(factor)).sum())
        return loss, np.append(lengths, rest)


def _matern(r: Array) -> Array:
    """Matern 5/2, of the root of 5 times a distance."""
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))

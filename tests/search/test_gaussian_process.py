"""The Gaussian process against plain linear algebra, finite differences and functions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from gs_search.search.gaussian_process import JITTER, MEAN_VARIANCE, Process


def wavy(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(4 * x[:, 0]) + 2 * x[:, 1] * x[:, 2])


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).random((60, 4))


def test_foretells_a_smooth_function_and_knows_what_does_not_matter(points: np.ndarray) -> None:
    process = Process(points, wavy(points))
    others = np.random.default_rng(1).random((200, 4))
    mean, spread = process(others)
    assert np.sqrt(((mean - wavy(others)) ** 2).mean()) < 0.05 * wavy(others).std()
    assert np.mean(np.abs(mean - wavy(others)) < 2 * spread + 1e-3) > 0.9
    assert process.lengths[3] == max(process.lengths)


def test_tells_noise_from_function(points: np.ndarray) -> None:
    noise = np.random.default_rng(2).normal(size=60) * 0.2
    process = Process(points, wavy(points) + noise)
    assert process.noise == pytest.approx(0.2, rel=0.4)
    assert Process(points, wavy(points)).noise < 0.02


def test_is_surer_where_it_has_been(points: np.ndarray) -> None:
    near = Process(points[:20] * 0.3, wavy(points[:20]))
    _, (here, there) = near(np.array([points[0] * 0.3, np.ones(4)]))
    assert here < there


def test_the_textbook_with_the_lengths_that_were_found(points: np.ndarray) -> None:
    x, y = points[:12], wavy(points[:12])
    process, at = Process(x, y), points[50:53]

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm((a[:, None] - b[None]) / process.lengths, axis=2)
        height = np.exp(process._logs[-2])
        root = np.sqrt(5) * distance
        return np.asarray(height * (1 + root + root**2 / 3) * np.exp(-root) + MEAN_VARIANCE)

    inverse = np.linalg.inv(covariance(x, x) + (np.exp(process._logs[-1]) + JITTER) * np.eye(12))
    across = covariance(at, x)
    mean, spread = process(at)
    np.testing.assert_allclose(mean, across @ inverse @ (y - y.mean()) + y.mean(), rtol=1e-6)
    variance = np.diag(covariance(at, at) - across @ inverse @ across.T)
    np.testing.assert_allclose(spread, np.sqrt(variance) * y.std(), rtol=1e-4)


def test_derivatives_of_the_likelihood(points: np.ndarray) -> None:
    process = Process(points[:15], wavy(points[:15]))
    at = np.array([-0.3, 0.2, 0.5, 1.0, 0.3, -3.0])
    numeric = approx_fprime(at, lambda logs: process._minus_log_likelihood(logs)[0], 1e-6)
    np.testing.assert_allclose(process._minus_log_likelihood(at)[1], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [1e-9, 1e-9, 1e-9], [5.0, 5.0 + 1e-15, 5.0]])
def test_values_that_are_all_alike(values: list[float]) -> None:
    process = Process([[0.1], [0.5], [0.5]], values)
    mean, spread = process([[0.3]])
    assert mean[0] == pytest.approx(values[0]) and np.isfinite(spread).all()


def test_one_point_and_the_same_point_twice() -> None:
    assert Process([[0.2, 0.4]], [7.0])([[0.9, 0.9]])[0][0] == pytest.approx(7.0)
    mean, _ = Process([[0.2], [0.2], [0.8]], [1.0, 3.0, 9.0])([[0.2]])
    assert 1.0 < mean[0] < 4.0

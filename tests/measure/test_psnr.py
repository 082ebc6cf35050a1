from __future__ import annotations

import math

import pytest
import torch

from gs_search.measure.psnr import psnr


def test_decibels_of_a_known_error() -> None:
    a = torch.zeros(2, 3, 4, 4)
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-6)  # 2 / 0.2 = 10, 20 log10(10)
    assert psnr(a, a - 0.02) == pytest.approx(40.0, abs=1e-6)
    assert psnr(-torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2)) == 0


def test_each_picture_counts_by_its_own_decibels() -> None:
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    b[0], b[1] = 0.2, 0.02
    assert psnr(a, b) == pytest.approx(30, abs=1e-6)


def test_equal_nan_and_half_precision() -> None:
    a = torch.rand(1, 3, 4, 4)
    assert psnr(a, a) == math.inf
    assert math.isnan(psnr(a, a * torch.nan))
    assert psnr(a.half(), a) > 60


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4))

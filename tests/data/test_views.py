from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from gs_search.data.views import Views


def _ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))


def test_evaluation_view_is_the_centred_square() -> None:
    view = Views(32, seed=0).of(_ramp(300, 100), index=0)
    assert view.shape == (3, 32, 32) and view.dtype == torch.uint8
    red = view[0].float()
    assert 80 < red[:, 0].mean() < 92 and 163 < red[:, -1].mean() < 175  # the middle third
    assert view[1, 0].max() < 5 and view[1, -1].min() > 250  # all of the height


def test_same_size_is_left_alone() -> None:
    image = _ramp(32, 32)
    assert torch.equal(Views(32, 0).of(image, 0), torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_random_views_are_a_pure_function_of_seed_index_and_view() -> None:
    image = _ramp(90, 60)
    first = Views(24, 5).of(image, 3, view=7)
    assert torch.equal(first, Views(24, 5).of(image, 3, view=7))
    others = [Views(24, 6).of(image, 3, 7), Views(24, 5).of(image, 4, 7), Views(24, 5).of(image, 3, 8)]
    assert not any(torch.equal(first, other) for other in others)


def test_random_views_flip_half_of_the_time_and_cover_the_picture() -> None:
    views = [Views(16, 0).of(_ramp(200, 100), 0, view) for view in range(200)]
    flipped = sum(bool(view[0, 0, 0] > view[0, 0, -1]) for view in views)
    assert 70 < flipped < 130
    reds = torch.stack([view[0] for view in views])
    assert reds.min() < 15 and reds.max() > 240
    heights = torch.stack([view[1, -1].float().mean() - view[1, 0].float().mean() for view in views])
    assert heights.min() > 0.8 * 235 and heights.max() <= 255  # crops of 80 to 100 % of the shorter side

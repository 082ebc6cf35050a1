from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid.fid_score import get_activations
from pytorch_fid.inception import InceptionV3

from gs_search.measure.features import inception_features
from gs_search.measure.inception import Inception


def test_features_of_files_equal_pytorch_fid_s(inception: Inception, blobs, tmp_path, capsys) -> None:
    pictures = blobs(5)
    files = []
    for i, picture in enumerate(pictures):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(files[-1])
    expected = get_activations(files, InceptionV3(), num_workers=0)
    np.testing.assert_allclose(inception_features(pictures, model=inception), expected, atol=3e-5)


def test_no_picture_is_dropped_and_cutting_changes_no_bit(inception: Inception, blobs) -> None:
    pictures = blobs(5, px=32)
    whole = inception_features(pictures, model=inception, batch_size=3)
    assert whole.shape == (5, 2048) and whole.dtype == np.float32
    for cuts in ([1, 1, 1, 1, 1], [2, 0, 3], [4, 1]):
        parts = inception_features(iter(pictures.split(cuts)), model=inception, batch_size=3)
        np.testing.assert_array_equal(parts, whole)


def test_pictures_of_several_sizes_keep_their_order(inception: Inception, blobs) -> None:
    small, large = blobs(3, px=32), blobs(1, px=48)
    mixed = inception_features([small[:2], large, small[2:]], model=inception)
    np.testing.assert_allclose(mixed[[0, 1, 3]], inception_features(small, model=inception), atol=3e-5)
    np.testing.assert_allclose(mixed[2:3], inception_features(large, model=inception), atol=3e-5)


def test_bf16_is_near(inception: Inception, blobs) -> None:
    exact = inception_features(blobs(2), model=inception)
    near = inception_features(blobs(2), model=inception, precision="bf16")
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.3
    assert np.corrcoef(near.ravel(), exact.ravel())[0, 1] > 0.999


def test_no_pictures_no_features(inception: Inception) -> None:
    assert inception_features([], model=inception).shape == (0, 2048)
    assert inception_features(torch.empty(0, 3, 8, 8, dtype=torch.uint8), model=inception).shape == (0, 2048)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(1, 3, 8, 8),
        torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(inception: Inception, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 N x 3 x H x W"):
        inception_features(images, model=inception)


def test_threads_change_no_bit(inception: Inception, blobs) -> None:
    alone = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pictures = blobs(10)
        one = inception_features(pictures, model=inception, batch_size=3)
        several = inception_features(pictures, model=inception, batch_size=3, threads=2)
    finally:
        torch.set_num_threads(alone)
    assert np.array_equal(one, several)

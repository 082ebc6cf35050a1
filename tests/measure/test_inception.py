from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pytorch_fid.inception import InceptionV3

from gs_search.measure import inception as module
from gs_search.measure.inception import Inception
from gs_search.measure.inception_weights import read_weights, weights_sha256


@pytest.mark.parametrize(("px", "count"), [(32, 3), (64, 1), (300, 1)])
def test_features_equal_pytorch_fid_s(inception: Inception, blobs, px: int, count: int) -> None:
    pictures = blobs(count, px=px)
    theirs = InceptionV3().eval()
    with torch.inference_mode():
        expected = theirs(pictures.float() / 255)[0].flatten(1)  # torchvision's ToTensor divides by 255
        features = inception(pictures)
    assert features.shape == (count, 2048) and features.dtype == torch.float32
    assert expected.max() > 0.5
    assert torch.allclose(features, expected, atol=3e-5)


def test_the_plain_convolution_gives_the_same_where_the_fused_one_is_missing(
    inception: Inception, blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        fused = inception(blobs(1))
        monkeypatch.setattr(module, "_fused_convolution", lambda: None)
        assert torch.allclose(inception(blobs(1)), fused, atol=3e-5)


def test_weights_are_named_by_their_content(inception: Inception) -> None:
    assert inception.weights_sha256 == weights_sha256(read_weights())
    assert not any(p.requires_grad for p in inception.parameters())


def test_torchvision_and_its_second_are_not_needed() -> None:
    program = "import sys, gs_search.measure.fid; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

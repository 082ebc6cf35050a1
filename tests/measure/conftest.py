"""What the tests of the measures share: a few smooth pictures, and the FID network, loaded once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gs_search.measure.inception import Inception, load_inception


@pytest.fixture(scope="session")
def inception() -> Inception:
    return load_inception()


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Tensor]:
    """``blobs(count, seed=0, px=64)``: uint8 pictures of coloured blobs, which excite Inception."""

    def draw(count: int, seed: int = 0, px: int = 64) -> Tensor:
        coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        smooth = F.interpolate(coarse, size=(px, px), mode="bicubic", align_corners=False)
        return (smooth * 255).clamp(0, 255).to(torch.uint8)

    return draw

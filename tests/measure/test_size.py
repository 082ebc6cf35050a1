from __future__ import annotations

import torch

from gs_search.measure.size import packed_bytes


def test_every_tensor_counts_as_it_is_stored() -> None:
    tensors = {
        "codes": torch.zeros(5, dtype=torch.uint8),
        "codes8": torch.zeros(4, 3, dtype=torch.int8),
        "scale": torch.zeros(4, dtype=torch.float16),
        "norm": torch.zeros(7),
        "view": torch.zeros(100)[::10],  # the elements, not the storage behind them
    }
    assert packed_bytes(tensors) == 5 + 12 + 8 + 28 + 40
    assert packed_bytes({}) == 0

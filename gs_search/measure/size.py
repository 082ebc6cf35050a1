"""Bytes of a packed student."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["packed_bytes"]


def packed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors as stored: codes already packed to their bits, scales and norms included."""
    return sum(t.numel() * t.element_size() for t in tensors.values())

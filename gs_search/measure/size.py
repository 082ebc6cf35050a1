"""Bytes of a packed student."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["packed_bytes", "packed_mb"]


def packed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors as stored: codes already packed to their bits, scales and norms included."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def packed_mb(tensors: Mapping[str, Tensor]) -> float:
    """The objective: ``packed_bytes`` in units of 10^6 bytes."""
    return packed_bytes(tensors) / 1e6

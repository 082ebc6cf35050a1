"""Rounding that lets later weights make up for earlier ones (Frantar et al., GPTQ, ICLR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["round_in_turn"]

BLOCK = 128
"""Rows rounded before their errors are passed on to all rows behind them."""


def round_in_turn(matrix: Tensor, normal: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Round the rows of a weight one after the other, each time refitting the rows behind to the error made.

    Args:
        matrix: U x C_out, the least-squares solution.
        normal: U x U normal matrix that it solves, positive definite, in double precision.
        step: size of one code, for each output (C_out).
        low, high: smallest and largest code.

    Returns:
        U x C_out, every value a code times its step.
    """
    # The upper Cholesky factor of the inverse has what eliminating one row after the other needs.
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(normal)), upper=True).float()
    left, rounded = matrix.clone(), torch.empty_like(matrix)
    for start in range(0, len(matrix), BLOCK):
        block = slice(start, min(start + BLOCK, len(matrix)))
        errors = torch.zeros_like(left[block])
        for row in range(block.start, block.stop):
            rounded[row] = torch.round(left[row] / step).clamp(low, high) * step
            error = (left[row] - rounded[row]) / inverse[row, row]
            errors[row - start] = error
            left[row + 1 : block.stop] -= inverse[row, row + 1 : block.stop, None] * error
        left[block.stop :] -= inverse[block, block.stop :].T @ errors
    return rounded

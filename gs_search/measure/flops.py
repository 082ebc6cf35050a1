"""Multiply-adds of a generator, counted twice: as fvcore counts, and as the published tables count.

fvcore counts one multiply-add as one FLOP, a transposed convolution at its input size (what it truly costs),
and five operations an element for a norm. GAN Slimming and its peers count convolutions only, transposed ones
at their output size: CycleGAN's generator has 49.70 G here and "56.8 G" there.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

__all__ = ["Flops", "count_flops"]


@dataclass(frozen=True)
class Flops:
    """Multiply-adds for one picture."""

    macs: int
    """fvcore's total."""
    macs_conv: int
    """Its convolutions alone."""
    macs_paper: int
    """Convolutions alone, transposed ones at output size: comparable with published tables, not a cost."""

    @property
    def gflops(self) -> float:
        """The objective: fvcore's total in billions."""
        return self.macs / 1e9


def count_flops(module: nn.Module, image_px: int, channels: int = 3) -> Flops:
    """Count one pass over a 1 x channels x image_px x image_px picture.

    The operators that run are counted, not the modules, so that subclasses of convolutions with
    fake-quantised weights count like plain ones. The module is run in evaluation mode and left as it was.
    """
    with warnings.catch_warnings():
        # fvcore scripts and traces with torch.jit, which warns that it is on its way out.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import conv_flop_jit, get_shape

        paper: list[int] = []

        def convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
            weight, y = get_shape(inputs[1]), get_shape(outputs[0])
            paper.append(y[0] * math.prod(weight) * math.prod(y[2:]))
            return cast("Counter[str]", conv_flop_jit(inputs, outputs))

        parameter = next(module.parameters(), torch.empty(0))
        x = torch.zeros(1, channels, image_px, image_px, dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad(), _evaluation(module):
            analysis = FlopCountAnalysis(module, x).set_op_handle("aten::_convolution", convolution)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            by_operator = analysis.by_operator()
    return Flops(int(sum(by_operator.values())), int(by_operator["conv"]), sum(paper))


@contextlib.contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True

"""Measuring a student: what it paints, and what it costs. Trials and full trainings are measured by this alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gs_search.data.images import to_uint8
from gs_search.errors import TrialFailed
from gs_search.measure.features import inception_features
from gs_search.measure.fid import frechet_distance
from gs_search.measure.flops import count_flops
from gs_search.measure.kid import kernel_distance
from gs_search.measure.latency import latency_ms
from gs_search.measure.psnr import psnr
from gs_search.results.record import LayerRow
from gs_search.slimming.layers import slim_layers
from gs_search.trial.assets import paint

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig
    from gs_search.trial.assets import TrialAssets

__all__ = ["Costs", "Seen", "costs", "distances", "look_at"]


@dataclass(frozen=True)
class Seen:
    """A student's pictures, and how far they are from the reference and from the teacher's."""

    fid: float
    kid: float
    psnr_to_teacher: float
    painted: Tensor
    """N x 3 x H x W in [-1, 1]."""

    def figures(self) -> dict[str, float]:
        """Without the pictures."""
        return {"fid": self.fid, "kid": self.kid, "psnr_to_teacher": self.psnr_to_teacher}


def look_at(student: nn.Module, ground: TrialAssets, pictures: Tensor, outputs: Tensor) -> Seen:
    """Measure a student on pictures.

    Args:
        pictures: N x 3 x H x W bytes.
        outputs: the teacher's versions of them, in [-1, 1].

    Raises:
        TrialFailed: it paints what is no picture.
    """
    painted = paint(student, pictures)
    if not torch.isfinite(painted).all():
        raise TrialFailed("nan", "the student paints pictures that are not numbers")
    fid, kid = distances(to_uint8(painted), ground)
    return Seen(fid, kid, psnr(painted, outputs), painted)


def distances(pictures: Tensor, ground: TrialAssets) -> tuple[float, float]:
    """FID and KID of N x 3 x H x W bytes to the study's reference pictures."""
    features = inception_features(pictures, model=ground.inception)
    return frechet_distance(features, ground.reference), kernel_distance(features, ground.reference.features).full


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a student costs, with the names of ``TrialRecord``."""

    gflops: float
    size_mb: float
    """Length of its file."""
    macs: int
    macs_paper: int
    params: int
    latency_ms: float
    layers: tuple[LayerRow, ...]


def costs(student: nn.Module, file: Path, ground: TrialAssets, config: StudyConfig) -> Costs:
    """Measure what needs no pictures.

    Args:
        student: as loaded from ``file``.
    """
    flops = count_flops(student, config.image_px)
    return Costs(
        gflops=flops.macs / 1e9,
        size_mb=file.stat().st_size / 1e6,
        macs=flops.macs,
        macs_paper=flops.macs_paper,
        params=sum(p.numel() for p in student.parameters()),
        latency_ms=latency_ms(student, config.image_px, repeats=config.measure.latency_repeats),
        layers=_layer_rows(ground, student),
    )


def _layer_rows(ground: TrialAssets, student: nn.Module) -> tuple[LayerRow, ...]:
    """Width and bits of each of the teacher's layers in the student; 0 wide where it is gone."""
    kept = slim_layers(student)
    rows = []
    for layer in ground.teacher.graph.layers.values():
        conv = kept.get(layer.name)
        weights, inputs = (conv.weight_quantizer, conv.input_quantizer) if conv is not None else (None, None)
        rows.append(
            LayerRow(
                name=layer.name,
                group=layer.group,
                width=conv.num_outputs if conv is not None else 0,
                full_width=layer.outputs,
                weight_bits=weights.bits if weights is not None else 32,
                activation_bits=inputs.bits if inputs is not None else 32,
            )
        )
    return tuple(rows)

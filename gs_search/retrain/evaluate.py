"""Measuring a student: on the validation pictures while it trains, on the test pictures once at the end.

The test pictures are as many as those of validation, where there are so many, and are compared with the same reference
pictures: a FID depends on both numbers. What they are is a protocol of its own, with an id of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gs_search.data import open_data
from gs_search.data.images import to_uint8
from gs_search.errors import BadInput, DataError, TrialFailed
from gs_search.measure.features import inception_features
from gs_search.measure.fid import frechet_distance
from gs_search.measure.flops import count_flops
from gs_search.measure.kid import kernel_distance
from gs_search.measure.latency import latency_ms
from gs_search.measure.psnr import psnr
from gs_search.slimming.student import student_mb
from gs_search.trial.assets import Groundwork, paint
from gs_search.trial.run import layer_rows

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["Look", "TestPictures", "look_at", "measured"]


@dataclass(frozen=True)
class Look:
    """A student on pictures."""

    fid: float
    kid: float
    psnr_to_teacher: float
    painted: Tensor
    """N x 3 x H x W in [-1, 1]."""

    def to_json(self) -> dict[str, float]:
        return {"fid": self.fid, "kid": self.kid, "psnr_to_teacher": self.psnr_to_teacher}


def look_at(student: nn.Module, ground: Groundwork, pictures: Tensor, outputs: Tensor) -> Look:
    """Measure a student on pictures (N x 3 x H x W bytes) whose teacher's versions are ``outputs``.

    Raises:
        TrialFailed: it paints what is no picture.
    """
    painted = paint(student, pictures)
    if not torch.isfinite(painted).all():
        raise TrialFailed("nan", "the student paints pictures that are not numbers")
    fid, kid = _distances(to_uint8(painted), ground)
    return Look(fid, kid, psnr(painted, outputs), painted)


def _distances(pictures: Tensor, ground: Groundwork) -> tuple[float, float]:
    """FID and KID of N x 3 x H x W bytes."""
    features = inception_features(pictures, model=ground.inception)
    fid = frechet_distance(features, ground.reference)
    return fid, kernel_distance(features, ground.reference.features).full


def measured(student: nn.Module, ground: Groundwork, config: StudyConfig) -> dict[str, Any]:
    """What is measured of a student without pictures, with a trial's names."""
    flops = count_flops(student, config.image_px)
    return {
        "gflops": flops.macs / 1e9,
        "size_mb": student_mb(student, ground.architecture),
        "macs": flops.macs,
        "macs_paper": flops.macs_paper,
        "params": sum(p.numel() for p in student.parameters()),
        "latency_ms": latency_ms(student, config.image_px, repeats=config.measure.latency_repeats),
        "layers": layer_rows(ground, student),
    }


FEWEST = 4
"""Pictures without which KID is not defined."""


class TestPictures:
    """The pictures kept back for the end; opened before a training, so that it does not fail after it.

    Raises:
        DataError: they are gone.
        BadInput: they are not those of the study any more.
    """

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(self, config: StudyConfig, ground: Groundwork) -> None:
        data = open_data(config.data, config.image_px, config.seed)
        protocol = {name: value for name, value in ground.baselines["protocol"].items() if name != "id"}
        if data.describe()["content"] != protocol["data"]["content"]:
            raise BadInput(
                f"{config.data.path or 'data'}: not the pictures that the study was prepared with; put them back as "
                "they were, for the test pictures might be some that were trained on"
            )
        self.pictures: Tensor | None = None
        try:
            source = data.source("test")
        except DataError:  # the study keeps none back
            return
        count = min(config.measure.fid_images, len(source))
        if count < FEWEST:
            return
        self.pictures = torch.stack([source.picture(k) for k in range(count)])
        protocol |= {"generator_split": "test", "pictures": count}
        digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
        self.protocol: dict[str, Any] = {"id": digest[:12], **protocol}

    def measure(self, student: nn.Module, short: Path, ground: Groundwork) -> dict[str, Any] | None:
        """The student beside its trial's student, the teacher and the untranslated input; None without test pictures.

        Args:
            short: file of the trial's student.
        """
        if self.pictures is None:
            return None
        outputs = paint(ground.teacher.network, self.pictures)
        teacher, untouched = _distances(to_uint8(outputs), ground), _distances(self.pictures, ground)
        found = look_at(student, ground, self.pictures, outputs).to_json()
        trial = None
        if short.is_file():
            trial = look_at(ground.load_student(short).to(ground.device), ground, self.pictures, outputs).to_json()
        return {
            "protocol": self.protocol,
            **found,
            "short": trial,
            "teacher": {"fid": teacher[0], "kid": teacher[1]},
            "input": {
                "fid": untouched[0],
                "kid": untouched[1],
                "psnr_to_teacher": psnr(self.pictures.float() / 127.5 - 1.0, outputs),
            },
        }

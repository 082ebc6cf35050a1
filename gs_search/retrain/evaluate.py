"""The test pictures: a student is measured on them once, at the end of its full training.

They are as many as those of validation, where there are so many, and are compared with the same reference pictures: a
FID depends on both numbers. What they are is a protocol of its own, with an id of its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gs_search.data import open_data
from gs_search.data.images import to_uint8
from gs_search.errors import BadInput, DataError
from gs_search.measure.psnr import psnr
from gs_search.results.record import Protocol, TestFigures
from gs_search.trial.assets import TrialAssets, paint
from gs_search.trial.evaluate import distances, look_at

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["TestPictures"]


FEWEST = 4
"""Pictures without which KID is not defined."""


class TestPictures:
    """The pictures kept back for the end; opened before a training, so that it does not fail after it.

    Raises:
        DataError: they are gone.
        BadInput: they are not those of the study any more.
    """

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(self, config: StudyConfig, ground: TrialAssets) -> None:
        data = open_data(config.data, config.image_px, config.seed)
        protocol = {name: value for name, value in ground.baselines.protocol.to_json().items() if name != "id"}
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
        self.protocol = Protocol.from_json({"id": digest[:12], **protocol})

    def measure(self, student: nn.Module, short: Path, ground: TrialAssets) -> TestFigures | None:
        """The student beside its trial's student, the teacher and the untranslated input; None without test pictures.

        Args:
            short: file of the trial's student.
        """
        if self.pictures is None:
            return None
        outputs = paint(ground.teacher.network, self.pictures)
        teacher, untouched = distances(to_uint8(outputs), ground), distances(self.pictures, ground)
        found = look_at(student, ground, self.pictures, outputs).figures()
        trial = None
        if short.is_file():
            trial = look_at(ground.load_student(short).to(ground.device), ground, self.pictures, outputs).figures()
        content = {
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
        return TestFigures.from_json(content)

"""The files for phones' own runtimes, ExecuTorch and Core ML: drafted, proven as far as they can be, described.

They take one picture of one size. Where that is not the study's, pictures for FID come from a twin of the study's size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search.export.build import IntegerModel
from gs_search.export.coreml import check_package, coded_network, import_coremltools, write_package
from gs_search.export.executorch.program import Network, import_executorch, paired_milliseconds, write_program
from gs_search.export.integer_network import integer_network
from gs_search.export.lowering import integer_layers, lower
from gs_search.export.measure import latencies, picture_figures
from gs_search.measure.psnr import psnr
from gs_search.trial.assets import TrialAssets, paint

__all__ = ["DEVICE_FORMATS", "DeviceFiles", "import_runtimes"]

DEVICE_FORMATS = ("executorch", "executorch-float", "coreml")

CHECKED_PICTURES = 4
"""Validation pictures on which every layer is compared."""

EQUAL_DB = 200.0
"""Said of pictures that are equal."""


def import_runtimes(formats: Collection[str]) -> None:
    """Raise BadInput where a format's extra is not installed."""
    if {"executorch", "executorch-float"} & set(formats):
        import_executorch()
    if "coreml" in formats:
        import_coremltools()


class DeviceFiles:
    """The device files of one student.

    Args:
        built: the student in whole numbers; none is needed for ``executorch-float`` alone.
        multiple: divides the sides of all pictures.
        image_px: side of the pictures that the files take.
        place: folder for drafts.
    """

    def __init__(
        self,
        student: nn.Module,
        built: IntegerModel | None,
        ground: TrialAssets,
        *,
        multiple: int,
        image_px: int,
        texts: Mapping[str, str],
        place: Path,
        log: Callable[[str], None],
    ) -> None:
        self.student, self.built, self.ground = student, built, ground
        self.multiple, self.image_px, self.place, self.log = multiple, image_px, place, log
        side = f"1 x 3 x {image_px} x {image_px}"
        self.texts = {**texts, "input": f"{side}, float32, RGB, bytes / 127.5 - 1"}

    def program(self) -> dict[str, Any]:
        """ExecuTorch's file in whole numbers, with the student's scales."""
        from gs_search.export.executorch.delegate import Delegate
        from gs_search.export.executorch.proof import check_constants, check_convolutions

        built = self.built
        assert built is not None
        self.log("ExecuTorch: whole numbers for XNNPACK")
        layers = integer_layers(built.reference.student, built.lowered)
        network = integer_network(built.lowered, layers, built.reference.outputs)
        content = write_program(network, self.image_px, self.texts)
        (self.place / "integer.pte").write_bytes(content)
        self.log("ExecuTorch: layer by layer against the student, and FID")
        delegate = Delegate(content)
        few = self._pictures(CHECKED_PICTURES)
        checks = check_convolutions(delegate, network, built.reference, few)
        painted = self._painted(network, content)
        ground = self.ground
        floats = paint(lower(self.student), ground.validation)
        with built.reference.on_grids() as on_grids:
            of_grids = paint(on_grids, ground.validation)
        integer = sum(one.integer for one in delegate.convolutions)
        proof = {
            **_structure(delegate),
            "integer": integer,
            "expected": len(layers),
            "floats": len(delegate.convolutions) - integer,
            "exceptions": list(built.floats),
            "layers": [check.to_json() for check in checks],
            "tensors_missing": check_constants(delegate, network, self.image_px),
            "psnr": _decibels(painted, floats),
            "psnr_of_grids": _decibels(of_grids, floats),
            "psnr_of_student": _decibels(paint(self.student, ground.validation), floats),
            "says": _says(content, self.texts),
        }
        figures = picture_figures(painted, ground)
        return {
            "format": "executorch",
            "draft": "integer.pte",
            **figures,
            "proof": proof,
            "calibrated": list(built.calibrated),
        }

    def float_program(self) -> dict[str, Any]:
        """ExecuTorch's file in floats, in sub-pixel form."""
        from gs_search.export.executorch.delegate import Delegate

        self.log("ExecuTorch: floats, and their FID")
        network = lower(self.student, multiple=self.multiple)
        content = write_program(network, self.image_px, self.texts)
        (self.place / "float.pte").write_bytes(content)
        painted = self._painted(network, content)
        agreement = _decibels(painted, paint(lower(self.student), self.ground.validation))
        proof = {**_structure(Delegate(content)), "psnr_to_torch": agreement, "says": _says(content, self.texts)}
        figures = picture_figures(painted, self.ground)
        return {"format": "executorch-float", "draft": "float.pte", **figures, "proof": proof}

    def package(self, figures: Mapping[str, float]) -> dict[str, Any]:
        """Core ML's package, converted and read back.

        Args:
            figures: of the float network's pictures, for its own are not known here.
        """
        built = self.built
        assert built is not None
        self.log("Core ML: converted and read back; it is not run here, for that needs macOS")
        network = coded_network(built.lowered, integer_layers(built.reference.student, built.lowered))
        path = self.place / "student.mlpackage"
        write_package(network, self.image_px, path, self.texts)
        proof = check_package(path, network, self.image_px, self.texts)
        return {"format": "coreml", "draft": path.name, **figures, "proof": proof}

    def latencies(self, rounds: int) -> dict[str, Any]:
        """Milliseconds of the programs that were drafted, in turn."""
        drafts = {"integer": self.place / "integer.pte", "float": self.place / "float.pte"}
        present = {name: path for name, path in drafts.items() if path.is_file()}
        self.log(f"ExecuTorch: latency of {len(present)} files, in turn")
        return latencies(present, self.image_px, rounds=rounds, timer=paired_milliseconds)

    def _pictures(self, count: int) -> Tensor:
        """Validation pictures in [-1, 1] of the size that the files take."""
        pictures = self.ground.validation[:count].float() / 127.5 - 1.0
        if pictures.shape[-1] == self.image_px:
            return pictures
        resized = F.interpolate(pictures, size=self.image_px, mode="bilinear", antialias=True)
        return torch.round((resized + 1) * 127.5) / 127.5 - 1.0

    def _painted(self, network: nn.Module, content: bytes) -> Tensor:
        """What a program, or its twin of the study's size, makes of the validation pictures."""
        side = self.ground.validation.shape[-1]
        if side != self.image_px:
            content = write_program(network, side, self.texts)
        return Network(content).pictures(self.ground.validation)


def _structure(delegate: Any) -> dict[str, Any]:
    return {"delegates": list(delegate.delegates), "outside": list(delegate.outside)}


def _says(content: bytes, texts: Mapping[str, str]) -> bool:
    return Network(content).about() == texts


def _decibels(a: Tensor, b: Tensor) -> float:
    return min(psnr(a, b), EQUAL_DB)

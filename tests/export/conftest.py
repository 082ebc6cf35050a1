"""One integer file for all tests of the proof, and one small study: torch's exporter takes seconds, a trial more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from gs_search.results.run_folder import RunFolder
from tests.export.students import PX, pictures, rounded_student


@dataclass(frozen=True)
class Exported:
    """A student with 4-bit weights and 6-bit inputs, and its integer file."""

    student: nn.Module
    built: object
    path: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """CartoonGAN's layout: convolutions that feed convolutions, norms, skips, transposed ones, reversed channels."""
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    import onnx

    from gs_search.export.build import integer_model

    student = rounded_student("cartoongan", weight_bits=4, activation_bits=6)
    built = integer_model(student, pictures(4), multiple=4, image_px=PX)
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    onnx.save(built.model, path)
    return Exported(student, built, path)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A prepared study with one trial, of pictures of 32 px."""
    from gs_search.trial.run import run_trial
    from tests import tiny_study

    config, folder = tiny_study.prepared(tmp_path_factory.mktemp("study"))
    run_trial({"target_gflops_ratio": 0.4, "weight_bits": 4}, config, folder, number=0, seed=5)
    return folder

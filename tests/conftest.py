"""What all tests share: quiet, offline, one thread, and study files to start from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder

# Two computing threads on two busy cores are slower than one; this has to stand before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
for _variable in ("GS_SEARCH_PHOTOS", "GS_SEARCH_CHECKPOINT", "GS_SEARCH_STORAGE"):
    os.environ.pop(_variable, None)

SPACE = """\
parameters:
  target_gflops_ratio: {type: float, low: 0.1, high: 0.9, log: true}
  weight_bits.body: {type: choice, choices: [8, 4]}
  steps: 2
start_points:
  - {target_gflops_ratio: 0.5, weight_bits.body: 8}
"""

STUDY = """\
study: small
space: small_space.yaml
seed: 7
trials: 3
image_px: 32
data: {kind: drawn, train: 16, val: 8, test: 4}
teacher: {kind: shipped}
settings: {batch_size: 2, repair_pictures: 8}
measure: {fid_images: 8}
"""


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Writer of a small study and its space into a fresh folder; returns the path of the study file."""

    def write(study: str = STUDY, space: str = SPACE) -> Path:
        (tmp_path / "small_space.yaml").write_text(space, encoding="utf-8")
        path = tmp_path / "small.yaml"
        path.write_text(study, encoding="utf-8")
        return path

    return write


@pytest.fixture
def small(tmp_path: Path) -> RunFolder:
    """A run folder of three trials that nothing was trained for."""
    from tests.synthetic_run import write_run

    return write_run(tmp_path / "run", trials=3, image_px=32, failures=False)

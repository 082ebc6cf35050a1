"""A study of real trials that take seconds: drawn pictures of 32 pixels, the shipped teacher, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gs_search.results.run_folder import RunFolder
from gs_search.study.config import StudyConfig, load_study
from gs_search.trial.run import prepare

STUDY: dict[str, Any] = {
    "study": "tiny",
    "space": "space.yaml",
    "seed": 1,
    "image_px": 32,
    "data": {"kind": "drawn", "train": 24, "val": 10, "test": 4, "reference": 12, "views": 24},
    "teacher": {"kind": "shipped"},
    "settings": {"steps": 6, "batch_size": 2, "repair_pictures": 8},
    "measure": {"fid_images": 10, "latency_repeats": 1},
}
SPACE = """
parameters:
  target_gflops_ratio: {type: float, low: 0.1, high: 0.9, log: true}
  weight_bits: {type: choice, choices: [8, 4]}
"""


def write(place: Path, **changes: Any) -> Path:
    """Write the study and its space; ``changes`` replace keys of its sections, or sections."""
    sections = {name: value | changes.pop(name, {}) for name, value in STUDY.items() if isinstance(value, dict)}
    (place / "space.yaml").write_text(SPACE)
    path = place / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY | sections | changes, sort_keys=False))
    return path


def prepared(place: Path, **changes: Any) -> tuple[StudyConfig, RunFolder]:
    """The study with what all of its trials share."""
    config, folder = load_study(write(place, **changes)), RunFolder(place / "run")
    folder.create(config)
    prepare(config, folder, lambda line: None)
    return config, folder

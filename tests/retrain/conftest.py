"""A prepared study of 32 px with real trials, whose FID is measured in a few cheap features instead of Inception's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gs_search.retrain.evaluate
import gs_search.trial.assets
import gs_search.trial.run
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from gs_search.trial.run import run_trial
from tests import tiny_study

CHANGES: dict[str, Any] = {
    "data": {"train": 8, "test": 8, "views": 8},
    "settings": {"steps": 2, "learning_rate": 1.0e-3},
    "retrain": {"steps": 8, "looks": 2, "checkpoint_minutes": 0},
}
"""What makes the tiny study one whose full training takes a second or two."""

POINTS = ({"target_gflops_ratio": 0.4, "weight_bits": 4}, {"target_gflops_ratio": 0.2, "weight_bits": 8})


def cheap_features(images: Tensor, *, model: Any = None, threads: int = 1) -> np.ndarray:
    """N x 12: each picture's colours at a size of 2 x 2."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1).numpy()


@pytest.fixture(scope="package")
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (gs_search.trial.assets, gs_search.trial.evaluate):
            patch.setattr(module, "inception_features", cheap_features)
        patch.setattr(gs_search.trial.assets, "load_inception", lambda device: SimpleNamespace(weights_sha256="none"))
        yield


@pytest.fixture(scope="package")
def source(cheap: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two finished trials and one that failed; not to be changed."""
    config, folder = tiny_study.prepared(tmp_path_factory.mktemp("retrain"), **CHANGES)
    for number, point in enumerate(POINTS):
        run_trial(point, config, folder, number=number, seed=5 + number)
    failed = {
        name: read_json(folder.trial(0) / "result.json")[name]
        for name in ("schema", "study", "point", "key", "protocol")
    }
    failed |= {"number": 2, "state": "FAIL", "cause": "nan", "message": "not a number", "objectives": None, "seed": 1}
    write_json(folder.trial(2) / "result.json", failed)
    return folder


@pytest.fixture
def prepared(source: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it. The assets is linked, so that a process loads it once."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(source.path, folder.path, ignore=shutil.ignore_patterns("teacher", "retrain"))
    folder.teacher.symlink_to(source.teacher)
    return folder


@pytest.fixture
def change(prepared: RunFolder) -> Callable[[str, str], None]:
    """Replaces a piece of the study as the run folder has it."""

    def replace(old: str, new: str) -> None:
        text = prepared.resolved_yaml.read_text()
        assert text.count(old) == 1, text
        prepared.resolved_yaml.write_text(text.replace(old, new))

    return replace

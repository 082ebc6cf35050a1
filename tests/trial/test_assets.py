"""What trials share: every kind of teacher and of data leads to the same set of files; bad input leaves none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gs_search.errors import BadInput
from gs_search.measure.fid import Reference, frechet_distance
from gs_search.networks import CartoonGenerator, ResnetGenerator
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import load_study
from gs_search.trial.assets import TrialAssets, _fid_noise, prepare
from tests.data.test_pairs import side_by_side

STUDY = """
study: tiny
space: space.yaml
image_px: 32
data: {data}
teacher: {teacher}
settings: {{steps: 2, batch_size: 2, repair_pictures: 4}}
measure: {{fid_images: 5}}
"""
COUNTS = "train: 8, val: 5, test: 2, reference: 6, views: 8"


def write_photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{index}.png")


def prepared(place: Path, data: str, teacher: str) -> tuple[RunFolder, TrialAssets]:
    (place / "space.yaml").write_text("parameters: {target_gflops_ratio: {type: float, low: 0.1, high: 0.9}}")
    (place / "study.yaml").write_text(STUDY.format(data=data, teacher=teacher))
    config = load_study(place / "study.yaml")
    folder = RunFolder(place / "run")
    folder.create(config)
    prepare(config, folder, lambda line: None)
    return folder, TrialAssets.of(folder, config)


def test_the_noise_of_fid_is_that_of_whole_sets() -> None:
    """Of many independent sets, as nobody has them in a study."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    reference = Reference.from_features(rng.normal(size=(4000, 6)) @ mixing)
    sets = [rng.normal(size=(200, 6)) @ mixing + 0.3 for _ in range(60)]
    true = np.std([frechet_distance(features, reference) for features in sets])
    told = np.mean([_fid_noise(features, reference, seed) for seed, features in enumerate(sets)])
    assert 0.8 * true < told < 1.25 * true


def test_a_teacher_is_trained_where_the_study_asks_for_it(tmp_path: Path) -> None:
    for name in ("trainA", "trainB"):
        write_photos(tmp_path / "pairs" / name, 16)
    data = f"{{kind: folders, path: pairs, {COUNTS}}}"
    folder, ground = prepared(tmp_path, data, "{kind: train, width: 4, blocks: 1, steps: 2}")
    assert (ground.architecture.width, ground.architecture.blocks) == (4, 1)
    assert ground.baselines.protocol.reference_kind == "target"
    real = ground.real(0)
    assert real is not None and real(0, 3).shape == (3, 3, 32, 32)
    assert len(ground.lessons) == 8
    assert not list(folder.teacher.glob(".*")), "a temporary file was left"


def test_a_teacher_is_trained_on_pairs(tmp_path: Path) -> None:
    """It stands in for one that is known by what it has painted alone; FID is that to the painted pictures."""
    side_by_side(tmp_path / "pairs", 24)
    data = f"{{kind: pairs, path: pairs, {COUNTS}}}"
    _, ground = prepared(tmp_path, data, "{kind: train, width: 4, blocks: 1, steps: 60}")
    assert ground.baselines.protocol.reference_kind == "target"
    assert ground.baselines.pictures[0]["taken"] == {"test": 2, "val": 5, "train": 8}
    pictures = ground.validation.float() / 127.5 - 1
    negative = (ground.validation_outputs + pictures).abs().mean()
    assert negative < 0.5 * (ground.validation_outputs - pictures).abs().mean()


def test_a_checkpoint_and_photos_are_judged_by_the_teachers_own_pictures(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 40)
    torch.manual_seed(0)
    generator = CartoonGenerator(8, 1)
    names = {"stem.1": "conv01_1", "stem.2": "in01_1", "down.0": "conv02_1", "down.1": "conv02_2", "down.2": "in02_1"}
    names |= {"down.4": "conv03_1", "down.5": "conv03_2", "down.6": "in03_1", "head.1": "deconv03_1"}
    names |= {"body.0.branch.1": "conv04_1", "body.0.branch.2": "in04_1", "body.0.branch.5": "conv04_2"}
    names |= {"body.0.branch.6": "in04_2", "up.0": "deconv01_1", "up.1": "deconv01_2", "up.2": "in05_1"}
    names |= {"up.4": "deconv02_1", "up.5": "deconv02_2", "up.6": "in06_1"}
    state = {}
    for name, tensor in generator.state_dict().items():
        module, _, parameter = name.rpartition(".")
        kind = {"weight": "scale", "bias": "shift"}[parameter] if names[module].startswith("in") else parameter
        state[f"{names[module]}.{kind}"] = tensor.clone()
    save_file(state, tmp_path / "style.safetensors")
    data = f"{{kind: photos, path: photos, {COUNTS}}}"
    folder, ground = prepared(tmp_path, data, "{kind: checkpoint, path: style.safetensors}")
    baselines = json.loads((folder.teacher / "baselines.json").read_text())
    assert baselines["protocol"]["reference_kind"] == "teacher"
    assert baselines["protocol"]["reference_pictures"] == 6
    assert 100 < baselines["memory"]["trial_mb"] <= baselines["memory"]["preparation_mb"]
    assert baselines["teacher"]["fid"] < baselines["input"]["fid"]
    assert ground.real(0) is None
    with torch.no_grad():
        pictures = ground.validation.float() / 127.5 - 1
        torch.testing.assert_close(ground.validation_outputs, generator(pictures), rtol=0, atol=2e-3)


def test_a_generator_that_fits_no_pictures_of_this_size_is_bad_input(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 40)
    state = ResnetGenerator(8, 1).state_dict()
    save_file(state, tmp_path / "other.safetensors")  # our names without our metadata
    data = f"{{kind: photos, path: photos, {COUNTS}}}"
    with pytest.raises(BadInput, match="not a generator known here"):
        prepared(tmp_path, data, "{kind: checkpoint, path: other.safetensors}")
    assert not (tmp_path / "run" / "teacher" / "baselines.json").exists()

"""A real trial on drawn data, small: shipped teacher, real Inception, real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gs_search.trial.assets
from gs_search.engine.reevaluate import run_again
from gs_search.errors import CheckpointError, TrialFailed
from gs_search.measure.flops import count_flops
from gs_search.results.repeats import place_of, read_repeats, seed_of
from gs_search.results.run_folder import RunFolder
from gs_search.slimming import load_student
from gs_search.study.config import StudyConfig
from gs_search.trial.run import dump_images, prepare, run_trial
from tests import tiny_study

POINT = {"target_gflops_ratio": 0.4, "weight_bits": 4}


class Watched:
    """A data source that writes down which splits are asked for."""

    def __init__(self, data: Any, splits: list[str]) -> None:
        self.data, self.splits = data, splits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def source(self, split: str) -> Any:
        self.splits.append(split)
        return self.data.source(split)

    def target(self, split: str) -> Any:
        self.splits.append(split)
        return self.data.target(split)


class Prepared:
    def __init__(self, folder: RunFolder, config: StudyConfig, splits: list[str]) -> None:
        self.folder, self.config, self.splits = folder, config, splits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    place = tmp_path_factory.mktemp("study")
    splits: list[str] = []
    genuine = gs_search.trial.assets.open_data

    def spy(*arguments: Any) -> Any:
        return Watched(genuine(*arguments), splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gs_search.trial.assets, "open_data", spy)
        config, folder = tiny_study.prepared(place)
    return Prepared(folder, config, splits)


@pytest.fixture(scope="module")
def record(prepared: Prepared) -> dict[str, object]:
    result = run_trial(POINT, prepared.config, prepared.folder, number=0, seed=5)
    return result.to_json()


def test_trap_14_a_search_never_sees_the_test_split(prepared: Prepared, record: dict[str, object]) -> None:
    assert "val" in prepared.splits and "train" in prepared.splits
    assert "test" not in prepared.splits
    assert record["state"] == "COMPLETE"


def test_a_trial_leaves_its_folder(prepared: Prepared, record: dict[str, object]) -> None:
    place = prepared.folder.trial(0)
    names = {path.name for path in place.iterdir()}
    assert names == {"result.json", "curve.csv", "samples.png", "student.safetensors", "log.txt"}
    assert json.loads((place / "result.json").read_text()) == record
    with Image.open(place / "samples.png") as samples:
        assert samples.size == (8 * 32 + 7 * 2, 3 * 32 + 2 * 2) or samples.width >= 8 * 32
    assert (place / "curve.csv").read_text().startswith("step,phase,macs_share,pixel")


def test_the_objectives_are_those_of_the_stored_student(prepared: Prepared, record: dict) -> None:
    student = load_student(prepared.folder.trial(0) / "student.safetensors")
    objectives = record["objectives"]
    assert list(objectives) == ["fid", "gflops", "size_mb"]
    assert objectives["gflops"] == count_flops(student, 32).macs / 1e9
    teacher = json.loads((prepared.folder.teacher / "baselines.json").read_text())["teacher"]
    assert 0.36 <= objectives["gflops"] / teacher["gflops"] <= 0.4
    file = (prepared.folder.trial(0) / "student.safetensors").stat().st_size
    assert objectives["size_mb"] == file / 1e6
    assert {row["weight_bits"] for row in record["layers"]} == {4, 8}
    assert record["parity"]["code_mismatches"] == 0
    assert record["parity"]["max_abs_difference"] <= 1e-5


def test_the_same_seed_gives_the_same_files(prepared: Prepared, record: dict) -> None:
    again = run_trial(POINT, prepared.config, prepared.folder, number=1, seed=5).to_json()
    passing = {"number", "seconds", "peak_memory_mb", "latency_ms", "started"}
    for report in (*again["rungs"], *record["rungs"]):
        report.pop("seconds", None)
    assert {k: v for k, v in again.items() if k not in passing} == {k: v for k, v in record.items() if k not in passing}
    for name in ("student.safetensors", "samples.png", "curve.csv"):
        first, second = (prepared.folder.trial(n) / name for n in (0, 1))
        assert first.read_bytes() == second.read_bytes(), name


def test_a_trial_that_was_killed_goes_on_under_another_number(
    prepared: Prepared, record: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gs_search.trial.run, "CHECKPOINT_EVERY", 1)
    genuine, steps = gs_search.slimming.run.Run.step, []

    def die_at_the_fourth(run: Any) -> Any:
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(run.done)
        return genuine(run)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gs_search.slimming.run.Run, "step", die_at_the_fourth)
        run_trial(POINT, prepared.config, prepared.folder, number=7, seed=5)
    assert len(list(prepared.folder.checkpoints.iterdir())) == 1
    again = run_trial(POINT, prepared.config, prepared.folder, number=8, seed=5).to_json()
    assert again["objectives"] == record["objectives"] and len(again["rungs"]) == len(record["rungs"]) == 1
    first, second = (prepared.folder.trial(n) / "student.safetensors" for n in (0, 8))
    assert first.read_bytes() == second.read_bytes()
    assert list(prepared.folder.checkpoints.iterdir()) == []


def test_another_files_damage_is_not_taken_for_the_checkpoints(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise CheckpointError("weights of the feature network: damaged")

    monkeypatch.setattr("gs_search.trial.run.slim_in_rungs", lambda *a, **k: (broken() for _ in range(1)))
    with pytest.raises(CheckpointError, match="feature network"):
        run_trial(POINT, prepared.config, prepared.folder, number=9, seed=5)


def test_a_trial_run_again_has_another_seed_and_is_measured_on_subsets(
    prepared: Prepared, record: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in prepared.folder.trial(0).iterdir()}
    told = run_again(str(prepared.folder.path), {"number": 0, "k": 1})
    place = place_of(prepared.folder, 0, 1)
    again = json.loads((place / "result.json").read_text())
    assert again["seed"] == seed_of(1, record["key"], 1) and again["point"] == record["point"]
    assert again["objectives"]["fid"] != record["objectives"]["fid"]
    assert again["objectives"]["gflops"] == record["objectives"]["gflops"]
    assert told["state"] == "COMPLETE"
    assert (told["fid"], told["first"]) == (again["objectives"]["fid"], record["objectives"]["fid"])
    assert {path: path.read_bytes() for path in before} == before and list(prepared.folder.checkpoints.iterdir()) == []
    subsets = json.loads((place / "subsets.json").read_text())
    assert (subsets["pictures"], len(subsets["fid"])) == (5, 20) and len(set(subsets["fid"])) > 10
    monkeypatch.setattr("gs_search.trial.run.run_trial", lambda *a, **k: pytest.fail("it is trained already"))
    (place / "subsets.json").unlink()
    assert run_again(str(prepared.folder.path), {"number": 0, "k": 1}) == told
    assert json.loads((place / "subsets.json").read_text()) == subsets
    (found,) = (read_repeats(prepared.folder, r) for r in prepared.folder.results() if r.number == 0)
    assert found.reading.others == (again["objectives"]["fid"],) and found.reading.subsets == (tuple(subsets["fid"]),)


def test_a_trial_run_again_may_fail(prepared: Prepared, record: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def collapse(*_: object, **__: object) -> Any:
        raise TrialFailed("collapse", "all channels were pruned")

    monkeypatch.setattr("gs_search.trial.run.run_trial", collapse)
    told = run_again(str(prepared.folder.path), {"number": 0, "k": 2})
    assert (told["state"], told["cause"], told["message"]) == ("FAIL", "collapse", "all channels were pruned")
    (found,) = (read_repeats(prepared.folder, r) for r in prepared.folder.results() if r.number == 0)
    assert found.failed == 1


def test_pytorch_fids_own_command_agrees(prepared: Prepared, record: dict, tmp_path: Path) -> None:
    counts = dump_images(prepared.folder, tmp_path, [0])
    assert counts == {"reference": 12, "0": 10}
    command = [sys.executable, "-W", "ignore", "-m", "pytorch_fid", str(tmp_path / "0"), str(tmp_path / "reference")]
    run = subprocess.run(
        [*command, "--num-workers", "0", "--device", "cpu"], capture_output=True, text=True, timeout=110
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split("FID:")[1]) == pytest.approx(record["objectives"]["fid"], abs=0.01)


def test_a_failure_has_a_cause_and_a_log(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("gs_search.trial.run.slim_in_rungs", broken)
    with pytest.raises(TrialFailed) as failure:
        run_trial(POINT, prepared.config, prepared.folder, number=2, seed=5)
    assert failure.value.cause == "out_of_memory"
    assert "out_of_memory" in (prepared.folder.trial(2) / "log.txt").read_text()
    assert not (prepared.folder.trial(2) / "result.json").exists()


def test_a_second_preparation_does_nothing(prepared: Prepared) -> None:
    lines: list[str] = []
    prepare(prepared.config, prepared.folder, lines.append)
    assert lines == []

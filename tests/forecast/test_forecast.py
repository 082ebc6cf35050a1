"""The forecast: its arithmetic on numbers made up, and the whole of it on a study as small as can be."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gs_search import cli
from gs_search.errors import GsSearchError
from gs_search.forecast.costs import Costs, preparation_bytes, preparation_seconds, size_of
from gs_search.forecast.forecast import _extremes, extrapolate, forecast, render_forecast, typical_points
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.settings import SlimmingSettings
from gs_search.system.files import read_json, write_json
from tests.conftest import STUDY

Write = Callable[..., Path]


def trial(size: float, fixed: float, slim: float, recover: float, paint: float, **more: Any) -> dict[str, Any]:
    """What ``probe`` writes of a trial at batch 2, on 8 pictures."""
    return {
        "point": {"target_gflops_ratio": size, "weight_bits.body": 8, "steps": 2, **more}, "seconds": 1.0,
        "fixed_seconds": fixed, "step_seconds": {"slim": slim, "recover": recover},
        "picture_seconds": {"paint": paint, "inception": 0.1}, "pictures": 8, "look_pictures": 16, "bytes": 1e6,
    }  # fmt: skip


PREPARED: dict[str, Any] = {
    "seconds": 5.0, "training_seconds": 0.0, "training_steps": 4, "harmless_steps": 15, "paints_reference": False,
    "picture_seconds": {"open": 0.01, "answer": 0.05, "paint": 0.02, "inception": 0.1},
    "few": {"views": 8, "featured": 8, "val": 8, "reference": 8, "real": 8},
    "wanted": {"views": 108, "featured": 108, "val": 28, "reference": 58, "real": 8},
    "bytes": {"lessons": 1e6, "features": 7e6, "validation.npy": 8e3, "real.npy": 1e3, "generator.safetensors": 1e6},
}  # fmt: skip


@pytest.fixture
def config(write_study: Write) -> StudyConfig:
    return load_study(write_study())


def test_a_trial_is_interpolated_by_size(config: StudyConfig) -> None:
    rows = [trial(0.5, 3.0, 0, 0.4, 0.2), trial(0.1, 1.0, 0, 0.2, 0.1)]
    costs = Costs(config, rows, pictures=28)
    half_way = {"target_gflops_ratio": 0.3, "weight_bits.body": 4, "steps": 100}
    # 20 more pictures are painted and looked at by Inception, and 8 more painted after the repair.
    assert costs.parts(half_way) == pytest.approx({"fixed": 2.0, "training": 30.0, "pictures": 20 * 0.25 + 8 * 0.15})
    twice = {**half_way, "batch_size": 4}
    assert costs.parts(twice)["training"] == pytest.approx(60.0)
    assert costs.seconds({**half_way, "steps": 0}) == pytest.approx(8.2)
    assert costs.step("recover", 0.05) == pytest.approx(0.1)
    assert costs.step("recover", 1.0) == pytest.approx(0.2 + 0.25 * 0.5)  # beyond the largest, by the slope


def test_rungs_cost_a_look_each(config: StudyConfig) -> None:
    stopping = config.stopping.model_copy(update={"rungs": (10, 50, 200)})
    point = {"target_gflops_ratio": 0.5, "steps": 100}
    rows = [trial(0.5, 3.0, 0, 0.4, 0.2)]
    plain, rungs = (
        Costs(c, rows, 28).seconds(point) for c in (config, config.model_copy(update={"stopping": stopping}))
    )
    assert rungs - plain == pytest.approx(2 * 16 * 0.2)


def test_the_phases_of_a_proximal_schedule(config: StudyConfig) -> None:
    costs = Costs(config, [trial(0.5, 0, 0.8, 0.4, 0.1, schedule="proximal")], pictures=8)
    point = {"target_gflops_ratio": 0.5, "schedule": "proximal", "slim_fraction": 0.6, "steps": 100}
    assert costs.parts(point)["training"] == pytest.approx(60 * 0.8 + 40 * 0.4)
    # Never measured: before the cut the network has the teacher's size.
    costs = Costs(config, [trial(0.1, 0, 0, 0.2, 0.1), trial(0.6, 0, 0, 0.4, 0.1)], pictures=8)
    assert costs.step("slim", 0.1) == pytest.approx(costs.step("recover", 1.0)) == pytest.approx(0.28)


def test_the_preparation(config: StudyConfig) -> None:
    costs = Costs(config, [trial(0.5, 3.0, 0, 0.4, 0.2)], pictures=28)
    pictures = 100 * 0.06 + 20 * (0.01 + 0.02 + 0.2) + 50 * 0.11
    harmless = 4 * 15 * 0.4
    assert preparation_seconds(config, PREPARED, costs) == pytest.approx(5 + pictures + harmless)
    painted = {**PREPARED, "paints_reference": True}
    assert preparation_seconds(config, painted, costs) == pytest.approx(5 + pictures + harmless + 1.0)
    trained = config.model_copy(update={"teacher": config.teacher.model_copy(update={"kind": "train", "steps": 104})})
    assert preparation_seconds(trained, {**PREPARED, "training_seconds": 2.0}, costs) == pytest.approx(
        5 + pictures + harmless + 50.0
    )
    assert preparation_bytes(PREPARED) == pytest.approx(108e6 + 28e3 + 1e3 + 1e6)


def test_sizes() -> None:
    assert size_of(SlimmingSettings(target_gflops_ratio=0.3)) == 0.3
    assert size_of(SlimmingSettings()) == 1.0
    assert size_of(SlimmingSettings(sparsity_weight=3.0)) == 0.25


def test_typical_points_are_of_the_space(write_study: Write) -> None:
    space = """\
parameters:
  target_gflops_ratio: {type: float, low: 0.1, high: 0.9, log: true}
  weight_bits: {type: choice, choices: [8, 4]}
  round_to: {type: int, low: 1, high: 9, step: 4}
  sparsity_multiplier: {type: float, low: 0.5, high: 1.5, step: 0.25}
  style_weight: {type: float, low: 1, high: 2, when: {weight_bits: 4}}
  steps: 7
"""
    config = load_study(write_study(space=space))
    points = typical_points(config)
    assert len(points) >= 100 and points == typical_points(config)
    assert not any(config.space.check_point(point) for point in points)
    assert {point["round_to"] for point in points} == {1, 5, 9}
    smallest, largest, middle = (point["target_gflops_ratio"] for point in _extremes(config, points))
    assert smallest < 0.11 and largest > 0.85 and 0.2 < middle < 0.45


def tried(**changes: Any) -> dict[str, Any]:
    rows = [trial(0.1, 2.0, 0, 0.2, 0.0), trial(0.9, 2.0, 0, 0.2, 0.0)]
    return {"gpus": 0, "start_seconds": 4.0, "peak_memory_mb": 1000.0, "trials": rows, "problems": [], **changes}


def test_the_whole_study(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gs_search.forecast.forecast.cores", lambda: 4)
    config = config.model_copy(update={"trials": 30, "workers": 2})
    document = extrapolate(config, PREPARED, tried())
    each = 2.0 + 2 * 0.2 + 20 * 0.1
    assert document["trial_seconds"] == {"median": each, "low": each, "high": each}
    assert document["hours"] * 3600 == pytest.approx(document["preparation_seconds"] + 4 + 15 * each, abs=2)
    assert (document["workers"], document["at_once"], document["trials_in_time"]) == (2, 2, None)
    assert document["memory_mb"] == pytest.approx(1000 + 100)
    assert document["disk_mb"] == pytest.approx(109 + 30 + 0.3, abs=0.1)
    crowded = extrapolate(config.model_copy(update={"workers": 16}), PREPARED, tried())
    assert (crowded["workers"], crowded["at_once"]) == (16, 4)  # four cores do no more than four at once
    short = extrapolate(config.model_copy(update={"hours": 0.02}), PREPARED, tried())
    assert short["trials_in_time"] == int((72 - document["preparation_seconds"] - 4) * 2 / each)


def test_a_probe_that_dies_says_so(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = config.model_copy(update={"settings": {**config.settings, "no_such_setting": 1}})
    monkeypatch.setattr("gs_search.forecast.forecast._extremes", lambda *_: [])
    with pytest.raises(GsSearchError, match="probing the study failed: .*no_such_setting"):
        forecast(broken, lambda line: None)


def test_what_is_printed(config: StudyConfig) -> None:
    document = extrapolate(config, PREPARED, tried(problems=["the target cannot be reached"]))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_forecast({**document, "probe_seconds": 30.0}))
    text = console.export_text()
    for part in ("a trial, the median", "4 s (from 4 s to 4 s)", "all 3 trials", "1.1 GB", "at 0.9 of the teacher"):
        assert part in text
    assert (
        "on a core without other work; probed in 30 s" in text and "a probing trial failed: the target cannot" in text
    )


def test_steps_are_timed_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    from gs_search.forecast.probe import _Timed

    times = iter([0.0, 1.0, 1.0, 3.0, 10.0, 14.0])
    timed = _Timed([1, 2], lambda: next(times))  # type: ignore[arg-type]
    monkeypatch.setattr(timed, "_lessons", type("L", (), {"batch": lambda *a: None, "__len__": lambda _: 2})())
    timed.batch([0])
    timed.batch([1])
    timed.progress({"phase": "slim"})  # told of the second step only; the first one was of this phase too
    timed.batch([0])
    timed.progress({"phase": "recover"})
    assert timed.steps == {"slim": [1.0, 2.0], "recover": [4.0]} and len(timed) == 2


def test_the_probe_runs_the_real_code(write_study: Write, tmp_path: Path) -> None:
    """In this process; the next test has it in its own ones."""
    from gs_search.forecast.probe import measure_preparation, measure_trials

    config = load_study(write_study())
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    point = {"target_gflops_ratio": 0.3, "weight_bits.body": 4, "steps": 2}
    write_json(folder.path / "points.json", {"points": [point]})
    lines: list[str] = []
    measure_preparation(config, folder, lines.append)
    measure_trials(config, folder, lines.append)
    prepared, found = (read_json(folder.path / f"{name}.json") for name in ("preparation", "trials"))
    assert prepared["wanted"] == {"views": 16, "featured": 16, "val": 8, "reference": 150, "real": 16}
    assert prepared["few"] == {"views": 8, "featured": 8, "val": 8, "reference": 8, "real": 8}
    (row,) = found["trials"]
    assert row["point"] == point and row["step_seconds"]["slim"] == 0 < row["step_seconds"]["recover"]
    document = extrapolate(config, prepared, found)
    assert document["trial_seconds"]["low"] > 0 and lines[-1] == "a trial of 2 steps at 0.3"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_forecast(
    capsys: pytest.CaptureFixture[str], write_study: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a study with real networks; nothing is left behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("gs_search.engine.ray.local.LONGEST_SCRATCH", 1000)
    path = write_study(STUDY.replace("fid_images: 8", "fid_images: 12").replace("val: 8", "val: 12"))
    assert cli.main(["check", str(path), "--forecast", "--json"]) == 0
    output, error = capsys.readouterr()
    document = json.loads(output)["forecast"]
    assert document["trials"] == 3 and [round(probe["size"], 1) for probe in document["probes"]][1] == 0.9
    assert document["problems"] == [] and len(document["probes"]) >= 2
    assert all(probe["fixed"] > 0 and probe["training"] > 0 and probe["pictures"] > 0 for probe in document["probes"])
    assert 0.5 < document["trial_seconds"]["low"] <= document["trial_seconds"]["high"] < 60
    assert 400 < document["memory_mb"] < 4000 and 10 < document["disk_mb"] < 100
    assert "a miniature of the study: the teacher's answers" in error and "a trial of 2 steps at 0.1" in error
    assert list(scratch.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["scratch", "small.yaml", "small_space.yaml"]

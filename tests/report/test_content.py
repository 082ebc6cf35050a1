"""What a report says, against brute force and hand-made files: front, cost, times, curves, importance, pictures."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

from gs_search.report.content import Content, gather
from gs_search.report.curves import read_curves, terms_of
from gs_search.report.importance import parameter_importance
from gs_search.report.pictures import Samples, read_samples
from gs_search.report.progress import Spent, hypervolume_series
from gs_search.report.timeline import pack, trial_times
from gs_search.results.pareto import dominates, hypervolume
from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import open_study, quiet
from gs_search.study.space import Parameter, SearchSpace
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import FIRST_START, GUTTER, TEACHER, change, objectives, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("content") / "run", image_px=32)


@pytest.fixture(scope="module")
def content(folder: RunFolder) -> Content:
    return gather(folder)


def test_the_front_is_what_nothing_dominates(folder: RunFolder, content: Content) -> None:
    points = objectives(folder)
    expected = {n for n, a in points.items() if not any(dominates(b, a) for b in points.values())}
    assert {student.number for student in content.front} == expected
    assert [s.gflops for s in content.students] == sorted(s.gflops for s in content.students)
    assert sum(student.is_knee for student in content.students) == 1
    assert all(student.on_front for student in content.students if student.is_knee)


def test_faithful_is_the_smallest_within_the_noise(content: Content) -> None:
    limit = TEACHER["fid"] + 2 * 1.9
    inside = [student for student in content.front if student.fid <= limit]
    assert content.faithful is not None
    assert content.faithful.size_mb == min(student.size_mb for student in inside)


def test_bits_skip_layers_that_vanished(small: RunFolder) -> None:
    layers = read_json(small.trial(0) / "result.json")["layers"]
    for layer in layers:
        if layer["group"] == "body":
            layer["weight_bits"] = 4
    layers[3] |= {"width": 0, "weight_bits": 32}
    change(small, 0, layers=layers)
    student = next(student for student in gather(small).students if student.number == 0)
    assert student.bits("weight_bits") == "8-8-4-8-8"
    assert student.bits("activation_bits") == "8"
    kept, full = sum(layer["width"] for layer in layers), sum(layer["full_width"] for layer in layers)
    assert student.width_share == pytest.approx(kept / full)


def test_the_front_comes_first_and_the_nearest_to_it_next(content: Content) -> None:
    front = [student.number for student in content.front]
    assert list(content.wanted[: len(front)]) == front
    assert sorted(content.wanted) == sorted(student.number for student in content.students)
    place = {student.number: np.array([student.fid, math.log(student.gflops), math.log(student.size_mb)])
             for student in content.students}  # fmt: skip
    members = np.array([place[number] for number in front])
    span = members.max(axis=0) - members.min(axis=0)
    distance = {n: min(float((((p - m) / span) ** 2).sum()) for m in members) for n, p in place.items()}
    others = [distance[number] for number in content.wanted[len(front) :]]
    assert others == sorted(others)


# --- cost


def test_hypervolume_follows_brute_force() -> None:
    dice = np.random.default_rng(3)
    reference = (1.0, 2.0, 3.0)
    points = dice.uniform(0, 1.2, (60, 3)) * reference
    points[7] = points[3]  # the same point twice gains nothing
    trials = [
        Spent(number=n, seconds=float(n % 5), objectives=None if n % 11 == 5 else tuple(p))
        for n, p in enumerate(points)
    ]
    series = hypervolume_series(trials, reference)
    for count, gain in enumerate(series, start=1):
        known = [trial.objectives for trial in trials[:count] if trial.objectives is not None]
        assert gain.hypervolume == pytest.approx(hypervolume(known, reference) / 6.0, abs=1e-12)
        assert gain.trials == count and gain.seconds == sum(trial.seconds for trial in trials[:count])
    assert series[7].gained == 0 and series[5].gained == 0
    assert sum(gain.gained for gain in series) == pytest.approx(series[-1].hypervolume)


def test_cost_counts_in_the_order_of_the_ends_and_answers_from_the_record_are_free(small: RunFolder) -> None:
    change(small, 0, seconds=100.0, started="2026-11-23T10:00:00+00:00")
    change(small, 1, seconds=10.0, started="2026-11-23T10:00:00+00:00")
    change(small, 2, seconds=30.0, started="2026-11-23T10:00:10+00:00")
    twin = read_json(small.trial(1) / "result.json")
    write_json(small.trial(3) / "result.json", twin | {"number": 3, "duplicate_of": 1})
    write_json(small.trial(4) / "result.json", twin | {"number": 4, "warm_start": "before:9"})
    content = gather(small)
    assert [(gain.number, gain.seconds) for gain in content.gains] == [
        (1, 10.0), (2, 40.0), (3, 40.0), (4, 40.0), (0, 140.0),
    ]  # fmt: skip
    assert [span.number for span in content.spans] == [0, 1, 2]
    assert content.gains[-1].hypervolume == pytest.approx(content.hypervolume)


# --- times


def test_trials_are_packed_on_as_few_workers_as_their_times_allow() -> None:
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    ran = [(0, 0, 60.0), (1, 0, 20.0), (2, 19, 30.0), (3, 48, 5.0), (4, 50, 9.0)]
    times = {number: (begin + timedelta(seconds=start), length) for number, start, length in ran}
    spans = {span.number: span for span in pack(times)}
    assert {number: span.worker for number, span in spans.items()} == {0: 0, 1: 1, 2: 1, 3: 1, 4: 2}
    assert (spans[3].start, spans[3].seconds) == (48.0, 5.0)
    assert pack({}) == ()


def test_starts_that_were_not_noted_come_from_the_database_on_its_own_clock(small: RunFolder) -> None:
    """The database has local times without a zone; the trials that both know tell how far it is off."""
    change(small, 1, state="PRUNED", cause="dominated", objectives=None, seconds=12.0, started=None)
    change(small, 2, state="FAIL", cause="interrupted", objectives=None, seconds=None, started=None)
    local = FIRST_START.replace(tzinfo=None) + timedelta(hours=7)
    first = read_json(small.trial(0) / "result.json")
    ends = [local + timedelta(seconds=first["seconds"]), local + timedelta(seconds=100), local + timedelta(seconds=500)]
    study = open_study(small.config().study, small.database)
    with quiet():
        for end, state in zip(ends, ("COMPLETE", "PRUNED", "FAIL"), strict=True):
            values = [1.0, 1.0, 1.0] if state == "COMPLETE" else None
            trial = optuna.trial.create_trial(state=optuna.trial.TrialState[state], values=values)
            trial.datetime_start, trial.datetime_complete = local, end
            study.add_trial(trial)
    times = trial_times(small, small.results())
    assert times[0] == (FIRST_START, first["seconds"])
    start, seconds = times[1]
    assert seconds == 12.0 and abs((start - FIRST_START).total_seconds() - 88.0) < 0.01
    assert 2 not in times  # when it ended is when the next run found it
    small.database.write_bytes(b"not a database")
    assert set(trial_times(small, small.results())) == {0}


# --- curves


def test_curves_are_thinned_to_what_a_plot_shows(tmp_path: Path) -> None:
    rows = "".join(f"{step},train,1.0,{1 / step},\n" for step in range(1, 1001))
    (tmp_path / "0.csv").write_text("step,phase,macs_share,pixel,style\n" + rows)
    (curve,) = read_curves({0: tmp_path / "0.csv", 1: tmp_path / "missing.csv"})
    assert curve.steps[0] == 1 and curve.steps[-1] == 1000 and len(curve.steps) <= 61
    assert curve.values["pixel"] == pytest.approx([1 / step for step in curve.steps], rel=1e-4)
    assert terms_of([curve]) == {"pixel": "pixel distance to the teacher"}  # one is constant, one empty


@pytest.mark.parametrize("text", ["", "step,pixel\n", "pixel\n1.0\n", "step,pixel\nten,1.0\n", "\x00\x01"])
def test_a_torn_curve_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "0.csv").write_text(text)
    assert read_curves({0: tmp_path / "0.csv"}) == ()


def test_of_many_curves_the_front_is_read_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("step,pixel\n1,nan\n2,0.5\n")
    paths = dict.fromkeys(range(300), tmp_path / "c.csv")
    curves = read_curves(paths, always=[299, 7])
    assert len(curves) == 60 and {299, 7} <= {curve.number for curve in curves}
    assert curves[0].values["pixel"] == (None, 0.5)
    assert len(read_curves(paths, always=range(100))) == 100


# --- importance

SPACE = SearchSpace(
    parameters=(
        Parameter(name="a", kind="float", low=0.0, high=1.0),
        Parameter(name="b", kind="choice", choices=(8, 4)),
        Parameter(name="c", kind="int", low=1, high=9, when=(("b", (4,)),)),
    ),
    constants={},
)


def drawn_points(count: int) -> list[dict[str, Any]]:
    dice = np.random.default_rng(0)
    points: list[dict[str, Any]] = []
    for _ in range(count):
        point = {"a": float(dice.uniform()), "b": int(dice.choice([8, 4]))}
        points.append(point | ({"c": int(dice.integers(1, 10))} if point["b"] == 4 else {}))
    return points


def test_what_decides_is_important_and_the_rest_is_chance() -> None:
    points = drawn_points(80)
    rankings = parameter_importance(
        points, {"fid": [point["a"] for point in points], "size": [point["b"] for point in points]}, SPACE
    )
    decided = {entry.parameter: entry for entry in rankings["fid"]}
    assert rankings["fid"][0].parameter == "a" and decided["a"].is_clear and decided["a"].share > 0.8
    assert not decided["b"].is_clear and sum(entry.share for entry in decided.values()) == pytest.approx(1.0)
    assert (decided["a"].trials, decided["c"].trials) == (80, sum("c" in point for point in points))
    assert {entry.parameter: entry.is_clear for entry in rankings["size"]}["b"]


def test_few_trials_have_no_ranking_and_one_value_has_no_influence() -> None:
    assert parameter_importance(drawn_points(9), {"fid": [0.0] * 9}, SPACE) == {"fid": ()}
    same = [{"a": 0.5, "b": 8} for _ in range(12)]
    (ranking,) = parameter_importance(same, {"fid": list(map(float, range(12)))}, SPACE).values()
    assert [(entry.share, entry.is_clear) for entry in ranking] == [(0.0, False)] * 3


# --- pictures


def write_noise(path: Path, side: int, columns: int = 8, seed: int = 0) -> Path:
    shape = (3 * side + 2 * GUTTER, columns * (side + GUTTER) - GUTTER, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def weight(samples: Samples) -> int:
    return sum(map(len, samples.students.values()))


def test_the_front_is_lossless_and_the_others_share_the_rest(tmp_path: Path) -> None:
    paths = {n: write_noise(tmp_path / f"{n}.png", 32, seed=n) for n in range(12)}
    whole = read_samples(paths, 32)
    assert whole.lossless and weight(whole) > 12 * 30_000
    found = read_samples(paths, 32, first=[0, 1], budget=350_000)
    assert found.lossless and all(found.students[n].startswith("data:image/png;base64,") for n in (0, 1))
    assert all(found.students[n].startswith("data:image/webp;base64,") for n in range(2, 12))
    assert weight(found) <= 350_000 and found.left_out == 0 and found.columns == 8 and found.side == 32


def test_what_does_not_fit_is_left_out_from_the_end(tmp_path: Path) -> None:
    paths = {n: write_noise(tmp_path / f"{n}.png", 32, seed=n) for n in range(8)}
    found = read_samples(paths, 32, first=[0], budget=130_000)
    kept = list(found.students)
    assert kept == list(range(len(kept))) and 0 < len(kept) < 8
    assert found.lossless and found.left_out == 8 - len(kept) and weight(found) <= 130_000


def test_a_front_that_is_too_heavy_gives_up_its_last_bits_and_says_so(tmp_path: Path) -> None:
    paths = {4: write_noise(tmp_path / "samples.png", 128)}
    found = read_samples(paths, 128, budget=500_000)
    assert not found.lossless and found.students[4].startswith("data:image/webp;base64,")
    assert read_samples({4: tmp_path / "missing.png"}, 128) == Samples(side=128)

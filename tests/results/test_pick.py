"""Picking: the rules against a brute-force oracle, hand-made fronts, what is told and recorded."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from gs_search.cli import main
from gs_search.errors import BadInput, NothingFeasible
from gs_search.results.pareto import knee
from gs_search.results.pick import PICK_FILE, Wish, pick_document, rank, read_pick, save_pick
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import write_json
from gs_search.terminal.pick import pick_table
from tests.job_stand_ins import write_repeat
from tests.synthetic_run import TEACHER, result, write_run

NAMES = ("fid", "gflops", "size_mb")
TIE = 1.959964 * math.sqrt(2) * 1.9


def make(
    path: Path, *points: Sequence[float], constraints: str = "", latencies: Sequence[float | None] = ()
) -> RunFolder:
    """A run folder with one finished trial for each (FID, GFLOPs, MB); the noise of its FIDs is 1.9."""
    folder = write_run(path, trials=0)
    for number, point in enumerate(points):
        changes = {
            "objectives": dict(zip(NAMES, map(float, point), strict=True)),
            "latency_ms": latencies[number] if latencies else 1.0,
        }
        write_json(folder.trial(number) / "result.json", result(number) | changes)
    if constraints:
        name, _, value = constraints.partition(": ")
        text = folder.resolved_yaml.read_text()
        assert f"{name}: null" in text
        folder.resolved_yaml.write_text(text.replace(f"{name}: null", constraints))
    return folder


# A front of five, and a dominated sixth; the teacher has 61.4, 0.4181 and 1.1305, the input an FID of 182.6.
FIVE = [(65, 0.30, 0.50), (68, 0.20, 0.30), (80, 0.10, 0.20), (120, 0.05, 0.15), (170, 0.04, 0.10), (90, 0.11, 0.25)]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make(tmp_path_factory.mktemp("pick") / "run", *FIVE, latencies=[9, 7, 5, 4, 3, 2])


# --- the rules


def brute(points: np.ndarray, rule: str, weights: Sequence[float]) -> tuple[int, ...]:
    """All indices that could be first, by the words of the rule."""
    rows = [tuple(row) for row in points.tolist()]
    front = [
        i
        for i, row in enumerate(rows)
        if all(map(math.isfinite, row))
        and not any(
            all(map(math.isfinite, other)) and all(a <= b for a, b in zip(other, row, strict=True)) and other != row
            for other in rows
        )
    ]
    if not front:
        return ()
    if rule == "best_fid":
        value = {i: rows[i] for i in front}
    elif rule == "cheapest":
        value = {i: (*rows[i][1:], rows[i][0]) for i in front}
    else:
        spans = [(min(rows[i][c] for i in front), max(rows[i][c] for i in front)) for c in range(points.shape[1])]
        value = {
            i: round(
                sum(
                    weight * ((rows[i][c] - low) / (high - low)) ** 2
                    for c, ((low, high), weight) in enumerate(zip(spans, weights, strict=True))
                    if high > low
                ),
                9,
            )
            for i in front
        }
    best = min(value.values())
    return tuple(i for i in front if value[i] == best)


def test_rules_are_brute_force_on_a_thousand_sets_with_ties() -> None:
    dice = np.random.default_rng(0)
    for turn in range(1000):
        shape = (int(dice.integers(0, 12)), 1 + turn % 3)
        points = dice.integers(0, 5, shape).astype(float) * dice.choice([0.125, 1, 1000], shape[1])
        points[dice.random(shape) < 0.03] = dice.choice([math.nan, math.inf])
        weights = dice.integers(0, 4, shape[1]).astype(float)
        for rule in ("knee", "best_fid", "cheapest", "weights"):
            factors = weights if rule == "weights" else np.ones(shape[1])
            order = rank(points, rule, weights=weights if rule == "weights" else None)
            expected = brute(points, rule, factors.tolist())
            assert (order[:1] == []) is (expected == ())
            assert not order or order[0] in expected, (points, rule, weights)
            if rule == "knee" and order:
                assert order[0] == knee(points)
            assert len({tuple(points[i]) for i in order}) == len(order)


def test_equal_weights_are_the_knee_and_one_weight_is_its_objective() -> None:
    dice = np.random.default_rng(1)
    for _ in range(50):
        points = dice.random((9, 3))
        assert rank(points, "weights", weights=[2, 2, 2]) == rank(points, "knee")
        for column, weights in enumerate(np.eye(3)):
            assert rank(points, "weights", weights=weights)[0] == int(points[:, column].argmin())


def test_the_scale_is_that_of_the_whole_front() -> None:
    """Scaled to the whole front the two in its middle are (0.4, 0.4) and (0.5, 0.35), else (0, 1) and (1, 0)."""
    whole = [[0, 100], [4, 40], [5, 35], [10, 0]]
    assert rank(whole[:3], "weights", weights=[1, 1])[0] == 1
    assert rank(whole[1:3], "weights", weights=[1, 2], scale=whole) == [0, 1]
    assert rank(whole[1:3], "weights", weights=[1, 4], scale=whole) == [1, 0]
    assert rank(whole[1:3], "weights", weights=[1, 2]) == [1, 0]


# --- hand-made fronts


def chosen(folder: RunFolder, **wish: Any) -> int:
    return int(pick_document(folder, Wish(**wish))["trial"])


def test_an_empty_front(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=0)
    with pytest.raises(NothingFeasible, match="no finished trial"):
        pick_document(folder, Wish())


def test_one_point(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", (70, 0.2, 0.3))
    for wish in ({}, {"max_mb": 0.3}, {"max_fid": 70.0}, {"weights": {"fid": 1.0}}, {"trial": 0}):
        document = pick_document(folder, Wish(**wish))
        assert (document["trial"], document["runners_up"], document["steps"], document["chance"]) == (0, [], [], None)
        assert document["warnings"] == [] and len(document["why"]) == 2
    assert pick_document(folder, Wish())["why"][0] == "Trial 0 is the only student on the front."
    Console(file=io.StringIO()).print(pick_table(document))


def test_all_tied(tmp_path: Path) -> None:
    """Equal in everything: the first stands for all. Equal in FID but for noise: said so."""
    folder = make(tmp_path / "same", *[(70, 0.2, 0.3)] * 4)
    assert chosen(folder) == chosen(folder, max_mb=1) == chosen(folder, max_fid=90) == 0
    folder = make(tmp_path / "near", (70, 0.2, 0.2), (69, 0.25, 0.25), (68, 0.3, 0.3))
    document = pick_document(folder, Wish(max_gflops=1))
    assert document["trial"] == 2 and document["chance"]["tie"] and all(one["tie"] for one in document["runners_up"])
    assert document["chance"]["margin"] == pytest.approx(TIE)
    assert "a tie, noise of the pictures alone explains 5.3" in document["chance"]["text"]
    assert document["warnings"] == [
        "trial 1 ties with it in FID at 83 % of the GFLOPs and 83 % of the MB",
        "trial 0 ties with it in FID at 67 % of the GFLOPs and 67 % of the MB",
    ]


def test_infeasible_students_are_never_picked(tmp_path: Path) -> None:
    folder = make(tmp_path / "some", *FIVE, constraints="max_gflops: 0.15")
    for wish in ({}, {"max_mb": 9}, {"max_fid": 100.0}, {"weights": {"fid": 1.0}}):
        assert chosen(folder, **wish) not in (0, 1)
    assert chosen(folder, max_mb=9) == 2
    with pytest.raises(NothingFeasible, match=r"trial 0 misses a constraint.*\(max_gflops is 0.15, it has 0.3\)"):
        chosen(folder, trial=0)
    folder = make(tmp_path / "none", *FIVE, constraints="max_gflops: 0.01")
    with pytest.raises(NothingFeasible, match="none of 6 students keeps the constraints; trial 4 comes nearest"):
        chosen(folder)


def test_by_hand(five: RunFolder) -> None:
    # Scaled to the front: (0, 1, 1), (.03, .62, .5), (.14, .23, .25), (.52, .04, .13), (1, 0, 0).
    assert chosen(five) == 2
    assert chosen(five, max_gflops=0.2) == 1 and chosen(five, max_gflops=0.199) == 2
    assert chosen(five, max_mb=0.15) == 3
    assert chosen(five, max_gflops=0.25, max_mb=0.2) == 2
    assert chosen(five, max_fid=80) == 2 and chosen(five, max_fid="teacher + 10") == 1
    assert chosen(five, max_fid=1000) == 4
    assert chosen(five, max_fid=100, max_gflops=0.25) == 1, "with a budget: the best FID, not the cheapest"
    assert chosen(five, weights={"fid": 1.0}) == 0 and chosen(five, weights={"size_mb": 3.0}) == 4
    assert chosen(five, weights={"fid": 40.0, "gflops": 1.0, "size_mb": 1.0}) == 1
    assert chosen(five, weights={"fid": 1.0}, max_mb=0.3) == 1
    assert chosen(five, trial=5) == 5


def test_latency_may_take_what_is_not_on_the_front(five: RunFolder) -> None:
    document = pick_document(five, Wish(max_latency_ms=3.5))
    assert document["trial"] == 5 and "within 3.5 ms a picture" in document["why"][0]
    assert document["warnings"] == ["trial 2 is better in FID, GFLOPs and MB at once"]
    assert [one["number"] for one in document["runners_up"]] == [4]


def test_latency_that_was_not_measured(tmp_path: Path) -> None:
    folder = make(tmp_path / "some", *FIVE, latencies=[None, 7, None, None, None, None])
    assert chosen(folder, max_latency_ms=7) == 1
    with pytest.raises(NothingFeasible, match=r"trial 1 comes nearest \(max_latency_ms is 6, it has 7\)"):
        chosen(folder, max_latency_ms=6)
    folder = make(tmp_path / "none", *FIVE, latencies=[None] * 6)
    with pytest.raises(NothingFeasible, match="no trial has a measured latency"):
        chosen(folder, max_latency_ms=6)


def test_the_nearest_miss_has_numbers(five: RunFolder) -> None:
    with pytest.raises(NothingFeasible) as error:
        chosen(five, max_fid="teacher+5", max_mb=0.29)
    assert str(error.value).endswith(
        "no student among 6 within 0.29 MB, with an FID of at most 66.4; "
        "trial 1 comes nearest (max_fid is 66.4, it has 68; max_mb is 0.29, it has 0.3)"
    )


def test_budgets_are_the_best_inside_by_brute_force(tmp_path: Path) -> None:
    dice = random.Random(2)
    points = [(dice.randint(60, 90), dice.randint(1, 8) / 10, dice.randint(1, 8) / 10) for _ in range(40)]
    folder = make(tmp_path / "run", *points)
    for gflops, size in itertools.product((0.2, 0.4, 0.6), repeat=2):
        inside = [point for point in points if point[1] <= gflops and point[2] <= size]
        if inside:
            assert points[chosen(folder, max_gflops=gflops, max_mb=size)] == min(inside)
    for fid in (62, 70, 75):
        good = [point for point in points if point[0] <= fid]
        assert points[chosen(folder, max_fid=fid)] == min(good, key=lambda point: (*point[1:], point[0]))


# --- what is told


def test_why_is_two_sentences(five: RunFolder) -> None:
    second = (
        "It has 24 % of the teacher's GFLOPs and 18 % of its MB, at an FID of 80.0: 18.6 above the teacher's, "
        "102.6 below that of the input left as it is."
    )
    for wish, first in (
        ({}, "Trial 2 is the most balanced of 5 students on the front: the nearest to the best FID, the fewest GFLOPs "
         "and the fewest MB, each scaled to 0..1 on the front."),
        ({"max_gflops": 0.1, "max_mb": 9.0}, "Trial 2 is the one with the best FID of 3 students within 0.1 GFLOPs "
         "and 9 MB."),
        ({"max_fid": "teacher+20"}, "Trial 2 is the cheapest of 3 students with an FID of at most 81.4 (teacher+20): "
         "it needs the fewest GFLOPs."),
        ({"trial": 2}, "Trial 2 is the one that was asked for."),
    ):  # fmt: skip
        assert pick_document(five, Wish(**wish))["why"] == [first, second]  # type: ignore[arg-type]


def test_the_price_of_the_next_step(five: RunFolder) -> None:
    document = pick_document(five, Wish())
    assert [step["text"] for step in document["steps"]] == [
        "2.0 times the GFLOPs and 50 % more MB buy 12.0 FID less (trial 1)",
        "40.0 FID more buys 50 % fewer GFLOPs and 25 % fewer MB (trial 3)",
    ]
    assert [step["towards"] for step in document["steps"]] == [["fid"], ["gflops", "size_mb"]]
    assert document["steps"][1]["change"] == {"fid": 40.0, "gflops": 0.5, "size_mb": pytest.approx(0.75)}
    texts = [step["text"] for step in pick_document(five, Wish(trial=1))["steps"]]
    assert texts[0] == "50 % more GFLOPs and 67 % more MB buy 3.0 FID less (a tie) (trial 0)"
    assert "for nothing (trial 2)" in pick_document(five, Wish(trial=5))["steps"][0]["text"]


def test_runners_up_and_chance(five: RunFolder) -> None:
    document = pick_document(five, Wish())
    assert [one["number"] for one in document["runners_up"]] == [3, 1, 4]
    first = document["runners_up"][0]
    assert (first["fid_gap"], first["tie"]) == (40, False)
    assert document["chance"]["text"] == (
        "the FID of the runner-up, trial 3, is 40.0 higher: more than the 5.3 that noise of the pictures explains"
    )


def test_worse_than_doing_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", (182.6, 0.1, 0.1), (70, 0.2, 0.2))
    assert pick_document(folder, Wish(max_mb=0.1))["warnings"] == [
        "its FID is no better than that of the input left as it is (182.6)"
    ]


def test_other_seeds_are_heard(tmp_path: Path) -> None:
    """By the search trial 1 wins the budget by 6; over other seeds it is far behind."""
    folder = make(tmp_path / "run", (76, 0.1, 0.1), (70, 0.2, 0.2))
    for k, more in enumerate((0.0, 0.5, 1.0), 1):
        write_repeat(folder, 0, k, 76 + more)
        write_repeat(folder, 1, k, 90 + more)
    document = pick_document(folder, Wish(max_gflops=1))
    assert document["trial"] == 1 and document["repeats"]["mean"] == 90.5
    assert document["chance"]["seeds"] and document["chance"]["fid_gap"] == pytest.approx(-14)
    assert document["warnings"][-1] == "by the mean FIDs over other seeds the choice would be trial 0"
    document = pick_document(folder, Wish(max_fid=72))
    assert document["warnings"][-1] == "over other seeds none of these 1 students has a mean FID of at most 72"
    stream = io.StringIO()
    Console(file=stream, width=100).print(pick_table(document))
    assert "90.5 ± 1.2 (3)" in stream.getvalue()


# --- what is asked for


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"weights": {"mb": 1.0}}, "mb: no such objective; there are fid, gflops, size_mb"),
        ({"weights": {"fid": 0.0}}, "at least one of them above 0"),
        ({"weights": {"fid": -1.0, "gflops": 2.0}}, "numbers from 0 on"),
        ({"weights": {"fid": math.nan}}, "numbers from 0 on"),
        ({"max_fid": "teacher-3"}, "teacher\\+10, not teacher-3"),
        ({"max_gflops": math.inf}, "--max-gflops: must be a number above 0, not inf"),
        ({"max_latency_ms": 0.0}, "--max-latency-ms"),
        ({"trial": 1, "max_mb": 2.0}, "give the one or the others"),
    ],
)
def test_wishes_that_make_no_sense(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Wish(**wish)


def test_trials_that_cannot_be_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=6)
    with pytest.raises(BadInput, match=r"trial 5 left no student \(FAIL, nan\)"):
        pick_document(folder, Wish(trial=5))
    with pytest.raises(BadInput, match="has no trial 77"):
        pick_document(folder, Wish(trial=77))


# --- what is recorded


def test_saved_and_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", *FIVE)
    with pytest.raises(BadInput, match="nothing has been picked yet; choose with `gs-search pick"):
        read_pick(folder)
    path = save_pick(folder, pick_document(folder, Wish(max_gflops=0.2)))
    assert path == folder.path / PICK_FILE and str(folder.path) not in path.read_text()
    found = read_pick(folder)
    assert (found["schema"], found["trial"], found["rule"], found["options"]) == (1, 1, "best_fid", {"max_gflops": 0.2})
    assert found["objectives"] == dict(zip(NAMES, FIVE[1], strict=True)) and found["saved"].endswith("+00:00")
    save_pick(folder, pick_document(folder, Wish()))
    assert read_pick(folder)["trial"] == 2
    for damage, message in (
        ({"schema": 9}, "not a choice of this version"),
        ({"trial": 40}, "names trial 40, which is gone"),
        ({"key": "another"}, "which is gone or another one now"),
    ):
        write_json(path, {**found, **damage})
        with pytest.raises(BadInput, match=message):
            read_pick(folder)
    path.write_text("{")
    with pytest.raises(BadInput, match="pick.json: cannot be read"):
        read_pick(folder)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run", *FIVE)
    run = str(folder.path)
    assert main(["pick", run, "--max-fid", "teacher+20", "--json", "--save"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["trial"] == read_pick(folder)["trial"] == 2 and "recorded in" in captured.err
    assert main(["pick", run, "--weights", "fid=40, gflops=1,size_mb=1"]) == 0
    output = capsys.readouterr().out
    assert "pick of quickstart: trial 1" in output and max(map(len, output.splitlines())) <= 120
    assert "--reevaluate 3" in output
    assert main(["pick", run, "--max-gflops", "0.001", "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == 3
    assert "trial 4 comes nearest (max_gflops is 0.001, it has 0.04)" in captured.err
    assert read_pick(folder)["trial"] == 2, "nothing feasible, nothing recorded"
    for wrong in ("--max-fid=x", "--max-fid=-1", "--weights=fid", "--weights=fid=1,fid=2", "--max-mb=0", "--trial=x"):
        assert main(["pick", run, wrong]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_teachers_figures_are_those_of_the_study() -> None:
    assert (TEACHER["fid"], TEACHER["gflops"], TEACHER["size_mb"]) == (61.4, 0.4181, 1.1305)

"""The simulated search: what is learned from a table, the virtual clock, stopping, and the scores, by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import search
from benchmarks.search import cases, curve
from benchmarks.search_clock import History, MemoryDatabase, simulate
from benchmarks.search_ideas import FidRungs, Foretold, ScreeningRungs
from benchmarks.search_policies import IDEAS, POLICIES, RANDOM, WORKERS, Policy, set_up
from benchmarks.search_pool import Pool, nearest_left
from benchmarks.search_process import Process
from benchmarks.search_report import SHARES, comparison, reached
from benchmarks.search_table import study_config, write
from benchmarks.search_world import END, Outcome, Table, World
from gs_search.results.pareto import hypervolume
from gs_search.results.record import Rung, TrialRecord
from gs_search.search.stopping import Rungs
from gs_search.study.config import StudyConfig
from gs_search.study.space import Parameter, SearchSpace

SPACE = SearchSpace(
    parameters=(
        Parameter(name="target_gflops_ratio", kind="float", low=0.1, high=0.9, log=True),
        Parameter(name="distill_weight", kind="float", low=0.0, high=1.0),
    ),
    constants={},
)
BASELINES = {"input": {"fid": 200.0}, "teacher": {"fid": 50.0, "gflops": 1.0, "size_mb": 1.0}}

# --- what is learned


def decibels(ratio: float, weight: float) -> float:
    return 20 + 10 * math.log10(ratio) + 2 * weight * weight


def rows(count: int = 40, noise: float = 0.0) -> list[dict[str, Any]]:
    """A table of a known function; each seed is ``noise`` decibels off it, and its FID 10 times as much."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        ratio, weight = 0.1 * 9 ** rng.random(), rng.random()
        for seed in range(2):
            off = noise * float(rng.normal())
            psnr = decibels(ratio, weight) + off
            costs = {"gflops": ratio, "size_mb": ratio**2}
            early = {"step": 0, "psnr_to_teacher": decibels(ratio, 0.0), **costs, "seconds": 2.0}
            late = {"step": 50, "psnr_to_teacher": psnr - 1, **costs, "seconds": 5.0}
            found.append(
                {
                    "point": number, "seed": seed,
                    "parameters": {"target_gflops_ratio": ratio, "distill_weight": weight},
                    "rungs": [early, late], "psnr_to_teacher": psnr, "seconds": 20.0 + 10 * ratio,
                    "objectives": {"fid": 400.0 - 10 * psnr, **costs},
                }
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.of(rows(noise=0.2), SPACE, BASELINES)


@pytest.fixture(scope="module")
def world(table: Table) -> World:
    return World(table)


def test_a_process_foretells_a_function_and_its_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 3))
    process = Process(x, np.sin(3 * x[:, 0]) + x[:, 1] + 0.1 * rng.normal(size=80))
    others = rng.random((100, 3))
    assert np.abs(process(others) - np.sin(3 * others[:, 0]) - others[:, 1]).mean() < 0.05
    assert process.noise == pytest.approx(0.1, rel=0.35)
    assert process.lengths[2] > 3 * process.lengths[0]


def test_left_out_is_as_if_fitted_without() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((30, 2)), rng.random(30)
    process, kept = Process(x, y), np.arange(30) != 7
    without = Process(x[kept], y[kept], like=process)(x[7])[0]
    assert process.left_out()[7] == pytest.approx(without, rel=0.05)  # scaled by other points


def test_the_truth_is_what_the_table_was_made_of(world: World) -> None:
    for ratio, weight in ((0.2, 0.5), (0.45, 0.1), (0.8, 0.9)):
        point = {"target_gflops_ratio": ratio, "distill_weight": weight}
        true = world.true(point)
        assert true["fid"] == pytest.approx(400 - 10 * decibels(ratio, weight), abs=3)
        assert true["gflops"] == pytest.approx(ratio, rel=1e-2)
        assert true["size_mb"] == pytest.approx(ratio**2, rel=1e-2)
        told = world.outcome(point, 0)
        assert [rung["step"] for rung in told.rungs] == [0, 50]
        assert told.rungs[0]["psnr_to_teacher"] == pytest.approx(decibels(ratio, 0.0), abs=0.1)
        assert [rung["seconds"] for rung in told.rungs] == pytest.approx([2.0, 5.0], rel=1e-2)
        assert told.seconds == pytest.approx(20 + 10 * ratio, rel=0.02)


def test_noise_is_that_of_two_seeds_in_all_columns_at_once(world: World) -> None:
    point = {"target_gflops_ratio": 0.4, "distill_weight": 0.5}
    told = [world.outcome(point, seed) for seed in range(400)]
    late = np.array([outcome.rungs[1]["psnr_to_teacher"] for outcome in told])
    fid = np.array([outcome.objectives["fid"] for outcome in told])
    assert late.std() == pytest.approx(0.2, rel=0.4)  # of 16 pairs of seeds
    assert np.corrcoef(late, fid)[0, 1] < -0.98  # in the table the one is the other
    assert np.std([outcome.rungs[0]["psnr_to_teacher"] for outcome in told]) < 1e-9
    assert world.outcome(point, 3) == world.outcome(point, 3)


def test_a_rugged_truth_differs_from_point_to_point_only(table: Table, world: World) -> None:
    rugged = World(table, rugged=True)
    points = [{"target_gflops_ratio": 0.3 + k / 1000, "distill_weight": 0.5} for k in range(60)]
    off = [math.log(rugged.true(point)["fid"] / world.true(point)["fid"]) for point in points]
    errors = rugged.errors[:, table.column(END, "fid")]
    assert np.std(off) == pytest.approx(float(np.sqrt((errors**2).mean())), rel=0.5)
    assert rugged.true(points[0]) == rugged.true(points[0])


def test_folds_foretell_points_that_they_have_not_seen(world: World) -> None:
    known, guess = world.foretold(2)[world.table.column(END, "fid")]
    assert np.corrcoef(known, guess)[0, 1] > 0.98
    assert not np.allclose(known, guess, atol=1e-4)


def test_failed_rows_and_other_spaces() -> None:
    given = rows(4)
    given[3] = {"point": 1, "seed": 1, "parameters": given[3]["parameters"], "rungs": [], "failed": "nan"}
    found = Table.of(given, SPACE, BASELINES)
    assert np.isnan(found.values).any(axis=2).tolist() == [[False, False], [False, True], [False] * 2, [False] * 2]
    assert found.reference == (300.0, 1.0, 1.0)
    for row in given:
        row["parameters"] = {"sparsity_weight": row["parameters"]["distill_weight"] + 0.01, "distill_weight": 0.5}
    other = Table.of(given, SPACE, BASELINES).space
    assert [(p.name, p.log) for p in other.parameters] == [("distill_weight", False), ("sparsity_weight", True)]


# --- the clock


class Steady:
    """Every trial takes 10 seconds; rung 0 after 1 and rung 50 after 4; what it tells follows from the point."""

    def __init__(self, tells: Callable[[Mapping[str, Any]], tuple[float, float]] = lambda point: (20.0, 0.5)) -> None:
        self.tells = tells

    def outcome(self, point: Mapping[str, Any], seed: int) -> Outcome:
        psnr, gflops = self.tells(point)
        costs = {"psnr_to_teacher": psnr, "gflops": gflops, "size_mb": 0.5}
        told = ({"step": 0, **costs, "seconds": 1.0}, {"step": 50, **costs, "seconds": 4.0})
        return Outcome(told, {"fid": 100.0 - psnr, "gflops": gflops, "size_mb": 0.5}, psnr, 10.0)


def config(**changes: Any) -> StudyConfig:
    return study_config().model_copy(update={"sampler": "random", "space": SPACE, **changes})


def run(rungs: Rungs | None = None, world: Any = None, **options: Any) -> tuple[History, MemoryDatabase]:
    database = options.pop("database", None) or MemoryDatabase(config())
    given = {"steps": (), "workers": 2, "seconds": 35.0, **options}
    return simulate(world or Steady(), database, rungs or Rungs("off", 0.5), **given), database


def test_workers_and_the_budget() -> None:
    history, database = run()
    assert [(f.clock, f.number) for f in history.finished] == [(10, 0), (10, 1), (20, 2), (20, 3), (30, 4), (30, 5)]
    assert history.started == 8
    assert len(database.running()) == 2  # cut off by the end of the budget
    assert len(run(workers=3, seconds=40.0)[0].finished) == 12
    assert run(workers=1, seconds=9.9)[0].finished == []


def test_a_trial_that_is_stopped_takes_its_seconds_only() -> None:
    # One worker; the first trial is the best, the others are dominated by it at rung 0.
    near = iter([30.0] + [20.0] * 100)
    history, database = run(
        Rungs("pareto", 0.5), Steady(lambda point: (next(near), 0.5)), workers=1, steps=(0, 50), seconds=15.5
    )
    assert [f.clock for f in history.finished] == [10.0]
    assert history.stopped == {0: 5}  # at 11, 12, 13, 14 and 15
    states = [trial.state.name for trial in database.trials()]
    assert states == ["COMPLETE", *["PRUNED"] * 5, "RUNNING"]
    assert database.results[1].cause == "dominated" and database.results[1].seconds == 1.0


def test_rungs_that_a_policy_does_not_have_are_passed_over() -> None:
    near = iter([30.0] + [20.0] * 100)
    history, _ = run(
        Rungs("pareto", 0.5), Steady(lambda point: (next(near), 0.5)), workers=1, steps=(50,), seconds=19.0
    )
    assert history.stopped == {50: 2}


def test_nobody_is_stopped_within_the_margin_or_where_he_is_cheaper() -> None:
    close = iter([30.0, 29.6, 30.0, 29.6])
    history, _ = run(
        Rungs("pareto", 0.5), Steady(lambda point: (next(close), 0.5)), workers=1, steps=(0,), seconds=25.0
    )
    assert history.stopped == {} and len(history.finished) == 2
    cheaper = iter([(30.0, 0.5), (20.0, 0.4), (20.0, 0.3)])
    history, _ = run(Rungs("pareto", 0.5), Steady(lambda point: next(cheaper)), workers=1, steps=(0,), seconds=25.0)
    assert history.stopped == {} and len(history.finished) == 2


def test_a_point_that_is_known_is_answered_without_a_clock() -> None:
    database = MemoryDatabase(config())
    for _ in range(3):
        database.enqueue({"target_gflops_ratio": 0.5, "distill_weight": 0.5})
    history, database = run(database=database, workers=1)
    assert history.answered == 2 and len(history.finished) == 3
    assert [f.number for f in history.finished] == [0, 3, 4]


def test_an_oracle_finds_at_once_what_it_knows(world: World) -> None:
    database = MemoryDatabase(config())
    best = [{"target_gflops_ratio": r, "distill_weight": 1.0} for r in (0.1, 0.3, 0.6, 0.9)]
    for point in best:
        database.enqueue(point)
    seconds = 2 * 29.5
    history, _ = run(database=database, world=world, seconds=seconds)
    true = [list(world.true(f.point).values()) for f in history.finished]
    assert len(true) == 4
    marks = [(f.clock / seconds, list(world.true(f.point).values())) for f in history.finished]
    end = curve(marks, world.table.reference, Policy(sampler="random"))[-1]
    exact = hypervolume([list(world.true(point).values()) for point in best], world.table.reference) / 300
    assert end == pytest.approx(exact, abs=1e-6)
    random, _ = run(world=world, seconds=seconds)
    assert hypervolume([list(world.true(f.point).values()) for f in random.finished], world.table.reference) / 300 < end


TWICE = ("TPE, stopping", "surrogate", "TPE, FID foretold")


@pytest.mark.parametrize("name", [*POLICIES, *IDEAS, *WORKERS])
def test_every_policy_runs_and_repeats_itself(world: World, name: str) -> None:
    policy = {**POLICIES, **IDEAS, **WORKERS}[name]
    seconds = 60.0 if policy.sampler == "gp" else 160.0  # before and after the first proposals of a model
    histories = []
    for _ in range(2 if name in TWICE else 1):
        database, rungs = set_up(policy, config(), SPACE, 3, (300.0, 1.0, 1.0))
        steps = tuple(step for step in policy.rungs if step in world.table.steps)
        histories.append(
            simulate(world, database, rungs, steps=steps, workers=policy.workers, seconds=2 * seconds / policy.workers)
        )
    assert histories[0] == histories[-1]
    assert histories[0].finished


# --- the table's own points


def test_each_point_of_a_pool_is_trained_once_and_tells_what_was_measured() -> None:
    given = rows(12, noise=0.2)
    table = Table.of(given, SPACE, BASELINES)
    for sampler in ("random", "tpe"):
        database = MemoryDatabase(config(sampler=sampler))
        nearest_left(database, table, 0)
        history, _ = run(database=database, world=Pool(table), seconds=1e6)
        assert sorted(f.point["distill_weight"] for f in history.finished) == sorted(
            {row["parameters"]["distill_weight"] for row in given}
        )
        measured = {row["objectives"]["fid"] for row in given}
        assert all(min(abs(f.objectives["fid"] - fid) for fid in measured) < 1e-6 for f in history.finished)
    orders = []
    for seed in (0, 0, 1):
        database = MemoryDatabase(config())
        nearest_left(database, table, seed)
        orders.append([f.point for f in run(database=database, world=Pool(table), seconds=1e6)[0].finished])
    assert orders[0] == orders[1] != orders[2]


# --- ideas


def test_start_points_that_were_not_trained_are_none_of_the_pool() -> None:
    trained = rows(4)
    known, strange = dict(trained[2]["parameters"]), {"target_gflops_ratio": 0.5, "distill_weight": 0.5}
    space = dataclasses.replace(SPACE, start_points=(strange, known))
    table = Table.of(trained, space, BASELINES)
    assert table.space.start_points == (strange, known) and table.of_points().start_points == (known,)


def test_foretold_fid_never_rises_with_decibels() -> None:
    line = Foretold([(10, 300.0), (12, 200.0), (14, 260.0), (20, 100.0)])  # 12 and 14 are out of order: 230 at 13
    assert [line(x) for x in (5, 10, 13, 20, 30)] == [300, 300, 230, 100, 100]
    assert line(11.5) == pytest.approx(265)


def known(pairs: list[tuple[float, float, float]]) -> MemoryDatabase:
    """A database with finished trials of decibels, FID and GFLOPs."""
    database = MemoryDatabase(config())
    for psnr, fid, gflops in pairs:
        asked = database.ask()
        report = Rung(step=0, psnr_to_teacher=psnr, gflops=gflops, size_mb=0.5, seconds=1.0)
        values = {"fid": fid, "gflops": gflops, "size_mb": 0.5}
        record = TrialRecord(number=asked.number, state="COMPLETE", key=asked.key, rungs=(report,), objectives=values)
        database.tell(record)
        database.results[asked.number] = record
    return database


def test_decibels_that_fid_does_not_see_save_nobody() -> None:
    flat = [(20.0 + k, 100.0, 0.5) for k in range(4)] + [(10.0 + k, 200.0, 0.5) for k in range(4)]
    rungs = FidRungs(known(flat), margin_fid=5.0)
    cheap = Rung(step=0, psnr_to_teacher=20.0, gflops=0.3, size_mb=0.3, seconds=1.0)
    assert rungs.judge(100, cheap) is None
    assert rungs.judge(101, cheap.but(psnr_to_teacher=23.0, gflops=0.6)) is None  # no worse, by FID
    verdict = rungs.judge(102, cheap.but(psnr_to_teacher=12.0, gflops=0.6))
    assert verdict is not None and verdict.by == 100


def test_screening_trains_those_that_gain_most() -> None:
    rungs = ScreeningRungs(known([(20.0 + k, 200.0 - 10 * k, 0.9) for k in range(8)]), 2, (300.0, 1.0, 1.0))
    report = Rung(step=0, psnr_to_teacher=24.0, gflops=0.5, size_mb=0.5, seconds=1.0)
    left = [rungs.judge(100 + k, report.but(gflops=g)) is not None for k, g in enumerate((0.5, 0.6, 0.8, 0.7, 0.2))]
    assert left == [False, True, True, True, False]


# --- scores


def test_curve_and_where_it_gets() -> None:
    marks = [(0.5, [150.0, 0.5, 0.5]), (0.1, [150.0, 0.5, 1.5]), (0.2, [150.0, 0.9, 0.9])]
    found = curve(marks, (300.0, 1.0, 1.0), Policy(sampler="gp", share=0.75))
    place = {share: k for k, share in enumerate(SHARES)}
    assert found[place[0.1]] == 0.0 and found[-1] is None
    assert found[place[0.2]] == pytest.approx(0.5 * 0.01) and found[place[0.5]] == pytest.approx(0.5 * 0.25)
    assert reached(found, 0.005) == 0.2 and reached(found, 0.1) == 0.5
    assert reached(found, 0.2) is None and reached(found, None) is None


def test_comparison() -> None:
    def row(policy: str, seed: int, values: list[float | None], **rest: Any) -> dict[str, Any]:
        full = [value for value in values for _ in range(20)]
        return {"policy": policy, "seed": seed, "curve": full, "started": 10, "stopped": {}, "seconds": 0.5, **rest}

    found = comparison(
        [
            *(row(RANDOM, seed, [0.1, 0.2, 0.3, 0.4 + seed / 50]) for seed in range(2)),
            row("TPE, stopping", 0, [0.1, 0.5, 0.5, 0.5], stopped={"0": 4}),
            row("TPE, stopping", 1, [0.1, 0.3, 0.35, 0.4]),
        ],
        {name: POLICIES[name] for name in (RANDOM, "TPE", "TPE, stopping")},
        RANDOM,
    ).splitlines()
    assert len(found) == 4  # nothing of TPE
    assert found[2].split("|")[2:] == [
        " 10 ", " - ", " 10.00 ", " 10.00 ", " 20.00 ", " 41.00 ± 1.41 ", " 76 % ", " 1 of 2 ", " 50 ", ""
    ]  # fmt: skip
    assert found[3].split("|")[2:4] == [" 10 ", " 2 / 0 / 0 "] and found[3].split("|")[8:10] == [" 51 % ", " 1 of 2 "]


@pytest.mark.parametrize("name", ["search", "search-quick", "search-tiny"])
def test_every_case_is_asked_once_and_compares_with_random(name: str) -> None:
    asked = [tuple(case.items()) for case in cases(name, weights=True)]
    assert len(set(asked)) == len(asked)
    for world in {case["world"] for case in cases(name, weights=True)}:
        assert any(case["world"] == world and case["policy"] == RANDOM for case in cases(name, weights=True))


def test_says_how_it_is_called() -> None:
    done = CliRunner().invoke(search.main, ["--help"])
    assert done.exit_code == 0 and "OMP_NUM_THREADS=1 python -m benchmarks.search" in " ".join(done.output.split())


def test_tells_what_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(search.main, ["--table", str(tmp_path / "no.jsonl"), "--out", str(tmp_path)])
    assert done.exit_code == 1 and "search_table --keep" in done.output


def test_one_search_on_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.jsonl"
    write(path, rows(16, noise=0.1), "by hand")
    monkeypatch.setattr(search, "BASELINES", tmp_path / "baselines.json")
    search.BASELINES.write_text(json.dumps(BASELINES))
    monkeypatch.setattr(search, "study_config", lambda: config())
    found = search.measure(path, 6, {"world": "learned", "policy": "TPE, stopping", "seed": 0})
    assert found["finished"] >= 4 and len(found["curve"]) == len(SHARES)
    assert found["curve"] == sorted(found["curve"]) and found["curve"][-1] > 0
    assert found == json.loads(json.dumps(found))

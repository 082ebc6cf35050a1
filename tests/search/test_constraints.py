"""Constraints of a study: whom they steer, what they keep off the front, and what they never let start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from engine_studies import MakeStudy, complete, record_of, state_counts, write_study
from ray.tune.search import Searcher
from stand_ins import REFERENCE

from gs_search.cli import main
from gs_search.engine.searcher import StudySearcher
from gs_search.errors import GsSearchError, NothingFeasible
from gs_search.monitor.estimate import reference_of, standing
from gs_search.monitor.status import study_status
from gs_search.results.front import front_document, front_table
from gs_search.results.pareto import OBJECTIVES
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.feasibility import MAX_REFUSED, Feasibility
from gs_search.search.samplers import SAMPLERS
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.config import load_study
from gs_search.study.constraints import (
    fid_above_teacher,
    is_feasible,
    nearest_miss,
    resolve,
    too_large_to_start,
    violations,
)
from gs_search.system.files import write_json
from gs_search.terminal.status import render_status

BASELINES = {**REFERENCE, "protocol": {"id": "p"}, "noise": {"fid_std": 1.0}}
"""The teacher has FID 50, 1 GFLOP and 1 MB."""


def students(folder: RunFolder, database: StudyDatabase, rows: list[tuple[float, float, float]]) -> None:
    """Complete trials with these objectives."""
    for row in rows:
        asked = database.ask()
        objectives = dict(zip(OBJECTIVES, row, strict=True))
        record = record_of(database, asked, objectives=objectives, protocol="p")
        database.write_result(record)
        database.tell(record)


def test_limits_become_numbers() -> None:
    wanted = {"max_gflops": 2, "max_mb": None, "max_fid": "teacher+10"}
    assert resolve(wanted, 50.0) == {"max_fid": 60.0, "max_gflops": 2.0}
    assert resolve(wanted, None) == {"max_gflops": 2.0}
    assert resolve({}, 50.0) == {}
    assert [fid_above_teacher(text) for text in ("teacher+10", " teacher + 2.5 ", "teacher", "teacher-1", "7")] == [
        10.0, 2.5, None, None, None,
    ]  # fmt: skip


def test_a_violation_is_the_share_above_the_limit() -> None:
    found = violations({"fid": 66.0, "gflops": 0.5, "size_mb": 3.0}, {"max_fid": 60.0, "max_gflops": 1.0})
    assert found == pytest.approx({"max_fid": 0.1, "max_gflops": -0.5})
    assert not is_feasible(found) and is_feasible({"max_mb": 0.0}) and is_feasible({})


def test_what_asks_for_too_much_is_known_before_it_is_trained() -> None:
    assert too_large_to_start(0.5, {"max_gflops": 2.0}, 4.0) == {}, "just the limit"
    assert too_large_to_start(0.55, {"max_gflops": 2.0}, 4.0) == pytest.approx({"max_gflops": 0.1})
    assert too_large_to_start(None, {"max_gflops": 2.0}, 4.0) == {}
    assert too_large_to_start(0.9, {"max_mb": 2.0}, 4.0) == {}


def test_the_nearest_miss_is_named_with_what_it_misses() -> None:
    students = {
        3: {"fid": 60.0, "gflops": 4.0, "size_mb": 1.0},
        7: {"fid": 80.0, "gflops": 2.1, "size_mb": 1.0},
    }
    limits = {"max_fid": 90.0, "max_gflops": 2.0}
    assert nearest_miss(students, limits) == "trial 7 comes nearest (max_gflops is 2, it has 2.1)"


def test_optuna_and_its_dashboard_know_who_is_feasible(make_study: MakeStudy) -> None:
    config, folder = make_study(constraints={"max_fid": 100, "max_mb": 0.5})
    database = open_database(folder, config)
    students(folder, database, [(90.0, 0.2, 0.4), (80.0, 0.1, 0.6), (150.0, 0.1, 0.1)])
    trials = open_database(folder, config).trials()
    named = [{name: t.constraints[name] for name in ("max_fid", "max_mb")} for t in trials]
    assert named[1] == pytest.approx({"max_fid": -0.2, "max_mb": 0.2})
    assert [t.number for t in database.study.best_trials] == [0]
    assert {t.state.name for t in trials} == {"COMPLETE"}
    # What optuna_dashboard._serializer sends to its pages, which ask for every one to be at most 0.
    assert [[v <= 0 for v in t.system_attrs["constraints"]] for t in trials] == [[True], [False], [False]]
    assert [is_feasible(result.constraints or {}) for result in folder.results()] == [True, False, False]


def test_without_constraints_nothing_is_written(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    complete(database, database.ask())
    assert database.trials()[0].system_attrs == {} and folder.results()[0].constraints is None


def test_a_result_of_a_dead_run_is_judged_too(make_study: MakeStudy) -> None:
    config, folder = make_study(constraints={"max_fid": 1})
    database = open_database(folder, config)
    database.write_result(record_of(database, database.ask()))
    open_database(folder, config).settle("killed", "died")
    assert folder.results()[0].constraints["max_fid"] > 0
    assert open_database(folder, config).study.best_trials == []


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_samplers_are_steered_to_the_feasible(sampler: str, tmp_path: Path) -> None:
    """Of random points one in five is small enough."""
    count = {"tpe": 40, "nsga2": 60, "gp": 15}[sampler]
    config = load_study(write_study(tmp_path / "study", sampler=sampler, constraints={"max_mb": 0.02}))
    study = optuna.create_study(directions=["minimize"] * 3)
    database = StudyDatabase(study, RunFolder(tmp_path / "run"), config)
    for _ in range(count):
        complete(database, database.ask())
    feasible = [trial.constraints["max_mb"] <= 0 for trial in database.trials()]
    assert sum(feasible[:10]) <= 4 and sum(feasible[-5:]) >= 3


def test_the_front_has_feasible_students_only(make_study: MakeStudy) -> None:
    config, folder = make_study(constraints={"max_fid": "teacher+50"})
    write_json(folder.baselines, BASELINES)
    database = open_database(folder, config)
    students(folder, database, [(90.0, 0.5, 0.5), (120.0, 0.1, 0.1), (60.0, 0.9, 0.9)])
    document = front_document(folder)
    assert [member["number"] for member in document["front"]] == [0, 2]
    assert (document["finished"], document["infeasible"]) == (3, 1)
    assert document["constraints"] == {"max_fid": 100.0}
    where = standing(database, reference_of(folder), 6, 1)
    assert (where.front, where.infeasible, where.done) == ((0, 2), (1,), 3)
    assert where.hypervolume == pytest.approx(document["hypervolume"])
    assert "only of students within max_fid 100; 1 are not" in text_of(front_table(document))


def test_nothing_feasible_is_said_in_one_line(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = make_study(constraints={"max_fid": "teacher+5"})
    write_json(folder.baselines, BASELINES)
    students(folder, open_database(folder, config), [(90.0, 0.5, 0.5), (70.0, 0.9, 0.9)])
    with pytest.raises(NothingFeasible) as caught:
        front_document(folder)
    told = "none of 2 students keeps the constraints; trial 1 comes nearest (max_fid is 55, it has 70)"
    assert str(caught.value) == f"{folder.path}: {told}"
    assert main(["front", str(folder.path), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["problems"] == [f"{folder.path}: {told}"]


def searcher_of(database: StudyDatabase, total: int) -> tuple[StudySearcher, list[TrialRecord]]:
    seen: list[TrialRecord] = []
    return StudySearcher(database, total=total, deadline=None, interrupted=lambda: False, on_finish=seen.append), seen


def text_of(content: Any) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def test_a_point_that_asks_for_too_much_never_starts(make_study: MakeStudy) -> None:
    starts = [{"target_gflops_ratio": share, "weight_bits": 8} for share in (0.8, 0.3, 0.41)]
    config, folder = make_study(start_points=starts, constraints={"max_gflops": 0.4})
    write_json(folder.baselines, BASELINES)
    database = open_database(folder, config)
    database.enqueue_start_points()
    searcher, seen = searcher_of(database, total=3)
    suggestion = searcher.suggest("a")
    assert isinstance(suggestion, dict) and suggestion["number"] == 1
    assert searcher.suggest("b") is None, "the third has been refused, and the first may have to be repeated"
    assert [(record.number, record.state, record.cause) for record in seen] == [
        (0, "PRUNED", "infeasible"), (2, "PRUNED", "infeasible"),
    ]  # fmt: skip
    assert seen[0].message == "asks for 0.8 GFLOPs; max_gflops is 0.4"
    assert folder.results()[0].constraints == pytest.approx({"max_gflops": 1.0})
    trials = open_database(folder, config).trials()
    assert trials[0].constraints["max_gflops"] == pytest.approx(1.0) and trials[0].user_attrs["cause"] == "infeasible"
    assert database.counted() == 2

    complete(database, searcher.live["a"])
    document = study_status(folder)
    assert (document["finished"], document["infeasible"], document["never_started"]) == (3, 0, 2)
    assert "0 students miss a constraint; 2 never started, being too large" in text_of(render_status(document))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_proposes_what_may_not_start(sampler: str, tmp_path: Path) -> None:
    """Left to themselves, GP proposes it for ever, and random sampling six times out of ten."""
    starts = [{"target_gflops_ratio": 0.8, "weight_bits": 8}]
    study = write_study(tmp_path / "study", start_points=starts, sampler=sampler, constraints={"max_gflops": 0.15})
    folder = RunFolder(tmp_path / "run")
    write_json(folder.baselines, BASELINES)
    database = StudyDatabase(optuna.create_study(directions=["minimize"] * 3), folder, load_study(study))
    database.enqueue_start_points()
    targets = []
    for _ in range(14):
        asked = database.ask()
        targets.append(asked.point["target_gflops_ratio"])
        if database.refuse(asked) is None:
            complete(database, asked)
    assert targets[0] == 0.8 and state_counts(database) == {"COMPLETE": 13, "PRUNED": 1}
    assert max(targets[1:]) <= 0.15 and len(set(targets)) > 10


@pytest.mark.parametrize(
    ("parameter", "limit", "high"),
    [
        ({"type": "float", "low": 0.1, "high": 0.9, "log": True}, 0.4, 0.4),
        ({"type": "float", "low": 0.1, "high": 0.9, "step": 0.1}, 0.4, 0.4),
        ({"type": "float", "low": 0.1, "high": 0.9, "step": 0.2}, 0.4, 0.3),
        ({"type": "float", "low": 0.1, "high": 0.9}, 0.05, 0.9),
        ({"type": "float", "low": 0.1, "high": 0.9}, 2.0, 0.9),
        ({"type": "choice", "choices": [0.1, 0.9]}, 0.4, 0.0),
    ],
)
def test_the_space_ends_where_the_limit_is(
    parameter: dict[str, Any], limit: float, high: float, make_study: MakeStudy
) -> None:
    config, folder = make_study({"target_gflops_ratio": parameter}, constraints={"max_gflops": limit})
    feasibility = Feasibility(folder, config)
    assert feasibility.space() is config.space, "nobody knows the teacher yet"
    write_json(folder.baselines, BASELINES)
    assert feasibility.space().parameters[0].high == pytest.approx(high)


def test_a_search_that_finds_nothing_small_enough_ends(make_study: MakeStudy) -> None:
    config, folder = make_study(sampler="random", constraints={"max_gflops": 0.01})
    write_json(folder.baselines, BASELINES)
    searcher, seen = searcher_of(open_database(folder, config), total=1000)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert len(seen) == MAX_REFUSED - 1 and state_counts(searcher.database) == {"PRUNED": MAX_REFUSED}
    assert isinstance(searcher.error, GsSearchError)
    assert str(searcher.error) == (
        "stopped after 50 points in a row that max_gflops 0.01 rules out; it allows a target_gflops_ratio of at most "
        "0.01: lower its range in the search space, or raise the limit"
    )


def test_a_target_in_the_settings_counts_as_one_of_the_point(make_study: MakeStudy) -> None:
    space = {"weight_bits": {"type": "choice", "choices": [8, 4]}}
    config, folder = make_study(space, settings={"target_gflops_ratio": 0.5}, constraints={"max_gflops": 0.4})
    database = open_database(folder, config)
    assert database.refuse(database.ask()) is None, "nobody knows the teacher yet"
    write_json(folder.baselines, BASELINES)
    assert database.refuse(database.ask()) is not None


def test_a_constraint_makes_another_study(make_study: MakeStudy, tmp_path: Path) -> None:
    first, second = (
        load_study(write_study(tmp_path / str(n), constraints=wanted)) for n, wanted in enumerate([{}, {"max_mb": 1}])
    )
    differing = {key for key, value in first.identity().items() if second.identity()[key] != value}
    assert differing == {"constraints.max_mb"}

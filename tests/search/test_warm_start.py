"""Building on an earlier study, and points that a person queues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_studies import BITS, SHARE, SPACE, complete, record_of, state_counts, write_study
from stand_ins import REFERENCE

from gs_search.cli import main
from gs_search.engine import runner
from gs_search.engine.console import Progress
from gs_search.errors import BadInput
from gs_search.monitor.status import study_status
from gs_search.results.front import front_document
from gs_search.results.run_folder import RunFolder
from gs_search.search.enqueue import enqueue, parse_point
from gs_search.search.samplers import generation_attribute
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.search.warm_start import warm_start
from gs_search.study.config import load_study
from gs_search.system.files import write_json
from gs_search.terminal.status import render_status

Capture = pytest.CaptureFixture[str]
MakeRun = Callable[..., StudyDatabase]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make the run folder of a prepared study in ``tmp_path/<name>``; all have one teacher unless told otherwise."""

    def make(
        name: str, parameters: dict[str, Any] = SPACE, *, teacher: bytes = b"weights", protocol: str = "p", **keys: Any
    ) -> StudyDatabase:
        config = load_study(write_study(tmp_path / f"{name}_study", parameters, keys.pop("start_points", ()), **keys))
        folder = RunFolder(tmp_path / name)
        folder.create(config)
        write_json(folder.baselines, {**REFERENCE, "protocol": {"id": protocol}, "noise": {"fid_std": 1.0}})
        (folder.teacher / "generator.safetensors").write_bytes(teacher)
        return open_database(folder, config)

    return make


def train(database: StudyDatabase, count: int) -> list[dict[str, Any]]:
    """Complete trials that leave a student; return their points."""
    points = []
    for _ in range(count):
        asked = database.ask()
        place = database.folder.trial(asked.number)
        place.mkdir(parents=True)
        (place / "student.safetensors").write_text(f"student {asked.number}")
        record = record_of(database, asked, protocol="p")
        database.write_result(record)
        database.tell(record)
        points.append(asked.point)
    return points


def earlier_of(make_run: MakeRun, count: int = 4, **keys: Any) -> RunFolder:
    database = make_run("earlier", **keys)
    train(database, count)
    return database.folder


def test_students_of_an_earlier_study_are_taken_over_and_do_not_count(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    database = make_run("new", seed=3, study="another")
    found = warm_start(database, earlier)
    assert (found.added, found.skipped) == (4, {})
    assert str(found) == f"4 trials taken over from {earlier.path}"
    assert (database.counted(), database.taken_over(), state_counts(database)) == (0, 4, {"COMPLETE": 4})
    for there, here in zip(earlier.results(), database.folder.results(), strict=True):
        assert here.to_json() == {
            **there.to_json(), "study": "another", "number": here.number, "constraints": {},
            "warm_start": f"earlier:{there.number}",
        }  # fmt: skip
        place = database.folder.trial(here.number)
        assert (place / "student.safetensors").read_text() == f"student {there.number}"
        trial = database.trials()[here.number]
        assert trial.params == there.point and trial.values == list(there.objectives.values())
        assert trial.user_attrs["warm_start"] == here.warm_start

    document = front_document(database.folder)
    assert document["finished"] == 4 and document["study"] == "another"
    assert Path(document["front"][0]["folder"]).parent.parent == database.folder.path
    told = study_status(database.folder)
    assert (told["finished"], told["taken_over"]) == (0, 4)
    assert any("4 taken over" in str(line) for line in render_status(told).renderables)  # type: ignore[union-attr]


def test_taking_over_twice_changes_nothing_and_mends_what_a_crash_left(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    database = make_run("new")
    warm_start(database, earlier)
    cut_off = database.folder.trial(2)
    for name in ("student.safetensors", "result.json"):
        (cut_off / name).unlink()
    again = warm_start(open_database(database.folder, database.config), earlier)
    assert (again.added, again.skipped) == (0, {"known already": 3})
    assert (cut_off / "student.safetensors").is_file() and len(database.folder.results()) == 4


def test_a_folder_of_the_same_name_is_another_one(make_run: MakeRun, tmp_path: Path) -> None:
    first = earlier_of(make_run, count=2)
    (tmp_path / "other").mkdir()
    first.path.rename(tmp_path / "other" / "earlier")
    second = earlier_of(make_run, count=3, seed=9)
    database = make_run("new", seed=5)
    assert warm_start(database, RunFolder(tmp_path / "other" / "earlier")).added == 2
    assert warm_start(database, second).added == 3


def test_a_known_point_is_answered_with_a_student_at_hand(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    database = make_run("new")
    warm_start(database, earlier)
    point = earlier.results()[1].point
    database.enqueue(point)
    asked = database.ask()
    record = database.tell_duplicate(asked, database.records[asked.key])
    assert record.duplicate_of == 1 and record.number == 4 and "warm_start" not in record
    assert database.counted() == 1, "it is one of this study's"
    assert record.seed == earlier.results()[1].seed, "which is what it was trained with"


def test_start_points_that_came_along_are_not_tried_again(make_run: MakeRun) -> None:
    starts = [{"target_gflops_ratio": 0.25, "weight_bits": 8}, {"target_gflops_ratio": 0.5, "weight_bits": 4}]
    before = make_run("earlier", start_points=starts[:1])
    before.enqueue_start_points()
    train(before, 1)
    database = make_run("new", start_points=starts)
    warm_start(database, before.folder)
    database.enqueue_start_points()
    assert database.ask().point == starts[1]
    assert state_counts(database) == {"COMPLETE": 1, "RUNNING": 1}


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_the_sampler_goes_on_instead_of_drawing_the_same_again(sampler: str, make_run: MakeRun) -> None:
    earlier = earlier_of(make_run, sampler=sampler)
    (earlier.trial(3) / "student.safetensors").unlink()
    database = make_run("new", sampler=sampler)
    found = warm_start(database, earlier)
    assert (found.added, found.skipped) == (3, {"without a student": 1})
    assert database.ask().key not in {record.key for record in earlier.results()}


def test_they_steer_the_sampler(make_run: MakeRun) -> None:
    """Ten students are a generation of parents, though no genetic sampler has asked for them."""
    earlier = earlier_of(make_run, count=10)
    database = make_run("new", sampler="nsga2")
    warm_start(database, earlier)
    database.ask()
    attribute = generation_attribute("nsga2") or ""
    assert [trial.system_attrs[attribute] for trial in database.trials()] == [0] * 10 + [1]


def test_what_does_not_fit_stays_behind_with_its_reason(make_run: MakeRun) -> None:
    before = make_run("earlier", {"target_gflops_ratio": SHARE, "weight_bits": BITS, "steps": {
        "type": "choice", "choices": [100, 200]}})  # fmt: skip
    database = make_run("new", {"target_gflops_ratio": {**SHARE, "high": 0.5}, "weight_bits": BITS})
    for share, steps in [(0.1, 100), (0.2, 200), (0.6, 100), (0.3, 100)]:
        before.enqueue({"target_gflops_ratio": share, "weight_bits": 4, "steps": steps})
    train(before, 4)
    before.fail(before.ask(), "nan", "fid is nan")
    found = warm_start(database, before.folder)
    assert found.skipped == {
        "trained with other settings (steps)": 1, "outside of the space (target_gflops_ratio)": 1, "not complete": 1,
    }  # fmt: skip
    assert [trial.params for trial in database.trials()] == [
        {"target_gflops_ratio": 0.1, "weight_bits": 4}, {"target_gflops_ratio": 0.3, "weight_bits": 4},
    ]  # fmt: skip
    assert "; left behind: 1 trained with other settings (steps), 1 outside" in str(found)


def test_a_setting_of_all_trials_may_have_become_a_parameter(make_run: MakeRun) -> None:
    """And a value for each group may mean what one value meant for all."""
    earlier = earlier_of(make_run, count=2, settings={"distill_weight": 20, "sparsity_multiplier": 1.0})
    space = {
        "target_gflops_ratio": SHARE,
        "weight_bits.body": {"type": "choice", "choices": [8, 6, 4]},
        "weight_bits.up": {"type": "choice", "choices": [8, 6, 4]},
        "weight_bits.down": {"type": "choice", "choices": [8, 6, 4]},
        "sparsity_multiplier.body": {"type": "float", "low": 0.5, "high": 2},
        "distill_weight": {"type": "float", "low": 1, "high": 50},
    }
    database = make_run("new", space)
    assert warm_start(database, earlier).added == 2
    for there, here in zip(earlier.results(), database.folder.results(), strict=True):
        bits = there.point["weight_bits"]
        assert here.point == {
            "target_gflops_ratio": there.point["target_gflops_ratio"], "weight_bits.body": bits,
            "weight_bits.up": bits, "weight_bits.down": bits, "sparsity_multiplier.body": 1.0, "distill_weight": 20,
        }  # fmt: skip
        assert here.key == database.config.space.key(here.point)


def test_new_constraints_judge_old_students(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    heaviest = max(record.values["size_mb"] for record in earlier.results())
    database = make_run("new", constraints={"max_mb": 0.99 * heaviest})
    warm_start(database, earlier)
    assert sum(trial.constraints["max_mb"] > 0 for trial in database.trials()) == 1
    assert front_document(database.folder)["infeasible"] == 1


def test_another_teacher_or_protocol_is_refused_and_both_are_named(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    teacher = make_run("teacher", teacher=b"others")
    with pytest.raises(BadInput, match=r"earlier: has another teacher \(\w{12}\) than .*teacher \(\w{12}\)"):
        warm_start(teacher, earlier)
    with pytest.raises(BadInput, match=r"earlier: measured by protocol p, .*protocol by q; .*cannot be compared"):
        warm_start(make_run("protocol", protocol="q"), earlier)
    with pytest.raises(BadInput, match=r"trained otherwise \(data.views differ\)"):
        warm_start(make_run("views", data={"kind": "drawn", "views": 7}), earlier)
    with pytest.raises(BadInput, match="is the run folder of this very study"):
        warm_start(teacher, teacher.folder)
    assert teacher.trials() == []


def test_a_torn_source_is_refused_in_one_line(make_run: MakeRun) -> None:
    earlier = earlier_of(make_run)
    database = make_run("new")
    (earlier.teacher / "generator.safetensors").unlink()
    with pytest.raises(BadInput, match="without it teachers cannot be compared"):
        warm_start(database, earlier)
    earlier.baselines.unlink()
    with pytest.raises(BadInput, match=r"baselines.json: no such file"):
        warm_start(database, earlier)


def test_a_finished_study_takes_over_too(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_run", lambda *_: pytest.fail("there is nothing to run"))
    earlier = earlier_of(make_run)
    database = make_run("new", seed=3)
    train(database, 1)
    summary = runner.run_study(
        database.config, database.folder, trials=1, earlier=earlier, progress=Progress(quiet=True)
    )
    assert (summary.ending, summary.finished, summary.states["COMPLETE"]) == ("nothing_to_do", 1, 5)
    with pytest.raises(BadInput, match="finished trials imitate its present teacher"):
        runner.run_study(
            database.config, database.folder, trials=9, retrain_teacher=True, progress=Progress(quiet=True)
        )


def test_a_study_that_is_prepared_first_takes_over_then(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = earlier_of(make_run)
    config = load_study(write_study(tmp_path / "new_study"))
    seen: list[Any] = []

    def remember(run: Any, *_: Any) -> str:
        seen.append(run)
        return "finished"

    monkeypatch.setattr(runner, "_run", remember)
    runner.run_study(config, RunFolder(tmp_path / "new"), earlier=earlier, progress=Progress(quiet=True))
    assert [run.earlier for run in seen] == [earlier]


def test_from_on_the_command_line(
    make_run: MakeRun, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = earlier_of(make_run)
    study = write_study(tmp_path / "new_study")
    calls: list[SimpleNamespace] = []

    def run_study(config: Any, folder: Any, **options: Any) -> Any:
        calls.append(SimpleNamespace(**options))
        raise BadInput("enough")

    monkeypatch.setattr("gs_search.engine.runner.run_study", run_study)
    assert main(["run", str(study), "--out", str(tmp_path / "new"), "--from", str(earlier.path)]) == 2
    assert calls[0].earlier.path == earlier.path
    assert main(["run", str(study), "--from", str(tmp_path / "gone")]) == 2
    assert main(["run", str(study), "--from", str(earlier.path), "--retrain-teacher"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "gone: no such folder" in lines[1] and "students taken over with --from imitate" in lines[2]


# --- queued points


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "--point: no JSON"),
        ("[1]", "--point: must be a JSON object"),
        ("{}", "names no parameter; there are target_gflops_ratio, weight_bits"),
        ('{"weight_bits": 5}', "--point: weight_bits: must be one of 8, 6, 4, not 5"),
        ('{"weight_bits": true}', "--point: weight_bits: must be one of 8, 6, 4, not True"),
        ('{"target_gflops_ratio": NaN}', "target_gflops_ratio: must be finite"),
        ('{"target_gflops_ratio": 0.99}', "target_gflops_ratio: must lie between 0.05 and 0.9, not 0.99"),
        ('{"weight_bit": 8, "target_gflops_ratio": "x"}', "weight_bit: is not in this search space; did you mean"),
    ],
)
def test_a_point_that_is_none_is_refused_in_one_line(text: str, message: str, make_run: MakeRun) -> None:
    database = make_run("run")
    with pytest.raises(BadInput) as caught:
        enqueue(database.folder, ['{"weight_bits": 8}', text])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert database.trials() == [], "not even the sound one"


def test_a_point_is_read_as_the_sampler_would_write_it(make_run: MakeRun) -> None:
    space = {
        "round_to": {"type": "int", "low": 1, "high": 64},
        "repair": {"type": "choice", "choices": [True, False]},
        "repair_pictures": {"type": "int", "low": 2, "high": 9, "when": {"repair": [True]}},
        "distill_weight": 3,
    }
    config = make_run("run", space).config
    point = parse_point('{"round_to": 8.0, "repair": true, "repair_pictures": 4, "distill_weight": 3}', config.space)
    assert point == {"round_to": 8, "repair": True, "repair_pictures": 4}
    assert isinstance(point["round_to"], int) and point["repair"] is True
    for text in ('{"repair_pictures": 4}', '{"repair": false, "repair_pictures": 4}'):
        with pytest.raises(BadInput, match="repair_pictures: its condition does not hold at this point"):
            parse_point(text, config.space)


def test_queued_points_come_first_and_are_completed_by_the_sampler(make_run: MakeRun) -> None:
    database = make_run("run")
    told = enqueue(database.folder, ['{"weight_bits": 4}', '{"target_gflops_ratio": 0.3, "weight_bits": 6}'])
    assert told["queued"] == [{"point": {"weight_bits": 4}}, {"point": {"target_gflops_ratio": 0.3, "weight_bits": 6}}]
    first, second = database.ask(), database.ask()
    assert first.point["weight_bits"] == 4 and 0.05 <= first.point["target_gflops_ratio"] <= 0.9
    assert second.point == {"target_gflops_ratio": 0.3, "weight_bits": 6}


def test_a_known_or_waiting_point_is_not_queued_again(make_run: MakeRun) -> None:
    database = make_run("run")
    point = '{"target_gflops_ratio": 0.3, "weight_bits": 6}'
    for _ in range(2):
        enqueue(database.folder, [point])
    assert state_counts(database) == {"WAITING": 1}
    complete(database, database.ask())
    told = enqueue(database.folder, [point])
    assert told["known"] == [{"number": 0, "point": json.loads(point)}] and told["queued"] == []
    assert enqueue(database.folder, ['{"weight_bits": 6}'])["queued"], "a part of a point is no point"


def test_points_are_queued_while_the_study_runs(make_run: MakeRun) -> None:
    database = make_run("run")
    with database.folder.lock():
        live = database.ask()
        enqueue(database.folder, ['{"weight_bits": 4}'])
        complete(database, live)
        assert database.ask().point["weight_bits"] == 4
    assert state_counts(database) == {"COMPLETE": 1, "RUNNING": 1}


def test_a_point_beyond_max_gflops_is_refused_at_once(make_run: MakeRun) -> None:
    database = make_run("run", constraints={"max_gflops": 0.2})
    with pytest.raises(BadInput, match="target_gflops_ratio: must lie between 0.05 and 0.2, not 0.5"):
        enqueue(database.folder, ['{"target_gflops_ratio": 0.5}'])


def test_enqueue_on_the_command_line(make_run: MakeRun, capsys: Capture) -> None:
    folder = make_run("run", trials=1).folder
    assert main(["enqueue", str(folder.path), "--point", '{"weight_bits": 4}', "--point", '{"weight_bits": 6}']) == 0
    assert capsys.readouterr().out == f"{folder.path}: 2 points queued; tried first by the study\n"
    assert main(["enqueue", str(folder.path), "--point", '{"weight_bits": 4}', "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["queued"], document["known"]) == ([], [{"number": 0, "point": {"weight_bits": 4}}])
    assert main(["enqueue", str(folder.path), "--point", "{"]) == 2
    assert capsys.readouterr().err.startswith("error: --point: no JSON")
    database = open_database(folder, folder.config())
    complete(database, database.ask())
    assert main(["enqueue", str(folder.path), "--point", '{"weight_bits": 8}']) == 0
    assert "which has all its trials: raise --trials" in capsys.readouterr().out

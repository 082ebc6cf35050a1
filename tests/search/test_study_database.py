"""The study database: proposals, endings, and what becomes of a study whose run died."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from engine_studies import SMALL, MakeStudy, complete, record_of, state_counts
from optuna.trial import TrialState
from stand_ins import objectives

from gs_search.errors import BadInput, GsSearchError
from gs_search.results.run_folder import RunFolder
from gs_search.search import storage
from gs_search.search.outcomes import Asked
from gs_search.search.storage import NoStudyYet
from gs_search.search.study_database import MAX_DEATHS, open_database


def test_a_complete_trial_is_recorded_with_its_figures(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    asked = database.ask()
    complete(database, asked)

    (trial,) = open_database(folder, config).trials()
    assert trial.state == TrialState.COMPLETE
    assert trial.values == list(objectives(asked.point, asked.seed).values())
    assert trial.user_attrs == {"key": asked.key, "seed": asked.seed, "seconds": 2.0}
    assert database.study.metric_names == ["fid", "gflops", "size_mb"]


def test_a_database_that_is_shared_keeps_run_folders_apart(make_study: MakeStudy, tmp_path: Path) -> None:
    config, folder = make_study()
    other = RunFolder(tmp_path / "other")
    other.create(config)
    url = f"sqlite:///{tmp_path}/team.db"
    with pytest.raises(NoStudyYet):
        open_database(folder, config, url=url, read_only=True)
    complete(database := open_database(folder, config, url=url), database.ask())
    for read_only in (False, True):
        with pytest.raises(BadInput, match=f"another study 'engine', of {folder.path}"):
            open_database(other, config, url=url, read_only=read_only)
    folder.path.rename(tmp_path / "moved")
    assert open_database(RunFolder(tmp_path / "moved"), config, url=url).counted() == 1, "the folder may be moved"
    renamed = config.model_copy(update={"study": "second"})
    assert open_database(other, renamed, url=url).counted() == 0


def test_a_database_that_is_away_for_a_moment_is_read_again(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    complete(database, database.ask())
    clock, said, read = [0.0], list[str](), database.study.get_trials
    monkeypatch.setattr(storage.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    database.note = said.append

    def away(**options: Any) -> Any:
        if clock[0] < 30:
            raise optuna.exceptions.StorageInternalError("gone")
        return read(**options)

    monkeypatch.setattr(database.study, "get_trials", away)
    assert database.counted() == 1
    assert [line.partition(";")[0] for line in said] == [
        "the study database cannot be reached",
        f"the study database is back after {clock[0]:.0f} s",
    ]
    monkeypatch.setattr(storage, "PATIENCE_S", 20.0)
    clock[0] = 0.0
    with pytest.raises(GsSearchError, match="could not be reached for 20 s"):
        database.running()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('connection failed: FATAL:  password authentication failed for user "boss"', "the server refuses the login"),
        ('FATAL:  database "gs" does not exist', "the server has no such database"),
        ("connection to server at 10.0.0.1 failed: Connection refused", "the server cannot be reached"),
        ("FATAL:  sorry, too many clients already", "the server has no connection left"),
        ("FATAL:  the database system is shutting down", "the server is starting or stopping"),
        ("something at boss:sEcReT@h", "OperationalError"),
    ],
)
def test_why_a_server_refuses_is_said_without_where_it_is(said: str, told: str) -> None:
    error = sqlalchemy.exc.OperationalError("SELECT 1", {}, RuntimeError(said))
    wrapped = optuna.exceptions.StorageInternalError("x")
    wrapped.__cause__ = error
    assert storage._reason(error) == told
    assert storage._reason(wrapped) in (told, "StorageInternalError")


def test_a_connection_to_a_server_is_tried_before_it_is_used() -> None:
    options = storage._server_options("postgresql+psycopg://me@h/db?connect_timeout=3")
    assert options["connect_args"]["prepare_threshold"] is None, "for PgBouncer"
    assert options["pool_pre_ping"] and "connect_timeout" not in options["connect_args"]
    assert options["connect_args"]["keepalives_idle"] == 30
    assert storage._server_options("mysql+pymysql://me@h/db")["connect_args"] == {"connect_timeout": 10}
    assert storage._server_options("sqlite:///x.db") == {}


def test_telling_twice_changes_nothing(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    asked = database.ask()
    complete(database, asked)
    database.tell(record_of(database, asked, objectives={"fid": 0.0, "gflops": 0.0, "size_mb": 0.0}))
    assert database.trials()[0].values[0] > 0


def test_start_points_come_first_and_once_in_the_life_of_a_study(make_study: MakeStudy) -> None:
    points = [{"target_gflops_ratio": 0.25, "weight_bits": 8}, {"target_gflops_ratio": 0.5, "weight_bits": 4}]
    config, folder = make_study(start_points=points)
    for _ in range(3):
        open_database(folder, config).enqueue_start_points()
    database = open_database(folder, config)
    assert [database.ask().point for _ in range(2)] == points
    open_database(folder, config).enqueue_start_points()
    assert state_counts(database) == {"RUNNING": 2}


def test_the_seed_of_a_trial_follows_its_point(make_study: MakeStudy) -> None:
    config, folder = make_study(start_points=[{"target_gflops_ratio": 0.25, "weight_bits": 8}])
    database = open_database(folder, config)
    database.enqueue_start_points()
    first = database.ask()
    database.study.enqueue_trial({"target_gflops_ratio": 0.25, "weight_bits": 8})
    again, other = database.ask(), database.ask()
    assert first.key == again.key and first.seed == again.seed
    assert other.seed != first.seed
    assert 0 <= first.seed < 2**31


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_d10_a_continued_study_proposes_what_an_undisturbed_one_does(
    sampler: str, tmp_path: Path, make_study: MakeStudy
) -> None:
    config, _ = make_study(sampler=sampler)

    def keys(path: Path, runs: list[int]) -> list[str]:
        """Run a study in several runs; each but the last dies with a trial running."""
        folder = RunFolder(path)
        folder.create(config)
        done: list[str] = []
        for index, count in enumerate(runs):
            database = open_database(folder, config)
            database.settle("killed", "died")
            database.requeue()
            for _ in range(count):
                asked = database.ask()
                complete(database, asked)
                done.append(asked.key)
            if index + 1 < len(runs):
                database.ask()
        return done

    whole = keys(tmp_path / "whole", [12])
    assert len(set(whole)) == 12, "ten of TPE's are random, the others modelled"
    assert keys(tmp_path / "parts", [3, 1, 8]) == whole


def test_d3_a_trial_that_died_with_its_run_fails_and_is_repeated(make_study: MakeStudy) -> None:
    config, folder = make_study()
    asked = open_database(folder, config).ask()

    database = open_database(folder, config)
    assert database.settle("killed", "the run died") == [0]
    assert database.counted() == 0, "it is not finished: it waits for another try"
    assert database.requeue() == [0]
    assert database.requeue() == [], "once"
    again = database.ask()
    assert again.point == asked.point and again.seed == asked.seed and again.number == 1
    complete(database, again)
    assert database.counted() == 1
    assert state_counts(database) == {"COMPLETE": 1, "FAIL": 1}
    assert database.trials()[1].user_attrs["retry_of"] == 0
    assert database.read_result(0).cause == "killed"


class Killed(BaseException):
    """As if the process ended there."""


@pytest.mark.parametrize("queued", [False, True])
def test_a_run_that_dies_while_it_proposes_proposes_the_same_again(
    queued: bool, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_points = [{"target_gflops_ratio": 0.25, "weight_bits": 8}] * queued
    config, folder = make_study(start_points=start_points, sampler="random")
    calm = RunFolder(folder.path.parent / "calm")
    calm.create(config)
    undisturbed = open_database(calm, config)
    undisturbed.enqueue_start_points()
    expected = undisturbed.ask()

    database = open_database(folder, config)
    database.enqueue_start_points()
    suggest = optuna.Trial.suggest_categorical

    def dies(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr(optuna.Trial, "suggest_categorical", dies)
    with pytest.raises(Killed):
        database.ask()
    monkeypatch.setattr(optuna.Trial, "suggest_categorical", suggest)
    assert state_counts(open_database(folder, config)) == state_counts(database) == {"RUNNING": 1}

    database = open_database(folder, config)
    assert database.settle("killed", "the run died") == [0]
    assert database.requeue() == [0] * queued and database.requeue() == []
    again = database.ask()
    assert (again.point, again.key, again.seed) == (expected.point, expected.key, expected.seed)
    assert database.counted() == 0 and state_counts(database) == {"FAIL": 1, "RUNNING": 1}


def test_a_run_that_dies_while_it_tells_tells_from_the_file(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    asked = database.ask()
    database.write_result(record_of(database, asked))
    tell = optuna.Study.tell

    def dies(self: optuna.Study, *arguments: Any, **options: Any) -> Any:
        raise Killed

    monkeypatch.setattr(optuna.Study, "tell", dies)
    with pytest.raises(Killed):
        database.tell(record_of(database, asked))
    monkeypatch.setattr(optuna.Study, "tell", tell)
    again = open_database(folder, config)
    assert state_counts(again) == state_counts(database) == {"RUNNING": 1}
    assert again.settle("killed", "it died") == [] and state_counts(again) == {"COMPLETE": 1}
    assert again.trials()[0].user_attrs["seconds"] == 2.0


def test_a_proposal_that_the_database_did_not_take_is_ended_and_made_again(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_study(sampler="random")
    calm = RunFolder(folder.path.parent / "calm")
    calm.create(config)
    expected = open_database(calm, config).ask()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    suggest, left = optuna.Trial.suggest_categorical, [2]

    def hiccups(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise optuna.exceptions.StorageInternalError("away")
        return suggest(*arguments, **named)

    monkeypatch.setattr(optuna.Trial, "suggest_categorical", hiccups)
    database = open_database(folder, config)
    asked = database.ask()
    assert (asked.point, asked.seed, asked.number) == (expected.point, expected.seed, 2)
    assert state_counts(database) == {"FAIL": 2, "RUNNING": 1} and database.counted() == 0
    complete(database, asked)
    assert database.settle("killed", "the run died") == [] and database.requeue() == []


def test_a_result_on_disk_is_told_although_the_run_died_before_it_could(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    asked = database.ask()
    database.write_result(record_of(database, asked))

    database = open_database(folder, config)
    assert database.settle("killed", "the run died") == []
    assert state_counts(database) == {"COMPLETE": 1}
    assert database.trials()[0].values == list(objectives(asked.point, asked.seed).values())


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{" + json.dumps(record)[5:-20],
        lambda record: json.dumps({**record, "point": {**record["point"], "weight_bits": 32}}),
        lambda record: json.dumps({**record, "objectives": {**record["objectives"], "fid": None}}),
        lambda record: json.dumps({**record, "objectives": {"fid": 1.0}}),
        lambda record: json.dumps({**record, "number": 7}),
        lambda record: json.dumps({**record, "study": "another"}),
        lambda record: json.dumps([record]),
    ],
    ids=["torn", "another point", "no fid", "no size", "another number", "another study", "no object"],
)
def test_a_result_that_is_not_this_trials_is_not_told(make_study: MakeStudy, damage: Any) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    asked = database.ask()
    place = folder.trial(0)
    place.mkdir(parents=True)
    (place / "result.json").write_text(damage(record_of(database, asked).to_json()))
    assert database.settle("killed", "the run died") == [0]
    assert state_counts(database) == {"FAIL": 1}


def test_a_point_that_kills_every_run_is_given_up_and_counts(make_study: MakeStudy) -> None:
    config, folder = make_study()
    for _ in range(MAX_DEATHS):
        database = open_database(folder, config)
        database.settle("killed", "the run died")
        database.requeue()
        database.ask()
    database = open_database(folder, config)
    database.settle("killed", "the run died")
    assert database.requeue() == []
    assert database.counted() == 1
    assert state_counts(database) == {"FAIL": MAX_DEATHS}


def test_an_interrupted_trial_may_be_interrupted_any_number_of_times(make_study: MakeStudy) -> None:
    config, folder = make_study()
    for _ in range(MAX_DEATHS + 2):
        database = open_database(folder, config)
        database.requeue()
        database.ask()
        database.settle("interrupted", "stopped")
    assert database.requeue() == [MAX_DEATHS + 1]
    assert database.counted() == 0


def test_d11_duplicates_are_answered_from_the_record(make_study: MakeStudy) -> None:
    config, folder = make_study(SMALL)
    database = open_database(folder, config)
    first = database.ask()
    complete(database, first)
    database.study.enqueue_trial({k: first.point[k] for k in SMALL})
    twin = database.ask()
    original = open_database(folder, config).records[twin.key]
    record = database.tell_duplicate(twin, original)
    assert record.duplicate_of == first.number == 0
    assert database.trials()[1].values == database.trials()[0].values
    assert database.trials()[1].user_attrs["duplicate_of"] == 0
    assert folder.results()[1].objectives == folder.results()[0].objectives
    assert folder.results()[1].number == 1


def test_any_order_of_endings_leaves_nothing_running_and_loses_nothing(make_study: MakeStudy) -> None:
    config, folder = make_study(SMALL)
    chance = random.Random(3)
    told: set[int] = set()
    for _ in range(6):
        database = open_database(folder, config)
        database.settle("killed", "died")
        database.requeue()
        live: list[Asked] = []
        for _ in range(8):
            action = chance.choice(["ask", "complete", "fail", "file"])
            if action == "ask" or not live:
                live.append(database.ask())
                continue
            asked = live.pop(chance.randrange(len(live)))
            if action == "complete":
                complete(database, asked)
            elif action == "fail":
                database.fail(asked, "nan", "fid is nan")
            else:
                database.write_result(record_of(database, asked))
            told.add(asked.number)
    database = open_database(folder, config)
    database.settle("killed", "died")
    trials = database.trials()
    assert not [t for t in trials if t.state == TrialState.RUNNING]
    for number in told:
        assert not trials[number].user_attrs.get("requeue")
        assert database.read_result(number).state == trials[number].state.name


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b", "a#b", "{a}", "ä&c=d", "a'b"])
def test_the_path_of_a_run_folder_may_have_any_character(name: str, tmp_path: Path, make_study: MakeStudy) -> None:
    config, _ = make_study()
    folder = RunFolder(tmp_path / name)
    folder.create(config)
    open_database(folder, config).ask()
    assert folder.database.is_file()
    assert len(open_database(folder, config).trials()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"study", "run", name}


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "page"])
def test_a_damaged_database_is_refused_in_one_line(damage: str, make_study: MakeStudy) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    content = folder.database.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "garbage": b"not a database, sorry" * 100,
        "empty": b"",
        "page": content[:4096] + bytes(4096) + content[8192:],
    }[damage]
    folder.database.write_bytes(changed)
    with pytest.raises(BadInput, match="damaged|has none; restore") as caught:
        open_database(folder, config)
    assert "\n" not in str(caught.value) and str(folder.path) in str(caught.value)


def test_a_commit_that_was_cut_off_is_rolled_back(make_study: MakeStudy, tmp_path: Path) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    with sqlite3.connect(folder.database, isolation_level=None) as writer:
        # What SIGKILL leaves: pages spilled to the file in mid-transaction, and the journal that undoes them.
        writer.execute("PRAGMA cache_size=2")
        writer.execute("BEGIN")
        writer.execute("UPDATE trials SET state='FAIL'")
        writer.execute(
            "CREATE TABLE filler AS SELECT hex(randomblob(2000)) FROM trials, (VALUES (1),(2),(3),(4),(5),(6))"
        )
        for name in ("study.db", "study.db-journal"):
            shutil.copy(folder.path / name, tmp_path / name)
        writer.execute("ROLLBACK")
    writer.close()
    for name in ("study.db", "study.db-journal"):
        shutil.copy(tmp_path / name, folder.path / name)
    assert state_counts(open_database(folder, config, read_only=True)) == {"COMPLETE": 1}


def test_d9_a_study_of_another_kind_is_refused(make_study: MakeStudy) -> None:
    config, folder = make_study()
    optuna.create_study(storage=f"sqlite:///{folder.database}", study_name="engine", directions=["minimize"] * 2)
    with pytest.raises(BadInput, match="another kind"):
        open_database(folder, config)


def test_a_run_that_died_while_making_the_database_does_no_harm(make_study: MakeStudy) -> None:
    config, folder = make_study()
    folder.database.touch()
    assert open_database(folder, config).ask().number == 0


def test_results_without_a_database_are_not_overwritten(make_study: MakeStudy) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    folder.database.unlink()
    with pytest.raises(BadInput, match="restore study.db"):
        open_database(folder, config)


def test_reading_makes_nothing(make_study: MakeStudy) -> None:
    config, folder = make_study()
    with pytest.raises(NoStudyYet):
        open_database(folder, config, read_only=True)
    assert not folder.database.exists()


def test_an_unreachable_database_is_refused_without_its_password(make_study: MakeStudy) -> None:
    config, folder = make_study()
    with pytest.raises(BadInput) as caught:
        open_database(folder, config, url="nosuch+driver://user:sEcReT@host/db")
    assert "sEcReT" not in str(caught.value)


def test_the_database_reads_with_plain_sqlite_and_plain_optuna(make_study: MakeStudy) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    study = optuna.load_study(study_name="engine", storage=f"sqlite:///{folder.database}")
    assert len(study.trials) == 1
    with sqlite3.connect(folder.database) as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (1,)
    connection.close()

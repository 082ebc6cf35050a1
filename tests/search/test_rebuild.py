"""The study database made anew from the trials' folders: the same trials, and the same proposals after them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_studies import SPACE, MakeStudy, complete, record_of, state_counts

from gs_search import cli
from gs_search.errors import BadInput, StudyBusy
from gs_search.results.record import write_record
from gs_search.results.run_folder import RunFolder
from gs_search.search import rebuild
from gs_search.search.outcomes import Asked
from gs_search.search.rebuild import rebuild_database
from gs_search.search.storage import close_study
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.config import StudyConfig
from gs_search.system.files import write_json

WIDE: dict[str, Any] = {
    **SPACE,
    "round_to": {"type": "int", "low": 1, "high": 16, "step": 5},
    "distill_weight": {"type": "float", "low": 0.5, "high": 3.0, "step": 0.5},
    "feature_weight": {"type": "float", "low": 0.1, "high": 20, "log": True, "when": {"weight_bits": [8, 6]}},
    "steps": 2,
}
STARTS = [
    {"target_gflops_ratio": 0.25, "weight_bits": 4, "round_to": 1, "distill_weight": 1},
    {"target_gflops_ratio": 0.5, "weight_bits": 8, "round_to": 6, "distill_weight": 3, "feature_weight": 10},
]


def snapshot(database: StudyDatabase) -> list[tuple[Any, ...]]:
    """All that the database knows of its trials; times, and what a sampler noted while they ran, left out."""
    kept = ("fixed_params", "constraints", "NSGA")
    return [
        (
            t.number, t.state.name, t.values, list(t.params.items()), t.distributions, t.user_attrs,
            {k: v for k, v in t.system_attrs.items() if k.startswith(kept)},
        )
        for t in database.trials()
    ]  # fmt: skip


def live_a_little(folder: RunFolder, config: StudyConfig, asks: int, runs: int = 4) -> None:
    """Several runs with every kind of ending; the last run leaves nothing running."""
    chance = random.Random(5)
    for _ in range(runs):
        database = open_database(folder, config)
        database.settle(chance.choice(["killed", "interrupted"]), "the run ended")
        database.requeue()
        database.enqueue_start_points()
        live: list[Asked] = []
        for _ in range(asks):
            asked = database.ask()
            if asked.key in database.records:
                database.tell_duplicate(asked, database.records[asked.key])
                continue
            live.append(asked)
            if len(live) > 1:
                end(database, live.pop(0), chance)
    open_database(folder, config).settle("interrupted", "the run ended")


def end(database: StudyDatabase, asked: Asked, chance: random.Random) -> None:
    kind = chance.choice(["complete", "complete", "complete", "pruned", "nan"])
    if kind == "complete":
        record = record_of(database, asked, kid=0.5, latency_ms=1.5, started="2026-11-23T10:00:00+00:00")
    elif kind == "pruned":
        record = record_of(database, asked, state="PRUNED", cause="dominated", message="by 0", objectives=None)
    else:
        database.fail(asked, "nan", "fid is nan")
        return
    database.write_result(record)
    database.tell(record)


def test_all_that_the_database_knew_of_its_trials_comes_back(make_study: MakeStudy) -> None:
    config, folder = make_study(WIDE, STARTS, sampler="random")
    live_a_little(folder, config, asks=8)
    before = snapshot(open_database(folder, config))
    assert {state for _, state, *_ in before} == {"COMPLETE", "PRUNED", "FAIL"}
    assert any("retry_of" in attributes for *_, attributes, _ in before)

    counted = open_database(folder, config).counted()
    folder.database.unlink()
    rebuilt = rebuild_database(folder)
    database = open_database(folder, config)
    assert snapshot(database) == before
    assert (rebuilt.finished, database.counted()) == (counted, counted)
    assert rebuilt.states == {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0} | state_counts(database)
    assert (rebuilt.gaps, rebuilt.left_out, rebuilt.kept) == ((), (), None)
    assert sorted(p.name for p in folder.path.glob("*study.db*")) == ["study.db"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "qmc"])
def test_the_next_run_proposes_what_it_would_have(sampler: str, make_study: MakeStudy) -> None:
    config, folder = make_study(WIDE, STARTS, sampler=sampler)
    database = open_database(folder, config)
    database.enqueue_start_points()
    for _ in range(26):  # more than two generations of the genetic samplers
        complete(database, database.ask())
    before = snapshot(database)

    def go_on() -> list[Asked]:
        """What the next run does, up to its eighth trial."""
        database = open_database(folder, config)
        database.settle("killed", "the run died")
        database.requeue()
        database.enqueue_start_points()
        asked = []
        for _ in range(8):
            asked.append(database.ask())
            database.tell(record_of(database, asked[-1]))
        close_study(database.study)
        return asked

    undisturbed = go_on()
    folder.database.unlink()
    assert rebuild_database(folder).finished == 26
    assert snapshot(open_database(folder, config)) == before
    assert go_on() == undisturbed


def test_trials_that_ran_when_the_database_was_lost_are_proposed_again(make_study: MakeStudy) -> None:
    config, folder = make_study(sampler="random")
    database = open_database(folder, config)
    for _ in range(3):
        complete(database, database.ask())
    running = [database.ask() for _ in range(2)]
    for asked in running:
        folder.trial(asked.number).mkdir()
    folder.database.unlink()

    rebuilt = rebuild_database(folder)
    assert rebuilt.gaps == (3, 4) and rebuilt.finished == 3
    database = open_database(folder, config)
    assert [t.user_attrs["cause"] for t in database.trials()[3:]] == ["interrupted"] * 2
    assert "left no result" in database.trials()[3].user_attrs["message"]
    assert database.requeue() == [], "nothing is known to repeat them from"
    again = [database.ask() for _ in range(2)]
    assert [a.key for a in again] == [a.key for a in running] and [a.number for a in again] == [5, 6]


def test_a_gap_between_results_is_a_turn_that_is_over(make_study: MakeStudy) -> None:
    config, folder = make_study(sampler="random")
    database = open_database(folder, config)
    asked = [database.ask() for _ in range(4)]
    for one in (asked[0], asked[1], asked[3]):
        complete(database, one)
    folder.database.unlink()
    rebuilt = rebuild_database(folder)
    assert rebuilt.gaps == (2,) and rebuilt.states == {"COMPLETE": 3, "PRUNED": 0, "FAIL": 1}
    following = open_database(folder, config).ask()
    assert following.number == 4 and following.key not in {one.key for one in asked}


def test_start_points_that_wait_are_queued_by_the_next_run(make_study: MakeStudy) -> None:
    config, folder = make_study(WIDE, STARTS)
    database = open_database(folder, config)
    database.enqueue_start_points()
    database.ask()
    second = database.ask()
    complete(database, second)
    folder.database.unlink()
    rebuild_database(folder)

    database = open_database(folder, config)
    assert database.counted() == 1 and state_counts(database) == {"COMPLETE": 1, "FAIL": 1}
    database.enqueue_start_points()
    assert state_counts(database)["WAITING"] == 1, "the other one is there"
    first = database.ask()
    assert first.number == 2 and config.space.tunable(first.point) == STARTS[0]


def test_what_is_no_result_of_the_study_is_named(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for _ in range(9):
        complete(database, database.ask())
    good = [record.to_json() for record in folder.results()]

    def write(number: int, text: str) -> None:
        (folder.trial(number) / "result.json").write_text(text)

    write(1, json.dumps(good[1])[:-30])
    write(2, json.dumps({**good[2], "study": "another"}))
    write(3, json.dumps({**good[3], "number": 30}))
    write(4, json.dumps({**good[4], "objectives": {"fid": None}}))
    write(5, json.dumps({**good[5], "point": {**good[5]["point"], "weight_bits": 5}}))
    write(6, json.dumps({**good[6], "state": "RUNNING"}))
    write(7, "[]")
    write_json(folder.trials / "copy of 0" / "result.json", good[0])
    write_json(folder.trials / "123456789" / "result.json", good[0])
    folder.database.unlink()

    rebuilt = rebuild_database(folder)
    assert rebuilt.gaps == (1, 2, 3, 4, 5, 6, 7) and state_counts(open_database(folder, config))["COMPLETE"] == 2
    assert all("\n" not in line and str(folder.trials) in line for line in rebuilt.left_out)
    told = {Path(line.partition("/result.json")[0]).name: line.partition(": ")[2] for line in rebuilt.left_out}
    assert told.pop("1").startswith("cannot be read")
    assert told == {
        "2": "is of study 'another', not of 'engine'",
        "3": "is of trial 30, not of 3",
        "4": "its objective fid is nan",
        "5": "its point is not of this study's space: weight_bits: must be one of 8, 6, 4, not 5",
        "6": "state: input should be 'COMPLETE', 'PRUNED' or 'FAIL'; was another version at work? restore or remove it",
        "7": "holds no JSON object; restore or remove it",
        "copy of 0": "its folder is not the number of a trial",
        "123456789": "its folder is not the number of a trial",
    }


def test_a_damaged_database_is_kept(make_study: MakeStudy) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    close_study(database.study)
    for turn, garbage in enumerate((b"first" * 999, b"second" * 999), start=1):
        folder.database.write_bytes(garbage)
        rebuilt = rebuild_database(folder)
        assert rebuilt.kept == f"{folder.database}.damaged-{turn}"
        assert Path(rebuilt.kept).read_bytes() == garbage
        assert state_counts(open_database(folder, config)) == {"COMPLETE": 1}


def test_what_belongs_to_a_database_goes_with_it(tmp_path: Path) -> None:
    for ending in ("", "-journal", "-wal"):
        (tmp_path / f"study.db{ending}").write_text(f"old{ending}")
    assert rebuild._put_aside(tmp_path / "study.db") == tmp_path / "study.db.damaged-1"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        f"study.db.damaged-1{ending}": f"old{ending}" for ending in ("", "-journal", "-wal")
    }
    (tmp_path / "study.db").touch()
    assert rebuild._put_aside(tmp_path / "study.db") is None, "an empty one is nothing to keep"


def test_a_sound_database_is_replaced_only_by_force_or_by_more_results(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for _ in range(2):
        complete(database, database.ask())
    with pytest.raises(BadInput, match="is sound and has 2 finished trials, trials/ has 2; nothing to do"):
        rebuild_database(folder)
    assert rebuild_database(folder, force=True).kept == f"{folder.database}.damaged-1"
    behind = folder.database.read_bytes()
    complete(database := open_database(folder, config), database.ask())
    folder.database.write_bytes(behind)
    assert rebuild_database(folder).finished == 3


def test_a_copy_that_knows_more_than_the_folders_is_named(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for _ in range(2):
        complete(database, database.ask())
    close_study(database.study)
    os.replace(folder.database, folder.backup)
    (folder.trial(1) / "result.json").unlink()
    (line,) = rebuild_database(folder).left_out
    assert line == f"{folder.backup}: a copy with 2 finished trials, trials/ has 1"


def test_a_rebuild_that_fails_leaves_what_was_there(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    content = folder.database.read_bytes()
    (folder.path / ".study.db.rebuilt").write_bytes(b"of a rebuild that was killed")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "_frozen", full)
        with pytest.raises(OSError, match="No space"):
            rebuild_database(folder, force=True)
    assert folder.database.read_bytes() == content
    assert [p.name for p in folder.path.glob("*study.db*")] == ["study.db"]
    rebuild_database(folder, force=True)


def test_nothing_to_rebuild_from(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = make_study()
    with pytest.raises(BadInput, match="no result to rebuild from"):
        rebuild_database(folder)
    write_json(folder.trial(0) / "result.json", {"study": "another", "number": 0, "state": "FAIL"})
    with pytest.raises(BadInput, match=r"no result to rebuild from \(.*is of study 'another'"):
        rebuild_database(folder)
    monkeypatch.setenv("GS_SEARCH_STORAGE", "postgresql://somewhere/else")
    with pytest.raises(BadInput, match="GS_SEARCH_STORAGE names another database"):
        rebuild_database(folder)
    assert not folder.database.exists()


def test_a_live_run_is_refused_by_name(make_study: MakeStudy) -> None:
    config, folder = make_study()
    complete(database := open_database(folder, config), database.ask())
    script = (
        "import sys; from gs_search.results.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(StudyBusy, match=f"process {other.pid} on .* runs this study"):
            rebuild_database(folder, force=True)
        other.communicate()


def test_the_verb(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for _ in range(3):
        complete(database, database.ask())
    close_study(database.study)
    (folder.trial(1) / "result.json").write_text("{")
    folder.database.write_bytes(b"no database" * 99)

    assert cli.main(["rebuild", str(folder.path)]) == 0
    output, error = capsys.readouterr()
    assert output == (
        f"{folder.database}: 3 finished trials (2 COMPLETE, 1 FAIL); without a result: 1; "
        f"the old database is {folder.database}.damaged-1\n"
    )
    assert error.count("\n") == 1 and error.startswith(f"left out: {folder.trial(1)}/result.json: cannot be read")

    assert cli.main(["rebuild", str(folder.path), "--json"]) == 2
    output, error = capsys.readouterr()
    assert json.loads(output)["kind"] == "BadInput" and error.count("\n") == 1
    assert cli.main(["rebuild", str(folder.path), "--force", "--json"]) == 0
    output, error = capsys.readouterr()
    document = json.loads(output)
    assert document.pop("left_out")[0] in error
    assert document == {
        "study": "engine",
        "folder": str(folder.path),
        "database": str(folder.database),
        "finished": 3,
        "states": {"COMPLETE": 2, "PRUNED": 0, "FAIL": 1},
        "gaps": [1],
        "kept": f"{folder.database}.damaged-2",
    }


def test_trials_of_an_earlier_study_stay_what_they_are(make_study: MakeStudy) -> None:
    config, folder = make_study(WIDE, STARTS, sampler="nsga2")
    database = open_database(folder, config)
    for _ in range(12):
        complete(database, database.ask())
    for record in folder.results():  # as warm_start writes them
        place = folder.trial(record.number)
        write_record(place / "result.json", record.but(warm_start=f"before:{record.number + 3}"))
    database.enqueue_start_points()
    for _ in range(3):
        complete(database, database.ask())

    rebuilt = rebuild_database(folder, force=True)
    database = open_database(folder, config)
    assert (rebuilt.finished, database.taken_over()) == (3, 12)
    assert database.study.user_attrs["earlier_turns"] == {"before": 15}
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in database.trials()]
    assert generations == [0] * 12 + [1] * 3
    database.enqueue_start_points()
    assert state_counts(database) == {"COMPLETE": 15}, "both start points are known"

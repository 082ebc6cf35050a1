"""Optuna's dashboard over a run folder, asked through its own addresses; and its database, which stays as it is."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from gs_search.dashboard import page as page_module
from gs_search.dashboard import source as source_module
from gs_search.dashboard.app import DashboardApp, _OneLine
from gs_search.dashboard.figures import FIGURES
from gs_search.dashboard.gate import DashboardGate
from gs_search.dashboard.source import StudySource, Unreachable
from gs_search.errors import BadInput, GsSearchError
from gs_search.results.pareto import dominates
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import NoStudyYet, close_study, open_study
from gs_search.system.files import read_json, write_json
from tests.dashboard.filled_run import MAX_GFLOPS, frozen, opened
from tests.synthetic_run import result
from tests.web.asking import ask


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put off, and what is made is waited for."""
    monkeypatch.setattr(page_module, "REST_S", 0.0)
    monkeypatch.setattr(page_module, "SHARE", 1.0)
    monkeypatch.setattr(page_module, "WAIT_S", 60.0)
    monkeypatch.setattr(source_module, "RETRY_S", 0.0)


@pytest.fixture
def live(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[DashboardApp]:
    """A dashboard of a folder that the test changes; it asks the database each time."""
    from optuna_dashboard import _inmemory_cache, _storage

    class NoCache(_inmemory_cache.InMemoryCache):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, _Forgetful() if name == "_trials_last_fetched_at" else value)

    monkeypatch.setattr("optuna_dashboard._app.InMemoryCache", NoCache)
    assert _storage.get_trials
    dashboard = DashboardApp(folder)
    yield dashboard
    dashboard.close()


class _Forgetful(dict[int, Any]):
    """Remembers not when trials were fetched."""

    def get(self, key: int, default: Any = None) -> Any:
        return default


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def detail(app: Any) -> dict[str, Any]:
    answer = ask(app, "/api/studies/1")
    assert answer.status == 200
    return dict(answer.json)


def test_the_study_is_filled(app: DashboardApp, original: RunFolder) -> None:
    study = detail(app)
    assert study["objective_names"] == ["FID", "GFLOPs", "size (MB)"]
    assert "**The front**" in study["note"]["body"] and study["note"]["version"] == 0
    assert {entry["id"] for entry in study["plotly_graph_objects"]} == FIGURES.keys()
    for entry in study["plotly_graph_objects"]:
        assert json.loads(entry["graph_object"])["data"]
    assert len(study["trials"]) == 24
    for trial in study["trials"]:
        record = read_json(original.trial(trial["number"]) / "result.json")
        body = trial["note"]["body"]
        if record["state"] == "COMPLETE":
            assert f"{record['objectives']['fid']:.1f}" in body
            assert f"--trial {record['number']}" in body
            assert len(trial["artifacts"]) == 1
        else:
            assert record["cause"] in body and trial["artifacts"] == []


def test_every_sample_grid_is_shown(app: DashboardApp, original: RunFolder) -> None:
    shown = 0
    for trial in detail(app)["trials"]:
        for artifact in trial["artifacts"]:
            answer = ask(app, f"/artifacts/1/{trial['trial_id']}/{artifact['artifact_id']}")
            path = original.trial(trial["number"]) / "samples.png"
            assert answer.status == 200 and answer.body == path.read_bytes()
            assert answer.headers["Content-Type"] == artifact["mimetype"] == "image/png"
            shown += 1
    assert shown == 21
    assert Image.open(io.BytesIO(answer.body)).size[1] == 3 * 32 + 2 * 2


@pytest.mark.parametrize("artifact", ["0" * 32, "ab-cd", "../../teacher", "..%2f..%2fresolved.yaml", "%2e%2e", "a/b"])
def test_nothing_else_can_be_asked_for(app: DashboardApp, artifact: str) -> None:
    own = detail(app)["trials"][0]["artifacts"][0]["artifact_id"]
    assert ask(app, f"/artifacts/1/1/{artifact}").status in (404, 500)
    assert ask(app, f"/artifacts/1/2/{own}").status == 404  # of another trial


def test_the_best_trials_are_the_feasible_front(app: DashboardApp, original: RunFolder) -> None:
    complete = [record for record in original.results() if record.is_complete]
    feasible = [r for r in complete if r.values["gflops"] <= MAX_GFLOPS]
    assert 0 < len(feasible) < len(complete)
    points = {r.number: list(r.values.values()) for r in feasible}
    front = {n for n, p in points.items() if not any(dominates(other, p) for other in points.values())}
    study = detail(app)
    assert {trial["number"] for trial in study["best_trials"]} == front
    infeasible = {t["number"] for t in study["trials"] if any(share > 0 for share in t["constraints"])}
    assert infeasible == {r.number for r in complete} - points.keys()


def test_csv_and_importances(app: DashboardApp) -> None:
    table = ask(app, "/csv/1").body.decode().splitlines()
    assert table[0].startswith("Number,State,FID,GFLOPs,size (MB),Param ") and len(table) == 25
    importances = ask(app, "/api/studies/1/param_importances").json["param_importances"]
    assert len(importances) == 3 and all(importances)


def test_the_page_stays_in_the_window(app: DashboardApp) -> None:
    page = ask(app, "/dashboard/studies/1", if_none_match='"x"', if_modified_since="Fri, 01 Jan 2100 00:00:00 GMT")
    assert page.status == 200 and b'href="/gs-search.css"' in page.body
    assert int(page.headers["Content-Length"]) == len(page.body)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert ask(app, "/dashboard", "HEAD").body == b""
    style = ask(app, "/gs-search.css")
    assert style.status == 200 and style.headers["Content-Type"].startswith("text/css")
    assert ask(app, "/").headers["Location"] == "/dashboard/studies/1"
    assert ask(app, "/static/bundle.js").status == 200  # also for a client that says nothing of gzip


def test_watching_changes_nothing(folder: RunFolder) -> None:
    files = {path: digest(path) for path in folder.path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in files}
    app = DashboardApp(folder)
    gate = DashboardGate(app, port=8080)
    for path in ("/", "/dashboard", "/api/studies", "/api/studies/1", "/csv/1", "/api/studies/1/param_importances"):
        ask(gate, path)
    for method in ("POST", "PUT", "DELETE"):
        for path in ("/api/studies", "/api/studies/1", "/api/studies/1/note", "/api/artifacts/1"):
            assert ask(gate, path, method, body={"version": 1, "body": "x", "study_name": "x"}).status == 403
    app.close()
    assert {path: digest(path) for path in folder.path.rglob("*") if path.is_file()} == files
    assert {path: path.stat().st_mtime_ns for path in files} == times


def test_without_the_gate_it_still_reads_only(folder: RunFolder) -> None:
    """The storage refuses, and below it the database itself."""
    before = digest(folder.database)
    app = DashboardApp(folder)
    note = {"version": 1, "body": "x"}
    assert ask(app, "/api/studies/1/note", "PUT", body=note).status == 500
    assert ask(app, "/api/studies/1", "DELETE", body={}).status == 500
    assert ask(app, "/api/trials/1/user-attrs", "POST", body={"user_attrs": {"a": 1}}).status == 500
    with pytest.raises(GsSearchError, match="--allow-edit"):
        app.storage.set_study_user_attr(1, "a", 1)
    with pytest.raises(Unreachable, match="cannot be read"):
        app.source.ask(lambda storage: storage.set_study_user_attr(1, "a", 1))
    with pytest.raises(optuna.exceptions.StorageInternalError):
        app.source.study().set_user_attr("a", 1)
    app.close()
    assert digest(folder.database) == before


def test_it_follows_a_search(live: DashboardApp, folder: RunFolder) -> None:
    """Another process adds trials, and finishes one."""
    assert len(detail(live)["trials"]) == 24
    study = opened(folder)
    record = result(24)
    record["objectives"] |= {"fid": 1.5, "gflops": 0.001, "size_mb": 0.001}
    study.add_trial(frozen(TrialRecord.from_json(record), folder))
    running = study.ask()
    shown = detail(live)
    assert len(shown["trials"]) == 26 and shown["trials"][25]["state"] == "Running"
    assert "**Running**" in shown["trials"][25]["note"]["body"]
    assert "**Finished**" in shown["trials"][24]["note"]["body"]  # from the database alone: its file is not there yet
    write_json(folder.trial(24) / "result.json", record)
    shutil.copy(folder.trial(3) / "samples.png", folder.trial(24) / "samples.png")
    failed = result(25, "nan") | {"point": {}}
    write_json(folder.trial(25) / "result.json", failed)
    study.tell(running, state=TrialState.FAIL)
    shown = detail(live)
    assert "1.5" in shown["trials"][24]["note"]["body"] and shown["trials"][24]["artifacts"]
    assert "the loss became NaN" in shown["trials"][25]["note"]["body"]
    assert "| **24** knee |" in shown["note"]["body"]
    assert [trial["number"] for trial in shown["best_trials"]] == [24]
    close_study(study)


def test_it_sees_a_database_that_was_put_in_its_place(live: DashboardApp, folder: RunFolder) -> None:
    assert len(detail(live)["trials"]) == 24
    other = folder.path / "other.db"
    shutil.copy(folder.database, other)
    study = open_study("quickstart", other)
    study.add_trial(frozen(TrialRecord.from_json(result(24)), folder))
    close_study(study)
    os.replace(other, folder.database)
    assert len(detail(live)["trials"]) == 25


def test_it_waits_for_a_study(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder.path / "kept.db"
    os.rename(folder.database, kept)
    for path in folder.trials.glob("*/result.json"):
        path.unlink()
    app = DashboardApp(folder)
    for path in ("/", "/dashboard", "/dashboard/studies/1"):
        page = ask(app, path)
        assert page.status == 200 and b"no study database here yet" in page.body and b"refresh" in page.body
    assert ask(app, "/api/studies").json == {"study_summaries": []}
    assert ask(app, "/api/studies/1").status == 404
    monkeypatch.setattr(RunFolder, "holder", lambda self: {"pid": 1, "host": "h", "since": "now"})
    assert b"The run prepares" in ask(app, "/").body
    assert not folder.database.exists(), "looking made a database"
    os.rename(kept, folder.database)
    assert ask(app, "/").status == 302
    assert len(ask(app, "/api/studies").json["study_summaries"]) == 1
    app.close()


def test_other_studies_of_a_database_are_not_shown(folder: RunFolder) -> None:
    other = open_study("somebody_elses", folder.database)
    study_id = other._study_id
    close_study(other)
    app = DashboardApp(folder)
    assert [study["study_name"] for study in ask(app, "/api/studies").json["study_summaries"]] == ["quickstart"]
    assert ask(app, f"/api/studies/{study_id}").status == 404
    app.close()


def test_notes_of_people_reach_the_study(folder: RunFolder) -> None:
    app = DashboardApp(folder, writable=True)
    gate = DashboardGate(app, port=8080, allow_edit=True)
    trial = detail(app)["trials"][3]
    place, body = f"/api/studies/1/{trial['trial_id']}/note", f"Ship it!\n\n{trial['note']['body']}"
    assert ask(gate, place, "PUT", body={"version": 1, "body": body}).status == 204
    assert ask(gate, place, "PUT", body={"version": 1, "body": "late"}).status == 409
    assert ask(gate, "/api/studies/1/note", "PUT", body={"version": 1, "body": "All mine."}).status == 204
    assert ask(gate, "/api/studies/1", "DELETE", body={}).status == 403
    # What the run says changes; what the user says stays.
    record = read_json(folder.trial(3) / "result.json")
    record["objectives"]["fid"] = 12.345
    write_json(folder.trial(3) / "result.json", record)
    study = detail(app)
    note = study["trials"][3]["note"]
    assert note["version"] == 1 and note["body"].startswith("Ship it!\n\n") and "12.3" in note["body"]
    assert study["note"] == {"version": 1, "body": "All mine."}
    app.close()
    stored = opened(folder)
    attributes = stored._storage.get_study_system_attrs(stored._study_id)
    assert attributes[f"dashboard:{trial['trial_id']}:note_str:0"].startswith("Ship it!")
    close_study(stored)


def test_uploads_lie_in_the_run_folder(folder: RunFolder) -> None:
    app = DashboardApp(folder, writable=True)
    gate = DashboardGate(app, port=8080, allow_edit=True)
    file = {"file": "data:text/plain;base64,aGVsbG8=", "filename": "hello.txt"}
    answer = ask(gate, "/api/artifacts/1", "POST", body=file)
    assert answer.status == 201
    place = f"1/{answer.json['artifact_id']}"
    assert ask(gate, f"/artifacts/{place}").body == b"hello"
    assert [path.read_bytes() for path in (folder.path / "artifacts").iterdir()] == [b"hello"]
    assert ask(gate, f"/api/artifacts/{place}", "DELETE").status == 204
    own = detail(app)["trials"][0]
    place = f"/api/artifacts/1/{own['trial_id']}/{own['artifacts'][0]['artifact_id']}"
    assert ask(gate, place, "DELETE").status == 404
    assert (folder.trial(0) / "samples.png").is_file()
    app.close()


# --- the database


def test_a_damaged_database_is_said_in_a_line(folder: RunFolder) -> None:
    folder.database.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(BadInput, match="damaged"):
        StudySource(folder).study()
    page = ask(DashboardApp(folder), "/")
    assert page.status == 200 and b"damaged" in page.body


def test_a_lost_database_is_said_in_a_line(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    app = DashboardApp(folder)
    detail(app)
    study = app.source.study()

    def fail(*arguments: Any, **named: Any) -> Any:
        raise optuna.exceptions.StorageInternalError("postgresql://boss:sEcReT@db/gs went away")

    monkeypatch.setattr(type(study._storage), "get_all_studies", fail)
    logger = logging.getLogger("optuna_dashboard")
    (handler,) = [one for one in logger.handlers if isinstance(one.formatter, _OneLine)]
    stream = io.StringIO()
    monkeypatch.setattr(handler, "stream", stream)
    answer = ask(app, "/api/studies/1")
    assert answer.status == 500 and b"sEcReT" not in answer.body
    assert stream.getvalue().count("\n") == 1 and "cannot be read just now" in stream.getvalue()
    assert "sEcReT" not in stream.getvalue()
    app.close()


def test_an_address_that_nobody_answers_stays_secret(folder: RunFolder) -> None:
    source = StudySource(folder, url="postgresql+psycopg://boss:sEcReT@127.0.0.1:1/gs")
    with pytest.raises(BadInput) as raised:
        source.study()
    assert "sEcReT" not in str(raised.value) and "boss" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_empty_database_of_a_team_is_waited_for(folder: RunFolder, tmp_path: Path) -> None:
    """As PostgreSQL before the run has made its tables."""
    source = StudySource(folder, url=f"sqlite:///{tmp_path}/team.db")
    with pytest.raises(NoStudyYet):
        source.study()
    study = open_study("quickstart", f"sqlite:///{tmp_path}/team.db")
    assert source.study().study_name == study.study_name
    source.close()
    close_study(study)

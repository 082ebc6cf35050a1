"""What a run saves into its study, seen by optuna-dashboard as it comes and by Optuna's own functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna_dashboard import get_note, save_note

from gs_search.dashboard import publish as publish_module
from gs_search.dashboard.figures import FIGURES
from gs_search.dashboard.publish import publish, publish_quietly
from gs_search.dashboard.stored import PIECE
from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import close_study
from gs_search.system.files import read_json, write_json
from tests.dashboard.filled_run import opened
from tests.web.asking import ask


@pytest.fixture
def study(folder: RunFolder) -> Iterator[optuna.Study]:
    found = opened(folder)
    yield found
    close_study(found)


def seen(folder: RunFolder) -> dict[str, Any]:
    """The study as plain optuna-dashboard shows it."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.database}")
    app = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(folder.path / "artifacts"))
    study = ask(app, "/api/studies/1").json
    study["pictures"] = {
        trial["number"]: ask(app, f"/artifacts/1/{trial['trial_id']}/{entry['artifact_id']}").body
        for trial in study["trials"]
        for entry in trial["artifacts"]
    }
    storage.engine.dispose()
    return dict(study)


def changes(study: optuna.Study) -> list[str]:
    """Statements that change something, as they come."""
    from sqlalchemy import event

    found: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if not statement.startswith("SELECT"):
            found.append(statement)

    event.listen(study._storage._backend.engine, "before_cursor_execute", hear)
    return found


def test_plain_optuna_dashboard_shows_it(study: optuna.Study, folder: RunFolder) -> None:
    assert publish(study, folder).pictures == 21
    shown = seen(folder)
    assert shown["objective_names"] == ["FID", "GFLOPs", "size (MB)"]
    assert "**The front**" in shown["note"]["body"]
    assert {entry["id"] for entry in shown["plotly_graph_objects"]} == FIGURES.keys()
    for entry in shown["plotly_graph_objects"]:
        assert json.loads(entry["graph_object"])["data"], "whole, out of pieces"
    for trial in shown["trials"]:
        record = read_json(folder.trial(trial["number"]) / "result.json")
        assert trial["note"]["version"] == 1
        told = f"{record['objectives']['fid']:.1f}" if record["objectives"] else record["cause"]
        assert told in trial["note"]["body"]
        if record["state"] == "COMPLETE":
            path = folder.trial(trial["number"]) / "samples.png"
            assert shown["pictures"][trial["number"]] == path.read_bytes()
    assert get_note(study) == shown["note"]["body"]
    fresh = opened(folder)
    (meta,) = get_all_artifact_meta(fresh.trials[0], storage=fresh._storage)
    assert meta.mimetype == "image/png"
    close_study(fresh)


def test_a_second_time_writes_only_what_is_new(study: optuna.Study, folder: RunFolder) -> None:
    publish(study, folder)
    written = changes(study)
    again = publish(study, folder)
    assert (again.attributes, again.pictures) == (0, 0) and written == []
    record = read_json(folder.trial(3) / "result.json")
    write_json(folder.trial(3) / "result.json", record | {"peak_memory_mb": 123.0})
    assert publish(study, folder).attributes == 2  # the piece of one note, and its version
    assert [line.split(" SET ")[0] for line in written] == ["UPDATE study_system_attributes"]


def test_words_of_people_stay(study: optuna.Study, folder: RunFolder) -> None:
    publish(study, folder)
    save_note(study, f"Mine.\n\n{get_note(study)}\n\nMine too.")
    (folder.trial(0) / "result.json").unlink()
    publish(study, folder)
    note = get_note(study)
    assert note.startswith("Mine.\n\n") and note.endswith("\n\nMine too.") and "**The front**" in note
    save_note(study, "Mine alone.")
    publish(study, folder)
    assert get_note(study) == "Mine alone."


def test_what_grows_shorter_leaves_nothing_behind(
    study: optuna.Study, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publish_module.RunPage.study_now
    long = "x" * (3 * PIECE + 1)

    def longer(self: Any) -> Any:
        page = real(self)
        return type(page)(note=page.note + long, figures={name: json.dumps([long]) for name in page.figures})

    monkeypatch.setattr(publish_module.RunPage, "study_now", longer)
    publish(study, folder)
    monkeypatch.undo()
    publish(study, folder)
    assert "x" * 9 not in get_note(study)
    for entry in seen(folder)["plotly_graph_objects"]:
        assert "x" * 9 not in entry["graph_object"] and json.loads(entry["graph_object"])["data"]


def test_of_many_trials_the_front_and_the_newest(
    study: optuna.Study, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(study, folder)
    monkeypatch.setattr(publish_module, "MOST_NOTES", 15)
    publish(study, folder)
    shown = seen(folder)
    noted = {trial["number"] for trial in shown["trials"] if trial["note"]["body"]}
    front = {trial.number for trial in publish_module.feasible_front(study.get_trials(), study.directions)}
    others = sorted(set(range(24)) - front, reverse=True)
    assert noted == front | set(others[: 15 - len(front)])
    assert len(shown["pictures"]) == 21


def test_it_never_ends_a_run(study: optuna.Study, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    publish_quietly(study, folder, lines.append)
    assert lines == []
    (folder.path / "artifacts").rename(folder.path / "away")
    (folder.path / "artifacts").write_text("a file")
    publish_quietly(study, folder, lines.append)
    assert len(lines) == 1 and lines[0].startswith("notes and figures were not saved into the study (")

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(publish_module, "publish", broken)
    publish_quietly(study, folder, lines.append)
    assert lines[1].endswith("(RuntimeError: two lines)")


def test_where_files_have_one_name_only(
    study: optuna.Study, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("os.link", no_link)
    assert publish(study, folder).pictures == 21
    assert len(seen(folder)["pictures"]) == 21


def test_a_study_in_memory_is_left_alone(folder: RunFolder) -> None:
    assert publish(optuna.create_study(directions=["minimize"] * 3), folder).attributes == 0

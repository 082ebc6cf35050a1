"""What is shown of a run folder, and how often its files are read for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from gs_search.dashboard import page as page_module
from gs_search.dashboard.figures import FIGURES, MOST_TOLD, study_figures
from gs_search.dashboard.page import RunPage
from gs_search.report.content import gather
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from tests.dashboard.filled_run import MAX_GFLOPS


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the JSON files that were really read."""
    read, seen = RunFolder.read, []

    def counted(self: RunFolder, path: Path, reader: Callable[[Path], Any]) -> Any:
        seen.append(f"{path.parent.name}/{path.name}")
        return read(self, path, reader)

    monkeypatch.setattr(RunFolder, "read", counted)
    return seen


def test_files_are_read_when_they_change(folder: RunFolder, reads: list[str]) -> None:
    page = RunPage(folder)
    first = page.study_now()
    notes = [page.trial(number, "COMPLETE").note for number in range(24)]
    assert reads.count("3/result.json") == 1 and reads.count("teacher/baselines.json") == 1
    reads.clear()
    assert page.study_now() == first
    assert [page.trial(number, "COMPLETE").note for number in range(24)] == notes
    assert reads == []

    record = read_json(folder.trial(3) / "result.json")
    record["objectives"]["fid"] = 12.345
    write_json(folder.trial(3) / "result.json", record)
    reads.clear()
    assert "12.3" in page.trial(3, "COMPLETE").note
    assert "12.3" in page.study_now().note
    assert reads == ["3/result.json"]
    baselines = read_json(folder.baselines)
    baselines["teacher"]["fid"] = 45.678
    write_json(folder.baselines, baselines)
    assert "45.7" in page.trial(3, "COMPLETE").note


def test_the_study_is_drawn_anew_when_something_changes(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "REST_S", 0.0)
    monkeypatch.setattr(page_module, "SHARE", 1.0)
    monkeypatch.setattr(page_module, "WAIT_S", 60.0)
    page = RunPage(folder)
    first = page.study()
    assert first.figures.keys() == FIGURES.keys()
    assert page.study() is first
    result = folder.trial(3) / "result.json"
    os.utime(result, ns=(1, 1))
    second = page.study()
    assert second is not first and second == first
    result.unlink()
    assert page.study().note != first.note
    result.write_text("{torn")
    assert "3/result.json" in page.study().note and page.study().figures == {}
    assert "cannot be read" in page.trial(3, "COMPLETE", "nan").note


def test_asking_does_not_wait_for_what_takes_long(original: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(page_module, "WAIT_S", 0.0)
    go_on = threading.Event()
    real = page_module.gather

    def slow(folder: RunFolder) -> Any:
        assert go_on.wait(60)
        return real(folder)

    monkeypatch.setattr(page_module, "gather", slow)
    page = RunPage(original)
    assert page.study().figures == {} and "being drawn" in page.study().note
    making = page._making
    go_on.set()
    assert making is not None
    making.result(60)
    assert page.study().figures.keys() == FIGURES.keys()


def test_infeasible_trials_say_so(original: RunFolder) -> None:
    page = RunPage(original)
    for record in original.results():
        shown = page.trial(record.number, record.state)
        misses = record.is_complete and record.values["gflops"] > MAX_GFLOPS
        assert ("**Infeasible**" in shown.note) is misses
        assert any(share > 0 for share in shown.violated.values()) is misses


def test_a_running_trial_tells_how_far_it_is(folder: RunFolder) -> None:
    page = RunPage(folder)
    assert page.trial(30, "RUNNING").note == "**Running**."
    write_json(folder.trial(30) / "progress.json", {"step": 40, "steps": 80, "psnr_to_teacher": 30.0})
    assert "Step 40 of 80, 30.0 dB" in page.trial(30, "RUNNING").note
    # One that is repeated has a result of its first attempt.
    assert "Running" in page.trial(3, "RUNNING").note and "FID" not in page.trial(3, "RUNNING").note


def test_what_only_the_database_knows(original: RunFolder) -> None:
    shown = RunPage(original).trial(99, "FAIL", "killed", "the run died")
    assert shown.note == "**Failed** (killed).\n\n`the run died`"


def test_a_folder_without_a_trial(folder: RunFolder) -> None:
    for path in folder.trials.glob("*/result.json"):
        path.unlink()
    page = RunPage(folder).study_now()
    assert "no finished trial" in page.note and page.figures == {}


# --- figures


def test_figures_have_titles_axes_and_units(original: RunFolder) -> None:
    drawn, failed = study_figures(gather(original))
    assert failed == [] and list(drawn) == list(FIGURES)
    for name, (title, _) in FIGURES.items():
        figure = go.Figure(json.loads(drawn[name]))  # plotly refuses what it does not know
        layout = figure.layout
        assert layout.title.text == title and layout.paper_bgcolor == "#ffffff" and layout.uirevision
        axes = (layout.scene.xaxis, layout.scene.yaxis, layout.scene.zaxis) if name == "front-space" else (
            layout.xaxis, layout.yaxis
        )  # fmt: skip
        assert all(axis.title.text for axis in axes), name
    words = json.loads(drawn["front-fid-gflops"])["layout"]
    assert "GFLOPs" in words["xaxis"]["title"]["text"] and "FID" in words["yaxis"]["title"]["text"]
    assert "misses a constraint" in drawn["front-fid-gflops"] or "infeasible" in drawn["front-fid-gflops"]


def test_many_points_say_little_each(original: RunFolder) -> None:
    from gs_search.dashboard.figures import _trace

    count = MOST_TOLD + 1
    trace = {
        "type": "scatter",
        "x": list(range(count)),
        "customdata": [[number, str(number)] for number in range(count)],
        "text": ["all that there is to say"] * count,
        "hovertemplate": "%{text}",
    }
    brief = _trace(trace)
    assert "text" not in brief and "%{customdata[0]}" in brief["hovertemplate"]
    assert [entry[0] for entry in brief["customdata"]] == list(range(count))
    few = {**trace, "text": trace["text"][:MOST_TOLD]}
    assert _trace(few) is few


def test_one_figure_fails_alone(folder: RunFolder) -> None:
    for path in folder.trials.glob("*/curve.csv"):
        path.unlink()
    page = RunPage(folder).study_now()
    assert page.figures.keys() == FIGURES.keys() - {"learning-curves"}
    assert "No figure “Learning curves”" in page.note


def test_an_odd_file_hides_nothing_else(folder: RunFolder) -> None:
    page, record = RunPage(folder), read_json(folder.trial(3) / "result.json")
    for field in ("objectives", "layers", "parity", "rungs", "constraints"):
        for value in ({}, {"a": 1}, [1], "x", 7):
            write_json(folder.trial(3) / "result.json", record | {field: value})
            for state in ("COMPLETE", "PRUNED", "FAIL"):
                assert page.trial(3, state).note
            assert "FID" in page.trial(4, "COMPLETE").note
        assert page.study_now().note

"""Full trainings in the report and in the dashboard's notes, from results made by hand."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from gs_search.dashboard.page import RunPage
from gs_search.report.content import gather
from gs_search.report.page import render
from gs_search.results.pick import Wish, pick_document
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.summary import summarize
from gs_search.system.files import write_json
from gs_search.system.lock import hold
from tests.retrain.test_summary import finish, members, short
from tests.synthetic_run import write_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Six full trainings in which the picked one loses its place, and one that has stopped on the way."""
    folder = write_run(tmp_path / "run")
    knee = pick_document(folder, Wish())["trial"]
    trained = [knee, *[number for number in members(folder) if number != knee][:5]]
    for number in trained:
        fid = short(folder, number) + (40.0 if number == knee else -2.0)
        finish(folder, number, fid, test=fid + 1.0)
        shutil.copy(folder.trial(number) / "samples.png", folder.retrained(number) / "samples.png")
    other = next(result.number for result in folder.results() if result.number not in trained)
    write_json(folder.retrained(other) / "schedule.json", {"steps": 400})
    write_json(folder.retrained(other) / "progress.json", {"step": 7, "steps": 400})
    return folder


def cells(html: str) -> list[list[str]]:
    """Rows of the table of full trainings, as text."""
    (table,) = re.findall(r'<table class="full">.*?<tbody>(.*?)</tbody>', html, re.S)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)]
    return [[unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in row] for row in rows]


def test_the_report_shows_them_beside_their_trials(folder: RunFolder) -> None:
    html, summary = render(gather(folder)), summarize(folder)
    assert summary is not None and len(summary["points"]) == 6
    knee = pick_document(folder, Wish())["trial"]
    rows = cells(html)
    assert [int(row[0].split()[0]) for row in rows] == [point["trial"] for point in summary["points"]]
    for row, point in zip(rows, summary["points"], strict=True):
        assert row[0] == str(point["trial"]) + (" chosen" if point["trial"] == knee else "")
        shown = [f"{point['short']['fid']:.1f}", f"{point['full']['fid']:.1f}"]
        gain = point["full"]["fid"] - point["short"]["fid"]
        assert row[1:4] == [*shown, f"{gain:+.1f}".replace("-", "−")]
        assert row[4:6] == [f"{point['short_test_fid']:.1f}", f"{point['test_fid']:.1f}"]
        assert row[6] == f"{point['place_short']} → {point['place_full']}"
    text = unescape(html)
    for line in (*summary["sentences"], *summary["warnings"]):
        assert line in text
    assert (
        "Kendall's tau" in text and "n = 6" in text and "loses its place" in text and "step 7 of 400, stopped" in text
    )
    assert html.count(", trained in full") >= 6 and str(folder.path) not in html


def test_one_that_goes_on_and_one_without_test_pictures(folder: RunFolder) -> None:
    for place in folder.retrain.iterdir():
        if (place / "result.json").is_file() and place.name != str(members(folder)[0]):
            shutil.rmtree(place)
    finish(folder, members(folder)[0], 60.0)
    (running,) = folder.retrain.glob("*/progress.json")
    with hold(running.parent / "lock"):
        html = render(gather(folder))
    assert cells(html)[0][4:6] == ["–", "–"]
    text = unescape(html)
    assert "step 7 of 400." in text and "1 points cannot tell" in text


def test_without_any_there_is_no_section(tmp_path: Path) -> None:
    assert 'id="retrained"' not in render(gather(write_run(tmp_path / "run")))


def test_the_dashboards_notes_tell_of_them(folder: RunFolder) -> None:
    page, summary = RunPage(folder), summarize(folder)
    assert summary is not None
    point = summary["points"][0]
    number = point["trial"]
    note = page.trial(number, "COMPLETE", {}).note
    figures = (point["full"]["fid"], point["short"]["fid"], point["test_fid"], point["short_test_fid"])
    told = "FID {:.1f}, {:.1f} as a trial; on the test pictures {:.1f}, {:.1f} as a trial.".format(*figures)
    assert f"**Trained in full**, 400 steps: {told}" in note
    study = page.study_now().note
    first, *others = (f"{figures[index]:.1f}" for index in (1, 0, 3, 2))
    places = f"{point['place_short']} to {point['place_full']}"
    assert f"| {number} | {first} | {' | '.join(others)} | {places} |" in study
    assert "Kendall's tau" in study and f"**Beware**: the picked trial {summary['picked']['trial']} loses" in study
    finish(folder, number, 1.0, test=2.0)  # trained anew meanwhile
    assert "FID 1.0" in page.trial(number, "COMPLETE", {}).note
    shutil.rmtree(folder.retrain)
    assert "Trained in full" not in page.trial(number, "COMPLETE", {}).note + page.study_now().note

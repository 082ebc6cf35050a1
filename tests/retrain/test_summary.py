"""What full trainings say about short ones: places, agreement, warnings, from results made by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.results.pick import Wish, pick_document, save_pick
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.summary import retrain_document, summarize, write_summary
from gs_search.system.files import read_json, write_json
from gs_search.system.lock import hold
from gs_search.terminal.retrain import retrain_table, summary_lines
from tests.synthetic_run import write_run

STEPS = 400


def finish(folder: RunFolder, number: int, fid: float, *, test: float | None = None, steps: int = STEPS) -> None:
    """The trial ``number``, trained in full, at another FID."""
    trial = read_json(folder.trial(number) / "result.json")
    figures = {"kid": 0.1, "psnr_to_teacher": 30.0}
    kept = None if test is None else {"fid": test, **figures, "short": {"fid": test + 2.0, **figures}}
    if kept is not None:
        kept |= {"protocol": {"id": "test"}, "teacher": {"fid": 60.0, "kid": 0.0}, "input": {"fid": 180.0, **figures}}
    schedule = {"steps": steps, "sparse": 0, "batch_size": 4, "looks": [steps], "workers": 1}
    schedule |= {"at_once": 4, "replaced": {}}
    full = {**trial, "objectives": {**trial["objectives"], "fid": fid}, "split": "val", "test": kept}
    full |= {
        "schedule": schedule,
        "short": trial,
        "looks": [{"step": steps, "fid": fid, **figures}],
        "best_step": steps,
    }
    write_json(folder.retrained(number) / "result.json", full)


def short(folder: RunFolder, number: int) -> float:
    return float(read_json(folder.trial(number) / "result.json")["objectives"]["fid"])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run")


def members(folder: RunFolder) -> list[int]:
    from gs_search.results.front import front_document

    return [member["number"] for member in front_document(folder)["front"]]


def test_nothing_trained_is_nothing_to_say(folder: RunFolder) -> None:
    assert retrain_document(folder) is None and summarize(folder) is None and write_summary(folder) is None
    assert not folder.retrain.exists()


def test_an_order_that_holds(folder: RunFolder) -> None:
    numbers = members(folder)[:6]
    for number in numbers:
        finish(folder, number, short(folder, number) - 5, test=short(folder, number) - 3)
    document = write_summary(folder)
    assert document is not None
    found = document["agreement"]
    assert (found["n"], found["kendall_tau"], found["split"], found["enough"]) == (6, 1.0, "test", True)
    order = sorted(numbers, key=lambda number: short(folder, number))
    assert [point["trial"] for point in document["points"]] == order
    assert [(p["place_short"], p["place_full"]) for p in document["points"]] == [(k, k) for k in range(1, 7)]
    point = document["points"][0]
    assert point["test_fid"] == point["short"]["fid"] - 3 and point["short_test_fid"] == point["test_fid"] + 2
    assert document["warnings"] == []
    assert "for 6 of them" in document["sentences"][0] and "n = 6" in document["sentences"][1]
    stored = json.loads((folder.retrain / "summary.json").read_text())
    assert {name: stored[name] for name in document} == json.loads(json.dumps(document))
    assert summary_lines(document) == document["sentences"]


def test_without_test_pictures_validation_has_to_do(folder: RunFolder) -> None:
    first, second = members(folder)[:2]
    finish(folder, first, 70.0, test=71.0)
    finish(folder, second, 60.0)
    document = summarize(folder)
    assert document is not None and document["agreement"]["split"] == "val"
    assert {p["trial"]: p["test_fid"] for p in document["points"]} == {first: 71.0, second: None}
    assert document["agreement"] | {"split": None} == document["agreement_val"] | {"split": None}


def test_too_few_points_are_said_to_be(folder: RunFolder) -> None:
    for number in members(folder)[:4]:
        finish(folder, number, short(folder, number), test=short(folder, number))
    document = summarize(folder)
    assert document is not None and not document["agreement"]["enough"]
    (warning,) = document["warnings"]
    assert warning.startswith("4 points cannot tell") and "--front 5" in warning


@pytest.mark.parametrize("gap", [1.0, 40.0])
def test_the_picked_one_loses_its_place(folder: RunFolder, gap: float) -> None:
    numbers = members(folder)
    save_pick(folder, pick_document(folder, Wish(max_gflops=1.0)))
    best = min(numbers, key=lambda number: short(folder, number))
    for number in numbers:
        finish(folder, number, 65.0, test=70.0 + gap if number == best else 70.0 + 0.001 * number)
    document = summarize(folder)
    assert document is not None
    assert document["picked"]["trial"] == best and document["picked"]["by"] == "pick.json"
    assert document["picked"]["place_short"] == 1 and document["picked"]["place_full"] != 1
    (warning,) = document["warnings"]
    assert f"the picked trial {best} loses its place" in warning
    assert ("within the noise" in warning) == (gap < document["tie_margin"])


def test_a_cheaper_one_that_is_better_beats_it(folder: RunFolder) -> None:
    cheap, knee = members(folder)[0], pick_document(folder, Wish())["trial"]
    finish(folder, cheap, 50.0, test=50.0)
    finish(folder, knee, 90.0, test=90.0)
    document = summarize(folder)
    assert document is not None
    assert document["picked"]["by"] == "knee" and document["picked"]["beaten_by"] == [cheap]
    assert any("beats it in FID, GFLOPs and MB" in warning for warning in document["warnings"])


def test_one_that_was_not_trained_cannot_lose(folder: RunFolder) -> None:
    knee = pick_document(folder, Wish())["trial"]
    for number in [number for number in members(folder) if number != knee][:5]:
        finish(folder, number, 100.0 - number, test=100.0 - number)
    document = summarize(folder)
    assert document is not None and document["picked"] is None and document["warnings"] == []


def test_only_equal_lengths_are_compared(folder: RunFolder) -> None:
    first, second, third = members(folder)[:3]
    finish(folder, first, 70.0)
    finish(folder, second, 71.0)
    finish(folder, third, 72.0, steps=9000)
    document = summarize(folder)
    assert document is not None and document["schedule"]["steps"] == STEPS and document["left_out"] == [third]
    assert f"not compared: {third}" in document["sentences"][-1]
    longer = summarize(folder, read_json(folder.retrained(third) / "result.json")["schedule"])
    assert longer is not None and longer["left_out"] == sorted((first, second))
    assert longer["agreement"]["kendall_tau"] is None


def test_the_document_tells_what_is_finished_and_what_is_not(folder: RunFolder) -> None:
    first, second = members(folder)[:2]
    finish(folder, first, 70.0, test=71.0)
    place = folder.retrained(second)
    write_json(place / "schedule.json", {"steps": 400})
    document = retrain_document(folder)
    assert document is not None and [one["number"] for one in document["retrained"]] == [first]
    assert document["retrained"][0]["folder"] == f"retrain/{first}"
    told = {"trial": second, "folder": f"retrain/{second}", "alive": False, "step": 0, "steps": 400}
    assert document["running"] == [told]
    write_json(place / "progress.json", {"step": 7, "steps": 400, "seconds_left": 3.5})
    with hold(place / "lock"):
        again = retrain_document(folder)
    assert again is not None and again["running"] == [told | {"alive": True, "step": 7, "seconds_left": 3.5}]
    assert again["summary"] == document["summary"] == summarize(folder)


def test_a_torn_result_is_named(folder: RunFolder) -> None:
    finish(folder, 0, 70.0)
    (folder.retrained(0) / "result.json").write_text("{")
    with pytest.raises(BadInput, match=r"retrain/0/result\.json"):
        summarize(folder)


@pytest.mark.parametrize("test", [71.25, None])
def test_the_table_shows_short_and_full(folder: RunFolder, test: float | None) -> None:
    from rich.console import Console

    number = members(folder)[0]
    finish(folder, number, 66.5, test=test)
    record = folder.full_result(number)
    assert record is not None
    shown = io.StringIO()
    Console(width=140, file=shown).print(retrain_table(record, folder.measured()))
    text = shown.getvalue()
    assert "66.50" in text and f"{short(folder, number):.2f}" in text
    assert ("71.25" in text) == (test is not None) and ("keeps no test pictures" in text) == (test is None)

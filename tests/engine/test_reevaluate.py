"""Running members of a front again: what is run, what is kept, what the front says then. Trainings are stand-ins here;
tests/test_trial.py has a real one."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gs_search.cli import main
from gs_search.engine.reevaluate import reevaluate
from gs_search.errors import BadInput, StudyBusy
from gs_search.results.fid_uncertainty import interval
from gs_search.results.front import front_document, front_table
from gs_search.results.repeats import place_of, read_repeats, repeat_is_there, seed_of
from gs_search.results.run_folder import RunFolder
from gs_search.search.rebuild import _read
from gs_search.system.files import read_json, write_json
from gs_search.system.lock import hold
from tests.job_stand_ins import write_repeat
from tests.synthetic_run import write_run

STAND_IN = "tests.job_stand_ins:train"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = write_run(tmp_path / "run", trials=5, failures=False)
    # On a CPU there is no need to ask torch for GPUs, which takes seconds to import.
    text = folder.resolved_yaml.read_text()
    folder.resolved_yaml.write_text(text.replace("device: auto", "device: cpu"))
    return folder


def run(folder: RunFolder, numbers: list[int], seeds: int) -> tuple[dict[str, int], list[str]]:
    lines: list[str] = []
    (folder.path / "calls").unlink(missing_ok=True)
    done = reevaluate(folder, numbers, seeds, workers=1, note=lines.append, function=STAND_IN)
    return done, lines


def calls(folder: RunFolder) -> list[str]:
    return (folder.path / "calls").read_text().split() if (folder.path / "calls").exists() else []


def test_what_is_there_is_not_run_again(folder: RunFolder) -> None:
    done, lines = run(folder, [2, 3], 2)
    assert done == {"run": 4, "before": 0, "failed": 0}
    assert calls(folder) == ["2/1", "3/1", "2/2", "3/2"], "a seed of all before the next of any"
    assert lines[0] == "4 trainings to go, 1 at once"
    first = read_json(folder.trial(2) / "result.json")["objectives"]["fid"]
    assert lines[1].startswith(f"[1/4] trial 2, seed 1: fid {first + 1:.2f}, {first:.2f} in the search, about ")
    assert "left" not in lines[-1]
    assert run(folder, [2, 3], 2)[0] == {"run": 0, "before": 4, "failed": 0} and calls(folder) == []
    shutil.rmtree(place_of(folder, 2, 1))
    (place_of(folder, 3, 2) / "subsets.json").unlink()
    done, lines = run(folder, [2, 3], 3)
    assert done == {"run": 4, "before": 2, "failed": 0}
    assert calls(folder) == ["2/1", "3/2", "2/3", "3/3"] and lines[0] == "4 trainings to go, 1 at once; 2 are there"


def test_a_failure_is_tried_again_unless_it_would_fail_again(folder: RunFolder) -> None:
    done, lines = run(folder, [0, 1], 1)
    assert done == {"run": 2, "before": 0, "failed": 2}
    assert "trial 0, seed 1: failed (nan): the loss is nan" in lines[1]
    assert "trial 1, seed 1: failed: RuntimeError: the disk was full" in lines[2]
    assert run(folder, [0, 1], 1)[0] == {"run": 1, "before": 1, "failed": 1} and calls(folder) == ["1/1"]
    assert read_repeats(folder, folder.results()[0]).failed == 1
    assert read_repeats(folder, folder.results()[1]).failed == 0


def test_a_run_beside_it_is_refused(folder: RunFolder) -> None:
    me = threading.get_ident()
    other = {"pid": 1, "host": "elsewhere", "since": "today", "boot": None, "started": None}
    folder.lock_file.write_text(json.dumps(other))
    with pytest.raises(StudyBusy, match="process 1 on elsewhere"):
        run(folder, [2], 1)
    folder.lock_file.unlink()
    with hold(folder.lock_file):
        assert run(folder, [2], 1)[0]["run"] == 1
    assert me == threading.get_ident() and not folder.lock_file.exists()


def test_repetitions_are_no_trials(folder: RunFolder) -> None:
    before = folder.results(), _read(folder, folder.config())
    write_repeat(folder, 2, 1, 250.0)
    assert (folder.results(), _read(folder, folder.config())) == before


def test_what_counts_as_a_repetition(folder: RunFolder) -> None:
    result = folder.results()[2]
    for k, fid in ((1, 70.0), (2, 74.0), (10, 72.0)):
        write_repeat(folder, 2, k, fid)
    write_repeat(folder, 2, 3, 1.0, key="another point")
    write_repeat(folder, 2, 4, 1.0, protocol="another")
    write_repeat(folder, 2, 5, 1.0, state="FAIL", cause="collapse")
    write_json(place_of(folder, 2, 6) / "result.json", result.to_json())  # not measured on subsets yet
    found = read_repeats(folder, result)
    assert found.reading.others == (70.0, 74.0, 72.0) and found.failed == 1
    assert found.reading.first == result.fid
    assert found.reading.subsets[0] == (69.0, 71.0, 73.0)
    assert [repeat_is_there(folder, result, k) for k in range(1, 8)] == [True, True, False, False, True, False, False]
    (place_of(folder, 2, 1) / "result.json").write_text("{")
    with pytest.raises(BadInput, match="again/1/result.json: cannot be read"):
        read_repeats(folder, result)


def test_seeds_differ_and_stay() -> None:
    seeds = {seed_of(study, key, k) for study in (0, 1) for key in ("a", "b") for k in range(1, 5)}
    assert len(seeds) == 16 and all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, "a", 1) == 510953283


def test_the_front_shows_intervals(folder: RunFolder) -> None:
    plain = front_document(folder)
    assert plain["reevaluation"] is None and {member["repeats"] for member in plain["front"]} == {None}
    assert "other seeds" not in shown(plain)
    best, next_best = sorted(plain["front"], key=lambda member: member["objectives"]["fid"])[:2]
    fids = [best["objectives"]["fid"] + more for more in (40.0, 41.0, 42.0)]
    for k, fid in enumerate(fids, 1):
        write_repeat(folder, best["number"], k, fid)
        write_repeat(folder, next_best["number"], k, next_best["objectives"]["fid"] + k / 10)
    document = front_document(folder)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    member = next(member for member in document["front"] if member["number"] == best["number"])
    low, high = interval(fids) or (0, 0)
    assert (member["repeats"]["mean"], member["repeats"]["low"], member["repeats"]["high"]) == (fids[1], low, high)
    assert member["repeats"]["subset_std"] == pytest.approx(2.0)
    assert member["objectives"] == best["objectives"], "what the search measured stays"
    order = document["reevaluation"]
    assert (order["members"], order["decided"], order["turned"]) == (2, 1, 1)
    assert order["shift"] == pytest.approx((41 + 0.2) / 2)
    text = shown(document)
    assert f"{fids[1]:.1f} ± {high - fids[1]:.1f} (3)" in text
    assert "2 members run again with 3 other seeds" in text and "1 of them against the search" in text
    assert max(map(len, text.splitlines())) <= 120


def shown(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(front_table(document))
    return stream.getvalue()


def test_one_other_seed_is_told_as_what_it_is(folder: RunFolder) -> None:
    numbers = [member["number"] for member in front_document(folder)["front"]]
    for number in numbers:
        write_repeat(folder, number, 1, 70.0)
    write_repeat(folder, numbers[0], 1, 70.0, state="FAIL", cause="nan")
    text = shown(front_document(folder))
    assert "70.0 (1)" in text and "(1 failed)" in text and "one other seed decides nothing" in text


def test_the_verb(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def stand_in(found: RunFolder, numbers: list[int], seeds: int, **options: Any) -> dict[str, int]:
        asked.append((numbers, seeds, options["workers"]))
        options["note"]("a line")
        for number in numbers:
            write_repeat(found, number, 1, 70.0)
        return {"run": len(numbers), "before": 0, "failed": 1}

    monkeypatch.setattr("gs_search.engine.reevaluate.reevaluate", stand_in)
    assert main(["front", str(folder.path), "--reevaluate", "1", "--workers", "2", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    numbers = [member["number"] for member in document["front"]]
    assert asked == [(numbers, 1, 2)] and {member["repeats"]["mean"] for member in document["front"]} == {70.0}
    assert captured.err.splitlines()[0] == "a line" and "1 of" in captured.err
    assert main(["front", str(folder.path), "--workers", "2"]) == 2
    assert main(["front", str(folder.path), "--reevaluate", "0"]) == 2

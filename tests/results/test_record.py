"""What ``result.json`` and ``baselines.json`` hold, as they are read and written again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gs_search.errors import BadInput
from gs_search.results.record import (
    SCHEMA,
    Baselines,
    FullRecord,
    Rung,
    TrialRecord,
    read_baselines,
    read_full,
    read_trial,
    write_record,
)
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import baselines

OLD = sorted((Path(__file__).parents[1] / "fixtures/run_folders").glob("*/*"))
FAILED = {"schema": 1, "study": "s", "number": 3, "state": "FAIL", "cause": "nan", "key": "a=1", "objectives": None}


@pytest.mark.parametrize("folder", OLD, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_what_earlier_versions_wrote_is_written_again_without_a_change(folder: Path, tmp_path: Path) -> None:
    readers = {"trials": read_trial, "retrain": read_full, "teacher": read_baselines}
    files = [
        *folder.glob("trials/*/result.json"),
        *folder.glob("retrain/*/result.json"),
        folder / "teacher/baselines.json",
    ]
    assert len(files) > 3
    for file in files:
        write_record(tmp_path / "again.json", readers[file.relative_to(folder).parts[0]](file))
        assert read_json(tmp_path / "again.json") == read_json(file)


def test_unknown_fields_of_a_later_version_survive(tmp_path: Path) -> None:
    content = FAILED | {
        "mood": "sad",
        "rungs": [{"step": 0, "psnr_to_teacher": 20.5, "gflops": 1.0, "size_mb": 2, "seconds": 3, "ms": 4}],
    }
    write_json(tmp_path / "result.json", content)
    record = read_trial(tmp_path / "result.json").but(cause="killed")
    write_record(tmp_path / "result.json", record)
    assert read_json(tmp_path / "result.json") == content | {"cause": "killed"}


def test_what_json_cannot_say_is_null_and_comes_back_as_nan(tmp_path: Path) -> None:
    rung = Rung(step=0, psnr_to_teacher=math.inf, gflops=1.0, size_mb=1.0, seconds=1.0)
    objectives = {"fid": math.nan, "gflops": 1.0, "size_mb": 1.0}
    write_record(tmp_path / "r.json", TrialRecord(number=0, state="COMPLETE", objectives=objectives, rungs=(rung,)))
    assert "NaN" not in (tmp_path / "r.json").read_text()
    record = read_trial(tmp_path / "r.json")
    assert math.isnan(record.fid) and math.isnan(record.rungs[0].psnr_to_teacher) and record.values["gflops"] == 1.0


def test_a_record_does_not_change() -> None:
    record = TrialRecord.from_json(FAILED)
    with pytest.raises(ValueError, match="frozen"):
        record.number = 4  # type: ignore[misc]
    assert record.but(number=4).number == 4 and record.number == 3
    assert not record.is_complete and TrialRecord(number=0, state="COMPLETE").is_complete


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "RUNNING"}, "state: input should be 'COMPLETE', 'PRUNED' or 'FAIL'"),
        ({"number": "three"}, "number: input should be a valid integer"),
        ({"rungs": [{"step": 0}]}, "rungs.0.psnr_to_teacher: field required"),
        ({"layers": 7}, "layers: input should be a valid tuple"),
        ({"objectives": {"fid": "low"}}, "objectives.fid: input should be a valid number"),
        ({"schema": SCHEMA + 1}, f"is of a later version (schema {SCHEMA + 1}, this one reads {SCHEMA})"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", FAILED | change)
    with pytest.raises(BadInput) as caught:
        read_trial(tmp_path / "result.json")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'result.json'}: {said}") and "\n" not in text


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", "null", '{"a":' * 100_000])
@pytest.mark.parametrize("reader", [read_trial, read_full, read_baselines])
def test_what_is_no_record_is_refused_in_one_line(content: str, reader: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadInput, match="x.json: ") as caught:
        reader(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_full_training_is_a_trial_with_more() -> None:
    assert issubclass(FullRecord, TrialRecord)
    more = set(FullRecord.model_fields) - set(TrialRecord.model_fields)
    assert more == {"split", "schedule", "best_step", "looks", "last", "test", "short"}


def test_noise_that_was_not_measured_is_none() -> None:
    content = baselines()
    assert Baselines.from_json(content).fid_std == content["noise"]["fid_std"]
    assert Baselines.from_json(content | {"noise": {}}).fid_std == 0.0
    assert json.loads(json.dumps(Baselines.from_json(content).to_json())) == content

"""What ``gs-search front`` prints, on a run folder made by hand."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from gs_search.errors import BadInput, NothingFeasible
from gs_search.results.front import front_document, front_notes, front_table
from gs_search.results.pareto import dominates
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("front") / "run")


def test_document(folder: RunFolder) -> None:
    document = front_document(folder)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    costs = {
        result.number: [result.values[name] for name in document["objectives"]]
        for result in folder.results()
        if result.is_complete
    }
    assert document["finished"] == len(costs)
    numbers = [member["number"] for member in document["front"]]
    for number, cost in costs.items():
        beaten = any(dominates(other, cost) for other in costs.values())
        assert beaten is (number not in numbers)
    assert document["knee"] in numbers
    flops = [member["objectives"]["gflops"] for member in document["front"]]
    assert flops == sorted(flops)
    assert 0 < document["hypervolume"] < 1
    reference = document["reference_point"]
    assert reference["fid"] == 1.5 * document["input"]["fid"]
    assert (reference["gflops"], reference["size_mb"]) == (
        document["teacher"]["gflops"],
        document["teacher"]["size_mb"],
    )
    assert Path(document["front"][0]["folder"]).is_dir()


def test_table(folder: RunFolder) -> None:
    document = front_document(folder)
    stream = io.StringIO()
    Console(file=stream, width=120).print(front_table(document))
    lines = stream.getvalue().splitlines()
    for member in document["front"]:
        assert any(line.split()[:1] == [str(member["number"])] for line in lines)
    assert sum("knee" in line for line in lines) == 1
    assert any("teacher" in line and "100%" in line for line in lines)
    # A figure that was not measured is a dash, not an error.
    document["front"][0] |= {"latency_ms": None, "kid": None}
    Console(file=stream, width=120).print(front_table(document))


def test_latencies_of_two_kinds_of_machine_are_told_apart(folder: RunFolder) -> None:
    document = front_document(folder)
    first, second = document["front"][:2]
    first["node"] = {"host": "a", "cpu": "EPYC", "gpu": "H200", "id": "1"}
    second["node"] = {**first["node"], "host": "b"}
    assert not any("latencies" in note for note in front_notes(document)), "the same kind"
    second["node"] = {**first["node"], "gpu": None}
    assert "latencies compare only on one kind of machine, and these are 2: EPYC; EPYC and H200" in front_notes(
        document
    )


def test_hypervolume_is_a_share(tmp_path: Path) -> None:
    """One student at half the reference in each objective holds an eighth of the box."""
    folder = write_run(tmp_path / "run", trials=1, failures=False)
    reference = front_document(folder)["reference_point"]
    result = read_json(folder.trial(0) / "result.json")
    result["objectives"] = {name: value / 2 for name, value in reference.items()}
    write_json(folder.trial(0) / "result.json", result)
    assert math.isclose(front_document(folder)["hypervolume"], 1 / 8)


def test_no_finished_trial(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1, failures=False)
    result = read_json(folder.trial(0) / "result.json")
    write_json(folder.trial(0) / "result.json", result | {"state": "FAIL", "cause": "nan"})
    with pytest.raises(NothingFeasible, match=r"no finished trial \(1 nan\)"):
        front_document(folder)


def test_two_protocols_are_never_mixed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=2, failures=False)
    result = read_json(folder.trial(1) / "result.json")
    write_json(folder.trial(1) / "result.json", result | {"protocol": "another"})
    with pytest.raises(BadInput, match="trial 1 was measured by protocol another"):
        front_document(folder)


def test_torn_baselines(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1, failures=False)
    folder.baselines.write_text("{")
    with pytest.raises(BadInput, match="baselines.json: cannot be read"):
        front_document(folder)

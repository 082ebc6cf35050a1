"""The command line on a run folder in an object store, from a machine that has never seen it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gs_search.cli import main
from gs_search.remote import joining
from gs_search.results.run_folder import RunFolder
from tests.remote.s3 import BUCKET, KEYS, S3Server
from tests.remote.test_mirror import upload
from tests.synthetic_run import write_run


@pytest.fixture
def uri(s3: S3Server, tmp_path: Path) -> str:
    write_run(tmp_path / "run", trials=6)
    return upload(s3, tmp_path / "run", tmp_path.name)


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main([*arguments, "--json"]) == code
    said = capsys.readouterr()
    assert not any(secret in said.out + said.err for secret in KEYS.values())
    return json.loads(said.out)


def test_who_looks_sees_what_is_there(
    s3: S3Server, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = s3.names(tmp_path.name)
    here = document(capsys, "front", str(tmp_path / "run"))
    there = document(capsys, "front", uri + "/")
    assert there["folder"] == uri and there["hypervolume"] == here["hypervolume"]
    assert [(m["number"], m["objectives"]) for m in there["front"]] == [
        (m["number"], m["objectives"]) for m in here["front"]
    ]
    assert document(capsys, "status", uri)["folder"] == uri
    assert s3.names(tmp_path.name) == before


def test_what_is_written_goes_there(s3: S3Server, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picked = document(capsys, "pick", uri, "--save")
    assert json.loads(s3.get(f"{tmp_path.name}/pick.json"))["trial"] == picked["trial"]
    path = Path(document(capsys, "report", uri)["report"])
    assert s3.get(f"{tmp_path.name}/report.html") == path.read_bytes()


def test_the_end_of_a_watch_is_the_end_of_the_run(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gs_search.terminal.status import watch

    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 2:
            raise KeyboardInterrupt

    watch(uri, as_json=True, sleep=sleep)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and json.loads(lines[0])["phase"] == "not_begun"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://nobodys-bucket/x", "s3://nobodys-bucket/x: there is no such bucket; make it, or mend the name"),
        (f"s3://{BUCKET}/nothing", f"s3://{BUCKET}/nothing: no such folder"),
        ("s3://me:sEcReT@b/x", "holds a key"),
        ("ftp://host/x", "no object store that is known"),
        (f"s3://{BUCKET}/x?bogus=1", "pyarrow cannot open it: Unexpected query parameter"),
    ],
)
@pytest.mark.parametrize("verb", ["status", "front"])
def test_bad_places_are_one_line(
    s3: S3Server, capsys: pytest.CaptureFixture[str], verb: str, place: str, said: str
) -> None:
    problems = document(capsys, verb, place, code=2)["problems"]
    assert len(problems) == 1 and said in problems[0] and "sEcReT" not in problems[0]


def test_a_run_says_so_before_it_begins(
    s3: S3Server, uri: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(repository / "studies" / "quickstart.yaml")
    (problem,) = document(capsys, "run", study, "--out", "s3://nobodys-bucket/x", code=2)["problems"]
    assert "no such bucket" in problem
    s3.put("other/notes.txt", b"mine")
    (problem,) = document(capsys, "run", study, "--out", f"s3://{BUCKET}/other", code=2)["problems"]
    assert "holds other files (notes.txt)" in problem
    assert s3.names("other") == ["notes.txt"]


def test_a_copy_of_a_missing_library_is_named(
    s3: S3Server, uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setattr(joining, "_opened", {})
    (problem,) = document(capsys, "status", uri, code=2)["problems"]
    assert "needs pyarrow" in problem and "pip install pyarrow" in problem


def test_points_are_not_queued_where_a_live_run_would_not_see_them(
    s3: S3Server, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    point = '{"target_gflops_ratio": 0.3}'
    with RunFolder(uri, at_work=True).lock():
        (problem,) = document(capsys, "enqueue", uri, "--point", point, code=2)["problems"]
    assert "runs this study, and has its database" in problem and "GS_SEARCH_STORAGE" in problem


def test_a_database_that_is_made_anew_goes_there(
    s3: S3Server, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = document(capsys, "rebuild", uri)["finished"]
    assert s3.get(f"{tmp_path.name}/study.db").startswith(b"SQLite format 3")
    assert finished and document(capsys, "status", uri)["finished"] == finished
    assert not [name for name in s3.names(tmp_path.name) if name.startswith((".", "lock", "study.db-"))]

"""Files are written whole or not at all, and JSON among them says what cannot be read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.system.files import draft_of, read_json, write_file, write_json, write_text


def test_a_draft_takes_the_place_of_the_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with draft_of(path) as draft:
        draft.write_text("first")
        assert not path.exists() and draft.parent == path.parent
    assert path.read_text() == "first" and os.listdir(path.parent) == ["file.txt"]
    with draft_of(path, durable=False):
        pass
    assert path.read_text() == "first", "no draft, no change"


@pytest.mark.parametrize("durable", [True, False])
def test_an_interrupted_write_leaves_what_was_there_and_nothing_else(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), draft_of(path, durable=durable) as draft:
        draft.write_text("hal")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file.txt"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("content"), fsync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), replace(a, b))[1])
    write_text(tmp_path / "a", "text")
    with draft_of(tmp_path / "b", durable=False) as draft:
        draft.touch()
    assert done == ["content", "name", "name"]


def test_json_comes_back_and_numbers_that_it_has_not_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": (1, 2.5), 3: math.inf, "n": [math.nan], "s": "ä"})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5], "3": None, "n": [None], "s": "ä"}
    json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("", "cannot be read"),
        ('{"a": 1', "cannot be read"),
        ("[1]", "holds no JSON object"),
        ("[" * 200_000, "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_what_is_no_json_object_is_named(content: str | bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadInput) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {said}") and "\n" not in str(caught.value)


def test_a_file_of_the_users_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.csv", b"1,2")
    assert (tmp_path / "a" / "b.csv").read_bytes() == b"1,2"
    with pytest.raises(BadInput, match=r"b\.csv/c: cannot be written \(Not a directory|File exists"):
        write_file(tmp_path / "a" / "b.csv" / "c", b"")

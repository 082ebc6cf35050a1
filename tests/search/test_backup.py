"""The copy that a run keeps of its database, and the line that says what to do when the database is damaged."""

from __future__ import annotations

import os
import random
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_studies import MakeStudy, complete

from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.search import backup
from gs_search.search.backup import RollingCopy, copy_file, finished_in
from gs_search.search.storage import Damaged, close_study, damage
from gs_search.search.study_database import open_database


@pytest.fixture
def folder(make_study: MakeStudy) -> RunFolder:
    """A study of three trials."""
    config, folder = make_study()
    database = open_database(folder, config)
    for _ in range(3):
        complete(database, database.ask())
    close_study(database.study)
    return folder


def test_it_is_made_after_the_first_trial_then_after_so_many_or_so_long(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(backup.time, "monotonic", lambda: now[0])
    made: list[bool] = []
    monkeypatch.setattr(backup, "copy_file", lambda source, target: made.append(True))
    rolling = RollingCopy(folder, pytest.fail)
    copies = []
    for trial in range(1, 31):
        now[0] += backup.EVERY_S if trial == 25 else 0.0
        rolling.told()
        copies += [trial] if made else []
        made.clear()
    assert copies == [1, 11, 21, 25]


def test_a_copy_of_a_database_that_is_being_written_is_whole(folder: RunFolder) -> None:
    with sqlite3.connect(folder.database, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        copy_file(folder.database, folder.backup)
        writer.execute("ROLLBACK")
    writer.close()
    assert finished_in(folder.backup, "engine") == 3
    assert sorted(p.name for p in folder.path.glob("*study.db*")) == ["study.db", "study.db.backup"]


def test_what_a_run_that_died_while_copying_left_does_no_harm(folder: RunFolder) -> None:
    for name in (".study.db.backup.draft", ".study.db.backup.draft-journal"):
        (folder.path / name).write_bytes(b"half" * 1000)
    copy_file(folder.database, folder.backup)
    assert finished_in(folder.backup, "engine") == 3
    assert sorted(p.name for p in folder.path.glob(".*")) == []


def test_trouble_is_noted_once_and_the_older_copy_stays(folder: RunFolder) -> None:
    notes: list[str] = []
    rolling = RollingCopy(folder, notes.append)
    rolling.make()
    older = folder.backup.read_bytes()
    content = folder.database.read_bytes()
    folder.database.write_bytes(content[:8192] + bytes(4096) + content[12288:])
    for _ in range(2):
        rolling.make()
    (note,) = notes
    assert note.startswith("no new copy of study.db: ") and "\n" not in note
    assert folder.backup.read_bytes() == older


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half of it": lambda content: content[: len(content) // 2],
    "all but a page": lambda content: content[:-4096],
    "all but a few bytes": lambda content: content[:-7],
    "the header overwritten": lambda content: b"\xff" * 100 + content[100:],
    "the header's words kept": lambda content: content[:16] + b"\xff" * 84 + content[100:],
    "another format": lambda content: content[:44] + b"\0\0\0\x09" + content[48:],
    "zeros at the head": lambda content: bytes(4096) + content[4096:],
    "zeros in the middle": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "zeros across pages": lambda content: content[:6000] + bytes(8192) + content[14192:],
    "no database": lambda content: b"sorry" * 2000,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_seen_and_the_line_says_the_two_ways_out(kind: str, folder: RunFolder) -> None:
    copy_file(folder.database, folder.backup)
    os.utime(folder.backup, (time.time() - 720,) * 2)
    folder.database.write_bytes(DAMAGES[kind](folder.database.read_bytes()))
    for read_only in (False, True):
        with pytest.raises(Damaged) as caught:
            open_database(folder, folder.config(), read_only=read_only)
        message = str(caught.value)
        assert message.startswith(f"{folder.database}: the study database is damaged (") and "\n" not in message
        assert "its copy, 12 min old, with 3 finished trials" in message
    _, rebuild, _, copy, _ = message.split("`")
    assert rebuild == f"gs-search rebuild {folder.path}"
    subprocess.run(shlex.split(copy), check=True)
    assert open_database(folder, folder.config()).counted() == 3


def test_any_page_of_zeros_is_seen_or_changes_nothing(folder: RunFolder) -> None:
    content = folder.database.read_bytes()
    for start in range(0, len(content), 4096):
        folder.database.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        assert damage(folder.database), start


def test_nonsense_in_whole_pages_is_called_damage(folder: RunFolder) -> None:
    with sqlite3.connect(folder.database) as writer:
        writer.execute("UPDATE trial_user_attributes SET value_json='{'")
    writer.close()
    assert damage(folder.database) is None
    with pytest.raises(Damaged, match="JSONDecodeError while reading it.*rebuild.*there is no copy"):
        open_database(folder, folder.config())


def test_the_line_without_a_copy_and_with_a_damaged_one(folder: RunFolder) -> None:
    copy_file(folder.database, folder.backup)
    folder.database.write_bytes(b"sorry" * 2000)
    folder.backup.write_bytes(folder.backup.read_bytes()[:5000])
    with pytest.raises(Damaged, match="study.db.backup is damaged too"):
        open_database(folder, folder.config())
    folder.backup.unlink()
    with pytest.raises(Damaged, match="there is no copy of it"):
        open_database(folder, folder.config())


def test_a_lost_database_is_answered_with_the_same_ways_out(folder: RunFolder) -> None:
    os.replace(folder.database, folder.backup)
    with pytest.raises(BadInput, match="has none; restore study.db: `gs-search rebuild .*with 3 finished trials"):
        open_database(folder, folder.config())


def test_copying_by_hand_takes_away_what_would_damage_the_copy(folder: RunFolder, tmp_path: Path) -> None:
    copy_file(folder.database, folder.backup)
    folder.database.write_bytes(b"sorry" * 2000)
    (folder.path / "study.db-journal").write_bytes(random.Random(0).randbytes(4096))
    line = backup.ways_out(folder, "engine")
    assert f"`rm {folder.database}-journal && cp {folder.backup} {folder.database}`" in line

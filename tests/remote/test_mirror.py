"""The local copy of a run folder in an object store: what is fetched, sent, kept, and put aside."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.remote.joining import send_back
from gs_search.remote.mirror import Mirror, is_light, is_private
from gs_search.remote.store import Store
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import load_study
from gs_search.system.files import write_json
from gs_search.trial.lessons import FRESH_FILE
from tests.remote.s3 import BUCKET, S3Server
from tests.synthetic_run import QUICKSTART, write_run


def upload(s3: S3Server, folder: Path, name: str) -> str:
    """Put a run folder into the bucket, as `aws s3 sync` would; returns its URI."""
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"s3://{BUCKET}/{name}"


def test_a_look_fetches_what_it_wants_and_what_has_changed(s3: S3Server, tmp_path: Path) -> None:
    write_run(tmp_path / "run", trials=3)
    uri = upload(s3, tmp_path / "run", "m1")
    s3.put("m1/trials/0/student.safetensors", b"weights")
    s3.put("m1/checkpoints/abc.ckpt", b"state")
    s3.put("m1/teacher/validation.npy", b"pictures")
    folder = RunFolder.find(uri)
    assert str(folder) == uri and folder.path.is_relative_to(tmp_path / "cache")
    assert [r.number for r in folder.results()] == [0, 1, 2] and folder.baselines.is_file()
    assert not (folder.trial(0) / "student.safetensors").exists() and not folder.checkpoints.exists()
    before = {path: path.stat().st_ino for path in folder.path.rglob("*.json")}
    s3.put("m1/trials/1/result.json", (tmp_path / "run/trials/1/result.json").read_bytes() + b"\n")
    folder.refresh(whole=True)
    assert (folder.trial(0) / "student.safetensors").read_bytes() == b"weights"
    assert (folder.teacher / "validation.npy").read_bytes() == b"pictures"
    assert (folder.trial(1) / "result.json").read_bytes().endswith(b"\n\n")
    assert before.keys() <= set(folder.path.rglob("*.json"))
    assert send_back() == [], "a look changes nothing there"


def test_what_is_not_racy_is_fetched_once(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(Store(f"s3://{BUCKET}/m2"), tmp_path / "copy")
    s3.put("m2/a", b"1")
    s3.put("m2/b", b"1")
    fetched: list[str] = []
    fetch = mirror.store.fetch
    monkeypatch.setattr(mirror.store, "fetch", lambda name, path: fetched.append(name) or fetch(name, path))
    mirror.refresh(lambda name: True)
    assert sorted(fetched) == ["a", "b"]
    mirror.refresh(lambda name: True, racy=False)
    assert sorted(fetched) == ["a", "b"]
    mirror.refresh(lambda name: True)
    assert sorted(fetched) == ["a", "a", "b", "b"], "their second is not over: they may have changed once more in it"


def test_what_a_verb_has_written_goes_back_and_a_stale_copy_does_not(s3: S3Server, tmp_path: Path) -> None:
    write_run(tmp_path / "run", trials=2)
    uri = upload(s3, tmp_path / "run", "m3")
    s3.put("m3/study.db", b"first")
    folder = RunFolder.find(uri)
    write_json(folder.path / "pick.json", {"trial": 1})
    (folder.exports / "1").mkdir(parents=True)
    (folder.exports / "1" / "x.onnx").write_bytes(b"onnx")
    (folder.path / ".draft").write_text("no")
    s3.put("m3/study.db", b"second, by a run elsewhere")
    assert sorted(send_back()) == ["exports/1/x.onnx", "pick.json"]
    assert s3.get("m3/pick.json") == (folder.path / "pick.json").read_bytes()
    assert s3.get("m3/study.db") == b"second, by a run elsewhere"
    folder.refresh()
    assert folder.database.read_bytes() == b"second, by a run elsewhere" and send_back() == []


def test_a_database_that_a_live_run_has_is_not_replaced(s3: S3Server, tmp_path: Path) -> None:
    write_run(tmp_path / "run", trials=2)
    uri = upload(s3, tmp_path / "run", "m4")
    s3.put("m4/study.db", b"first")
    folder = RunFolder.find(uri)
    folder.database.write_bytes(b"with a point that was queued")
    with RunFolder(uri, at_work=True).lock(), pytest.raises(BadInput, match="process .* cannot be changed from here"):
        send_back()
    assert s3.get("m4/study.db") == b"first"
    assert send_back() == ["study.db"]


def test_a_new_study_of_an_old_name_finds_nothing_of_the_old_one(s3: S3Server, tmp_path: Path) -> None:
    write_run(tmp_path / "old", trials=4)
    uri = upload(s3, tmp_path / "old", "m5")
    assert len(RunFolder.find(uri).results()) == 4
    for name in s3.names("m5"):
        s3.files().delete_file(f"{BUCKET}/m5/{name}")
    with pytest.raises(BadInput, match="s3://studies/m5: not a run folder"):
        RunFolder.find(uri)
    write_run(tmp_path / "new", trials=2)
    upload(s3, tmp_path / "new", "m5")
    folder = RunFolder.find(uri)
    assert len(folder.results()) == 2
    assert (folder.path.with_name("look.left") / "trials" / "3" / "result.json").is_file(), "but the last is kept"


@pytest.mark.parametrize("name", ["nowhere/x", BUCKET + "/none"])
def test_where_nothing_is(s3: S3Server, name: str) -> None:
    with pytest.raises(BadInput, match="no such (bucket|folder)"):
        RunFolder.find(f"s3://{name}")


# --- at work


def begun(s3: S3Server, name: str) -> RunFolder:
    folder = RunFolder(f"s3://{BUCKET}/{name}", at_work=True)
    config = load_study(QUICKSTART)
    folder.check(config)
    folder.join(database=True)
    folder.create(config)
    return folder


def test_a_study_is_made_there_and_goes_on_from_another_machine(
    s3: S3Server, elsewhere: Callable[[str], None], tmp_path: Path
) -> None:
    first = begun(s3, "w1")
    assert s3.names("w1") == ["resolved.yaml", "search_space.yaml", "study.yaml"]
    assert first.mirror is not None
    write_json(first.trial(0) / "result.json", {"number": 0, "state": "FAIL"})
    first.send(first.trial(0) / "result.json")
    first.database.write_bytes(b"knows 1")
    first.backup.write_bytes(b"knows 1")
    first.mirror.send_backup()
    first.database.write_bytes(b"knows more than was sent")
    first.join(database=True)
    assert first.database.read_bytes() == b"knows more than was sent", "nobody else has sent one"

    elsewhere("second")
    second = begun(s3, "w1")
    assert second.path != first.path and second.provenance()["id"] == first.provenance()["id"]
    assert second.database.read_bytes() == b"knows 1" and len(second.results()) == 1
    second.join(database=True)
    assert second.database.read_bytes() == b"knows 1"
    second.backup.write_bytes(b"knows what the second did")
    assert second.mirror is not None
    second.mirror.send_backup()

    elsewhere("cache")
    again = begun(s3, "w1")
    assert again.path == first.path and again.database.read_bytes() == b"knows what the second did"


def test_what_could_not_be_sent_is_sent_when_the_next_run_begins(
    s3: S3Server, elsewhere: Callable[[str], None]
) -> None:
    first = begun(s3, "w2")
    write_json(first.trial(0) / "result.json", {"number": 0, "state": "FAIL"})
    elsewhere("cache")
    begun(s3, "w2")
    assert "trials/0/result.json" in s3.names("w2")
    newer = first.trial(0) / "result.json"
    newer.write_text("newer")
    os.utime(newer, (4e9, 4e9))
    elsewhere("cache")
    begun(s3, "w2")
    assert s3.get("w2/trials/0/result.json") == b"newer"


def test_other_objects_and_other_studies_are_refused(
    s3: S3Server, elsewhere: Callable[[str], None], tmp_path: Path
) -> None:
    s3.put("w3/notes.txt", b"mine")
    with pytest.raises(BadInput, match=r"s3://studies/w3: holds other files \(notes.txt\)"):
        begun(s3, "w3")
    begun(s3, "w4")
    elsewhere("third")
    shutil.copytree(QUICKSTART.parents[1] / "search_spaces", tmp_path / "search_spaces")
    (tmp_path / "studies").mkdir()
    other = tmp_path / "studies" / "other.yaml"
    other.write_text(re.sub("(?m)^seed: .*$", "seed: 999", QUICKSTART.read_text()))
    with pytest.raises(BadInput, match="s3://studies/w4: holds another study, different in seed"):
        RunFolder(f"s3://{BUCKET}/w4", at_work=True).check(load_study(other))


def test_parts_are_sent_with_what_vouches_for_them_last(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(s3, "w5")
    place = folder.trial(7)
    place.mkdir(parents=True)
    for name in ("result.json", "curve.csv", "student.safetensors", "progress.json", ".draft"):
        (place / name).write_text(name)
    assert folder.mirror is not None
    order: list[str] = []
    send = folder.mirror.store.send
    monkeypatch.setattr(folder.mirror.store, "send", lambda path, name: order.append(name) or send(path, name))
    folder.mirror.send_below(place)
    assert sorted(order[:-1]) == ["trials/7/curve.csv", "trials/7/student.safetensors"]
    assert order[-1] == "trials/7/result.json"
    folder.mirror.send_below(place)
    assert len(order) == 3, "they are the same by now"


def test_an_object_that_would_be_a_file_elsewhere_is_refused(s3: S3Server, tmp_path: Path) -> None:
    mirror = Mirror(Store(f"s3://{BUCKET}/w6"), tmp_path / "copy")
    with pytest.raises(BadInput, match="no file can be called"):
        mirror.stamp("../x")
    assert is_light("trials/0/samples.png") and not is_light("teacher/real.npy") and is_light("teacher/baselines.json")
    assert is_private("study.db-journal") and is_private("lock") and not is_private("study.db")
    assert is_private(f"retrain/{FRESH_FILE}") and not is_private("retrain/3/result.json")

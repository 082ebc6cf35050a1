"""Who may run a study whose folder is in an object store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from gs_search.errors import StudyBusy
from gs_search.remote import lease
from gs_search.remote.lease import Lease, holder_there
from gs_search.remote.store import Store
from gs_search.results.run_folder import RunFolder
from gs_search.system.lock import myself
from tests.remote.s3 import BUCKET, S3Server

OTHER = {"host": "another-machine", "pid": 123, "token": "theirs"}


def held_by(s3: S3Server, place: str, **change: object) -> None:
    s3.put(f"{place}/lock", json.dumps({**myself(), "token": "theirs", "beat": 1, **change}).encode())


def test_it_is_taken_told_of_and_let_go(s3: S3Server) -> None:
    store = Store(f"s3://{BUCKET}/l1")
    assert holder_there(store) is None
    with Lease(store).held():
        found = holder_there(store)
        assert found is not None and found["pid"] == myself()["pid"]
        with Lease(store).held():  # the same process
            pass
        assert holder_there(store) == found
    assert s3.names("l1") == []


def test_a_dead_process_of_this_machine_is_succeeded_at_once(s3: S3Server) -> None:
    held_by(s3, "l2", started=1)
    store = Store(f"s3://{BUCKET}/l2")
    assert holder_there(store) is None
    with Lease(store, pytest.fail).held():
        pass


def test_a_live_process_of_this_machine_is_named(s3: S3Server) -> None:
    held_by(s3, "l3", pid=1, started=None)
    with pytest.raises(StudyBusy, match=r"s3://studies/l3: process 1 on .* `kill -INT 1`"):
        with Lease(Store(f"s3://{BUCKET}/l3")).held():
            pass
    assert s3.names("l3") == ["lock"]


def test_a_holder_elsewhere_lives_while_its_object_changes(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(s3, "l4", **OTHER)
    store, said = Store(f"s3://{BUCKET}/l4"), []
    assert holder_there(store) is not None, "for one look it is one that lives"
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "LIFE_S", 30.0)
    beating, ended = threading.Event(), threading.Event()

    def beat() -> None:
        count = 1
        while not ended.wait(0.02):
            count += 1
            held_by(s3, "l4", **{**OTHER, "beat": count})
            beating.set()

    other = threading.Thread(target=beat)
    other.start()
    beating.wait()
    with pytest.raises(StudyBusy, match="process 123 on another-machine runs this study since .* stop it there"):
        with Lease(store, said.append).held():
            pass
    ended.set()
    other.join()
    assert len(said) == 1 and "looking for" in said[0]
    monkeypatch.setattr(lease, "LIFE_S", 0.3)
    with Lease(store, said.append).held():  # it has died
        assert json.loads(s3.get("l4/lock"))["token"] != "theirs"


def test_who_is_pushed_out_notices_at_the_next_beat(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    mine = Lease(Store(f"s3://{BUCKET}/l5"))
    with mine.held():
        mine.check()
        for _ in range(500):  # a beat that had looked already writes over the first
            held_by(s3, "l5", **OTHER)
            time.sleep(0.01)
            if mine._taken_by is not None:
                break
        with pytest.raises(StudyBusy, match="another-machine"):
            mine.check()
    assert json.loads(s3.get("l5/lock"))["token"] == "theirs", "and leaves it to the other one"


def test_a_run_folder_there_has_one_holder(s3: S3Server, elsewhere: Callable[[str], None]) -> None:
    uri = f"s3://{BUCKET}/l6"
    with RunFolder(uri, at_work=True).lock():
        held = RunFolder(uri).holder()
        assert held is not None and held["pid"] == myself()["pid"]
    assert RunFolder(uri).holder() is None

"""Objects in a real server, and how a server that is away is waited for."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.remote import store as module
from gs_search.remote.store import Store, StoreLost
from tests.remote.s3 import BUCKET, KEYS, S3Server

AWAY = OSError("When asking: AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, refused; x")


def test_files_go_there_and_back_whole_with_the_time_of_the_store(s3: S3Server, tmp_path: Path) -> None:
    store, path, back = Store(f"s3://{BUCKET}/a"), tmp_path / "x.bin", tmp_path / "deep" / "y.bin"
    content = secrets.token_bytes(9 << 20)  # more than a block
    path.write_bytes(content)
    assert store.entries() == {} and store.stamp("x.bin") is None and store.read("x.bin") is None
    assert not store.fetch("x.bin", back) and not back.exists()
    assert store.send(path, "x.bin")
    assert s3.get("a/x.bin") == content
    stamp = store.stamp("x.bin")
    assert stamp == (len(content), path.stat().st_mtime_ns) and store.entries() == {"x.bin": stamp}
    assert store.fetch("x.bin", back) and back.read_bytes() == content and back.stat().st_mtime_ns == stamp.mtime_ns
    assert [p.name for p in back.parent.iterdir()] == ["y.bin"]
    assert not store.send(tmp_path / "none", "none")
    store.delete(["x.bin", "none"])
    assert store.entries() == {}


def test_a_file_that_is_replaced_while_it_is_sent_keeps_its_own_time(s3: S3Server, tmp_path: Path) -> None:
    store, path, newer = Store(f"s3://{BUCKET}/b"), tmp_path / "x", tmp_path / "newer"
    path.write_text("old")
    newer.write_text("new")
    os.utime(newer, ns=(1, 1))
    files, base = store._opened

    class Slow:
        def __getattr__(self, name: str) -> object:
            if name == "open_output_stream":
                os.replace(newer, path)  # the old one is open by now
            return getattr(files, name)

    store.__dict__["_opened"] = (Slow(), base)
    store.send(path, "x")
    assert s3.get("b/x") == b"old" and path.read_text() == "new" and path.stat().st_mtime_ns == 1


def test_a_store_that_is_away_is_waited_for_and_told_of_once(
    s3: S3Server, flaky: Callable[[Store, list[BaseException]], list[float]]
) -> None:
    store, said = Store(f"s3://{BUCKET}/c", patience_s=100.0), []
    store.outage.note = said.append
    s3.put("c/x", b"here")
    waits = flaky(store, [AWAY] * 8)
    assert store.read("x") == b"here"
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0], "longer and longer, but not too long"
    assert len(said) == 2 and "cannot be reached (NETWORK_CONNECTION in HeadObject: refused)" in said[0]
    assert said[1].startswith(f"s3://{BUCKET}/c: is back after")
    flaky(store, [AWAY])
    assert store.read("x") == b"here" and len(said) == 2, "a short absence is no news"


def test_patience_ends_and_what_comes_after_does_not_wait_as_long(
    s3: S3Server, flaky: Callable[[Store, list[BaseException]], list[float]]
) -> None:
    store = Store(f"s3://{BUCKET}/c", patience_s=60.0)
    waits = flaky(store, [AWAY] * 99)
    with pytest.raises(StoreLost, match="could not be reached for .* the same command goes on"):
        store.read("x")
    assert 60 <= sum(waits) < 70 and store.is_lost
    waits.clear()
    with pytest.raises(StoreLost):
        store.entries()
    assert not waits
    hurried = Store(f"s3://{BUCKET}/c", patience_s=60.0)
    hurried.interrupted = lambda: True
    assert not flaky(hurried, [AWAY] * 9)
    with pytest.raises(StoreLost):
        hurried.read("x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AWS Error ACCESS_DENIED during PutObject operation: Access Denied (Request ID: ab)", "does not allow it"),
        ("AWS Error UNKNOWN (HTTP status 400) during PutObject operation: ExpiredToken x", "have expired"),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: no", "does not know the access key"),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation: no", "secret key is not"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: no", "in another region"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    s3: S3Server, flaky: Callable[[Store, list[BaseException]], list[float]], text: str, said: str
) -> None:
    store = Store(f"s3://{BUCKET}/c", patience_s=60.0)
    waits = flaky(store, [OSError(f"When testing: {text}")] * 2)
    with pytest.raises(BadInput, match=said) as caught:
        store.read("x")
    assert not waits and str(caught.value).count("\n") == 0 and "Request ID" not in str(caught.value)


def test_what_this_machine_lacks_is_not_the_stores_doing(
    s3: S3Server, flaky: Callable[[Store, list[BaseException]], list[float]]
) -> None:
    store = Store(f"s3://{BUCKET}/c", patience_s=60.0)
    waits = flaky(store, [OSError(28, "No space left on device")])
    with pytest.raises(OSError, match="No space left"):
        store.read("x")
    assert not waits


def test_no_such_bucket(s3: S3Server, tmp_path: Path) -> None:
    store, path = Store("s3://nobodys/x", patience_s=60.0), tmp_path / "x"
    path.write_text("x")
    assert not store.has_bucket() and Store(f"s3://{BUCKET}/x").has_bucket()
    with pytest.raises(BadInput, match="no such bucket"):
        store.send(path, "x")


def test_a_server_that_hangs_is_told_of_and_waited_for(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLD_AFTER_S", 0.2)
    store, said = Store(f"s3://{BUCKET}/h"), []
    store.write("x", b"here")
    store.outage.note = lambda line: (said.append(line), s3.go_on())
    s3.hang()
    try:
        assert store.read("x") == b"here"
    finally:
        s3.go_on()
    assert "cannot be reached (it does not answer)" in said[0] and "is back after" in said[1] and len(said) == 2


def test_keys_that_the_server_does_not_know(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = S3Server(tmp_path / "log.txt", free=2)  # the bucket is made with these
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{strict.port}")
        with pytest.raises(BadInput, match="are the credentials of this machine set") as caught:
            Store(f"s3://{BUCKET}/x", patience_s=60.0).read("x")
        assert not any(secret in str(caught.value) for secret in KEYS.values())
    finally:
        strict.close()


def test_a_door_that_is_shut_refuses_and_one_that_opens_is_found(s3: S3Server) -> None:
    """A real refusal: pyarrow tries by itself for six seconds, within which the door opens."""
    store = Store(f"s3://{BUCKET}/d", patience_s=60.0)
    store.write("x", b"here")
    s3.door.shut()
    opening = threading.Timer(0.4, s3.door.open)
    opening.start()
    begun = time.monotonic()
    assert store.read("x") == b"here" and time.monotonic() - begun > 0.3
    opening.join()

"""A bucket for tests, and a process that may use it. ``conftest`` of who needs them imports these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gs_search.remote import joining, lease
from gs_search.remote.store import Store
from tests.remote.s3 import S3Server, environment


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    made = S3Server(tmp_path_factory.mktemp("s3") / "log.txt")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def s3(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, as this process reaches it by its environment; nothing is cached from an earlier test."""
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(joining, "_opened", {})
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    return server


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be another machine: one with a cache of its own."""

    def move(name: str) -> None:
        monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / name))
        monkeypatch.setattr(joining, "_opened", {})

    return move


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store, list[BaseException]], list[float]]:
    """Have a store's next questions fail, and no waiting take time; returns the waits."""

    def break_(store: Store, errors: list[BaseException]) -> list[float]:
        waits: list[float] = []
        clock = [time.monotonic()]

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            clock[0] += seconds

        monkeypatch.setattr("gs_search.remote.store.time.sleep", sleep)
        monkeypatch.setattr("gs_search.remote.store.time.monotonic", lambda: clock[0])
        files, base = store._opened

        class Flaky:
            def __getattr__(self, name: str) -> object:
                if errors:
                    raise errors.pop(0)
                return getattr(files, name)

        store.__dict__["_opened"] = (Flaky(), base)
        return waits

    return break_

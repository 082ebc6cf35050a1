"""Whether the head of a cluster answers. With one that dies: ``tests/cluster/test_head.py``."""

from __future__ import annotations

import socket

import pytest

from gs_search.engine.ray import watchdog
from gs_search.engine.ray.watchdog import Head, answers, lost_head, watched_head


@pytest.fixture
def door() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def address_of(door: socket.socket) -> str:
    return f"127.0.0.1:{door.getsockname()[1]}"


def test_a_door_that_is_open_answers_and_one_that_is_shut_does_not(door: socket.socket) -> None:
    assert answers(address_of(door))
    address = address_of(door)
    door.close()
    assert not answers(address)


def test_a_head_that_is_silent_is_told_of_once_and_lost_after_a_while(
    door: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    said: list[str] = []
    found = Head(address_of(door), said.append)
    found.look()
    assert (found.silent_s, found.is_lost) == (0.0, False)
    door.close()
    for _ in range(int(watchdog.SILENT_S)):
        found.look()
        assert not found.is_lost
        clock[0] += 1
    clock[0] += 1
    assert found.is_lost and f"has not answered for {watchdog.SILENT_S + 1:.0f} s" in str(found)
    assert len(said) == 1 and "does not answer" in said[0]
    door = socket.create_server(("127.0.0.1", int(found.address.rpartition(":")[2])))
    found.look()
    door.close()
    assert not found.is_lost and len(said) == 2 and said[1].endswith("answers again")


def test_only_a_run_that_uses_a_cluster_has_a_head_to_lose(
    door: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "is_lost", True)
    assert lost_head() is None
    with watched_head(address_of(door), lambda line: None):
        assert "the head of the cluster at 127.0.0.1" in str(lost_head())
    assert lost_head() is None
    door.close()

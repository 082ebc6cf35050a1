"""Ctrl-C as a request: said once, and a late second one ends at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from gs_search.system.signals import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_late_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    clock = [0.0]  # a clock that starts at zero is a clock, too
    monkeypatch.setattr("gs_search.system.signals.time.monotonic", lambda: clock[0])
    lines: list[str] = []
    with interruption(lines.append, "stopping after this step") as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked() and lines == ["stopping after this step"]
        clock[0] += 6
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_the_handlers_of_before_come_back_and_others_are_replaced() -> None:
    def another(*_: object) -> None:
        raise AssertionError("not asked for")

    before = signal.signal(signal.SIGTERM, another)
    try:
        lines: list[str] = []
        with interruption(lines.append, "stopping") as asked:
            signal.signal(signal.SIGTERM, another)  # as Ray does while it starts
            asked.listen()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() and lines == ["stopping"]
        assert signal.getsignal(signal.SIGTERM) is another
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_only_asks() -> None:
    found: list[object] = []

    def run() -> None:
        with interruption(found.append, "stopping") as asked:
            found.append(asked())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False] and signal.getsignal(signal.SIGINT) is before

"""A server's end, while a request is under way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from typing import Any

import pytest

from gs_search.web.listening import Server, listening, serve_until_stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_request_is_handed_on(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server is asked to end just while it starts the thread of a request: that one is still answered whole."""
    asked = threading.Event()
    found: list[bytes] = []
    hand_on = Server.process_request

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        os.kill(os.getpid(), number)
        asked.set()
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first "
        threading.Event().wait(0.5)
        yield b"second"

    def process_request(self: Server, request: Any, client_address: Any) -> None:
        hand_on(self, request, client_address)
        assert asked.wait(30)
        threading.Event().wait(0.2)

    def client(port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        found.append(connection.getresponse().read())
        connection.close()

    monkeypatch.setattr(Server, "process_request", process_request)
    with listening("127.0.0.1", 0, first=0) as server:
        server.set_app(application)
        visitor = threading.Thread(target=client, args=(server.server_port,))
        serve_until_stopped(server, url="", announce=visitor.start)
    visitor.join(30)
    told = capfd.readouterr()
    assert found == [b"first second"] and told.out == told.err == ""


def test_a_signal_before_it_serves() -> None:
    """Asked to end while the address is still being printed, a server ends at once."""
    with listening("127.0.0.1", 0, first=0) as server:
        before = signal.getsignal(signal.SIGTERM)
        serve_until_stopped(server, url="", announce=lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is before

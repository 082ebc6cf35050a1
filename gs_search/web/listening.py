"""A server for pages on this machine: a port to listen on, its address, and a clean end."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from types import FrameType
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from gs_search.errors import BadInput

__all__ = ["Address", "Server", "address_of", "listening", "serve_until_stopped"]

TRIED = 50
"""Ports that are tried from the first one on."""
PATIENCE_S = 60
"""How long a browser may take to say what it wants."""


class Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a page asks for several things at once, and some take long."""

    daemon_threads = True
    block_on_close = False
    asked_to_stop = False

    def server_bind(self) -> None:
        """Bind without asking the name service for this machine's name, which may take half a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def service_actions(self) -> None:
        """Between two requests: end, where somebody wants it. In the midst of one its connection would be closed."""
        if self.asked_to_stop:
            raise _Stop

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a line; nothing where a browser has only left."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"server: {type(error).__name__}: {error}", file=sys.stderr)


class _Server6(Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """Keeps no log of requests: the token is in one of them."""

    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a page is to be had."""

    url: str
    """With the token, where one is needed."""
    host: str
    port: int
    token: str | None


@contextmanager
def listening(host: str, port: int | None, *, first: int) -> Iterator[Server]:
    """A server that listens, without an application yet.

    Args:
        port: None takes the first free one from ``first`` on; 0 any.

    Raises:
        BadInput: the port is taken, or the host is none of this machine.
    """
    server = _bind(host, port, first)
    try:
        yield server
    finally:
        server.server_close()


def serve_until_stopped(server: Server, *, url: str, announce: Callable[[], None], open_browser: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; ``announce`` is called once, first."""
    with _until_asked_to_stop(server):
        announce()
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.serve_forever(poll_interval=0.2)


def address_of(host: str, port: int, token: str | None) -> str:
    """What to open in a browser, with the token where one is needed."""
    name = host.strip("[]")
    if name in ("0.0.0.0", "::"):
        name = socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={quote(token)}" if token else "")


def _bind(host: str, port: int | None, first: int) -> Server:
    name = host.strip("[]")
    kind = _Server6 if ":" in name else Server
    candidates = range(first, first + TRIED) if port is None else (port,)
    for candidate in candidates:
        try:
            return kind((name, candidate), _Quiet)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EACCES:
                raise BadInput(
                    f"--port {candidate}: only the administrator may listen there; take 1024 or more"
                ) from None
            raise BadInput(f"--host {host}: cannot be listened on ({error.strerror or error}); 127.0.0.1 can") from None
    if port is None:
        raise BadInput(f"ports {first} to {candidates[-1]} are all taken; name a free one with --port")
    raise BadInput(f"--port {port}: is taken; leave --port out to get the next free one")


# --- ending


class _Stop(Exception):
    """Somebody wants the server to end."""


@contextmanager
def _until_asked_to_stop(server: Server) -> Iterator[None]:
    """End the block without an error on SIGINT or SIGTERM: for a server that is how it ends."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.asked_to_stop = True

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    except _Stop:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

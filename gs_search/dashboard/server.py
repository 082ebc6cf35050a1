"""Serving the dashboard: an address to listen on, what is printed about it, and a clean end."""

from __future__ import annotations

import errno
import os
import secrets
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

from gs_search.dashboard.app import DashboardApp
from gs_search.dashboard.gate import Gate, is_loopback
from gs_search.errors import BadInput
from gs_search.runfolder import RunFolder
from gs_search.search.storage import NoStudyYet

__all__ = ["DEFAULT_PORT", "Address", "serve"]

DEFAULT_PORT = 8080
TRIED = 50
"""Ports that are tried from the default one on."""
PATIENCE_S = 60
"""How long a browser may take to say what it wants."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a dashboard is to be had."""

    url: str
    """With the token, where one is needed."""
    host: str
    port: int
    token: str | None
    allow_edit: bool


def serve(
    folder: RunFolder,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_edit: bool = False,
    open_browser: bool = False,
    announce: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve the dashboard of a run folder until SIGINT or SIGTERM; the study may not be there yet.

    Args:
        host: what to listen on. Anything but this machine itself needs a token, which is part of the address.
        port: None takes the first free one from 8080 on; 0 any.
        announce: called once, when the server listens.

    Raises:
        BadInput: the port is taken, the host is none of this machine, or the database is damaged.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    app = DashboardApp(folder, url=os.environ.get("GS_SEARCH_STORAGE"), writable=allow_edit)
    try:
        _look(app, folder)
        with _listening(host, port) as server:
            found = server.server_port
            server.set_app(Gate(app, host=host, port=found, token=token, allow_edit=allow_edit))
            address = Address(url=_url(host, found, token), host=host, port=found, token=token, allow_edit=allow_edit)
            with _until_asked_to_stop():
                announce(address)
                if open_browser:
                    threading.Thread(target=webbrowser.open, args=(address.url,), daemon=True).start()
                server.serve_forever(poll_interval=0.2)
    finally:
        app.close()


def _look(app: DashboardApp, folder: RunFolder) -> None:
    """Say before anything is served what no waiting will mend."""
    try:
        app.source.study()
    except NoStudyYet:
        return
    except BadInput:
        if folder.holder() is None:
            raise  # else a run may be making the database just now


def _url(host: str, port: int, token: str | None) -> str:
    name = host.strip("[]")
    if name in ("0.0.0.0", "::"):
        name = socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={quote(token)}" if token else "")


# --- listening


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a page asks for several things at once, and some take long."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without asking the name service for this machine's name, which may take half a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a line; nothing where a browser has only left."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"dashboard: {type(error).__name__}: {error}", file=sys.stderr)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """Keeps no log of requests: the token is in one of them."""

    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def _listening(host: str, port: int | None) -> Iterator[_Server]:
    server = _bind(host, port)
    try:
        yield server
    finally:
        server.server_close()


def _bind(host: str, port: int | None) -> _Server:
    name = host.strip("[]")
    kind = _Server6 if ":" in name else _Server
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + TRIED) if port is None else (port,)
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
        raise BadInput(f"ports {DEFAULT_PORT} to {candidates[-1]} are all taken; name a free one with --port")
    raise BadInput(f"--port {port}: is taken; leave --port out to get the next free one")


# --- ending


class _Stop(BaseException):
    """Somebody wants the server to end. No Exception, so that no handler of errors takes it for one."""


@contextmanager
def _until_asked_to_stop() -> Iterator[None]:
    """End the block without an error on SIGINT or SIGTERM: for a server that is how it ends."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    except _Stop:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Clients: of WSGI applications without a server, and of what listens on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from wsgiref.util import setup_testing_defaults

from gs_search.web.listening import listening


@dataclass(frozen=True)
class Answer:
    """What a WSGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: Any, path: str, method: str = "GET", *, host: str = "127.0.0.1:8080", **more: Any) -> Answer:
    """Send a request.

    Args:
        more: ``body`` to be sent as JSON; all else are headers, ``origin="http://x"``.
    """
    place, _, query = path.partition("?")
    body = json.dumps(more.pop("body", None)).encode() if "body" in more else b""
    environ: dict[str, Any] = {"PATH_INFO": place, "QUERY_STRING": query, "REQUEST_METHOD": method, "HTTP_HOST": host}
    environ |= {f"HTTP_{name.upper()}": value for name, value in more.items() if value is not None}
    if body:
        environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    if host is None:
        del environ["HTTP_HOST"]
    told: list[Any] = []

    def start_response(status: str, headers: Iterable[tuple[str, str]], error: Any = None) -> Any:
        told[:] = [int(status.split()[0]), dict(headers)]
        return lambda data: None

    answer = app(environ, start_response)
    try:
        content = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return Answer(told[0], told[1], content)


class Behind:
    """Counts who gets through."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
        return [b"inside"]


@contextmanager
def serving(application: Callable[[int], Any], host: str = "127.0.0.1") -> Iterator[str]:
    """Serve on this machine what ``application`` makes for a port; yields its address, with a slash at the end."""
    with listening("127.0.0.1", 0, first=0) as server:
        server.set_app(application(server.server_port))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def visited(
    serve: Callable[..., None], look: Callable[[Any], Any], *, number: int = signal.SIGINT, **options: Any
) -> Any:
    """What ``look`` finds from another thread at the address that is announced; a signal then ends the server."""
    found: list[Any] = []

    def visitor(address: Any) -> None:
        try:
            found.append(look(address))
        except BaseException as error:
            found.append(error)
        finally:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    serve(
        announce=lambda address: threading.Thread(target=visitor, args=(address,)).start(),
        **{"port": 0} | options,
    )
    assert signal.getsignal(number) is before
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def request(address: Any, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask the server behind an announced address."""
    connection = HTTPConnection("127.0.0.1", address.port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body

"""The gate before a page of this machine: who may look, and that nobody writes.

A web page that is open in the same browser can send requests to a server on this machine. It cannot read the answers,
but it can have things changed; and by giving its own name this machine's address (DNS rebinding) it can read too. So
a request must name this server as its host, and only reads pass. Beyond this machine whoever wants in needs a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Gate", "is_loopback"]

READS = ("GET", "HEAD")

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),  # the token is in the first address
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """WSGI middleware that lets pass what may pass, and answers all else with 403 and one line.

    Args:
        host: the address that the server listens on.
        verb: of the command line, which serves this and prints the address.
        token: what a visitor needs; None where everybody who reaches the server may look.
    """

    def __init__(self, app: WSGIApplication, *, host: str, port: int, verb: str, token: str | None = None) -> None:
        self._app = app
        self._host = host.strip("[]").lower()
        self._verb = verb
        self._token = token
        # Cookies know no ports: two servers on one machine must not take away each other's.
        self._cookie = f"gs_search_{port}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        host = environ.get("HTTP_HOST", "")
        if not self._is_ours(host):
            name = json.dumps(host[:80])
            return _refuse(environ, start_response, f"gs-search {self._verb} does not answer to the host name {name}")
        if self._token is not None:
            given = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get("token")
            if given is not None and method in READS and _same(given, self._token):
                return self._let_in(environ, start_response)
            if not _same(self._cookie_of(environ), self._token):
                return _refuse(
                    environ,
                    start_response,
                    f"open the whole address that gs-search {self._verb} printed, token included",
                )
        if method not in READS and (line := self.against_writing(environ)) is not None:
            return _refuse(environ, start_response, line)
        return self._app(environ, self._guarded(start_response, path))

    def against_writing(self, environ: WSGIEnvironment) -> str | None:
        """Why a request that is no read may not pass, in one line; None where it may."""
        return f"gs-search {self._verb} is read-only"

    def headers(self, path: str) -> list[tuple[str, str]]:
        """What else is added to an answer."""
        return []

    def _is_ours(self, header: str) -> bool:
        """Whether the Host header names this server: by an address, or by a name that nobody else can give it."""
        host = _name_in(header)
        if host is None:
            return False
        if host == "localhost" or host == self._host:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            own = socket.gethostname().lower()
            return not is_loopback(self._host) and host in (own, f"{own}.local")
        # A rebound name stands in the header as a name. An address does not lie, but on loopback only one is ours.
        return is_loopback(host) or not is_loopback(self._host)

    def _cookie_of(self, environ: WSGIEnvironment) -> str:
        try:
            found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""

    def _let_in(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Remember the visitor, and take the token out of the address."""
        rest = urlencode([pair for pair in parse_qsl(environ.get("QUERY_STRING", "")) if pair[0] != "token"])
        asked = environ.get("PATH_INFO", "").encode("latin-1")  # WSGI's way of handing on bytes
        # One slash, whatever was asked: two would lead to another host.
        place = "/" + quote(asked.lstrip(b"/\\")) + (f"?{rest}" if rest else "")
        # Lax, not Strict: an address that is followed from a chat would arrive without the cookie.
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Lax; Path=/"
        headers = [("Location", place), ("Set-Cookie", cookie), ("Cache-Control", "no-store"), ("Content-Length", "0")]
        start_response("302 Found", [*headers, *HEADERS])
        return [b""]

    def _guarded(self, start_response: StartResponse, path: str) -> StartResponse:
        """Add what keeps the answer to this page, and take away what gives it to others."""

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
            kept = [pair for pair in headers if not pair[0].lower().startswith("access-control-")]
            return start_response(status, [*kept, *HEADERS, *self.headers(path)], *more)

        return start


def _name_in(header: str) -> str | None:
    """Name or address in a Host header, without the port; None where there is none, or more than one."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", header.lower())
    return found[1].strip("[]") if found else None


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, line: str) -> list[bytes]:
    """Answer 403; Optuna's dashboard shows its users what stands under ``reason``."""
    asks_api = environ.get("PATH_INFO", "").startswith("/api/")
    body = (json.dumps({"reason": line}) if asks_api else line + "\n").encode()
    kind = "application/json" if asks_api else "text/plain; charset=utf-8"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), *HEADERS]
    start_response("403 Forbidden", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

"""The gate before a page of this machine: who may look, and that nobody writes.

A web page that is open in the same browser can send requests to a server on this machine. It cannot read the answers,
but it can have things changed; and by giving its own name this machine's address (DNS rebinding) it can read too. So
only reads pass, and every request needs one of two proofs:

- a token, where the server can be reached from other machines. The token is in the address that was printed, later in
  a cookie. A page under another name knows neither, and browsers keep cookies by name, so the Host header proves
  nothing more: full host names, names of containers and those of proxies are all good.
- without a token, on loopback, a Host header that names this machine or is one of those allowed by the user.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from gs_search.errors import BadInput

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
        port: that the server listens on.
        verb: of the command line, which serves this and prints the address.
        token: what a visitor needs; None where everybody who reaches the server may look.
        allowed: host names that the server answers to without a token, besides those of loopback.

    Raises:
        BadInput: one of ``allowed`` is no host name.
    """

    def __init__(
        self, app: WSGIApplication, *, port: int, verb: str, token: str | None = None, allowed: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._verb = verb
        self._token = token
        self._allowed = {_allowed_name(name) for name in allowed}
        # Cookies know no ports: two servers on one machine must not take away each other's.
        self._cookie = f"gs_search_{port}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if self._token is None:
            host = environ.get("HTTP_HOST", "")
            if not self._is_ours(host):
                refused = f"gs-search {self._verb} does not answer to the host name {json.dumps(host[:80])}"
                return _refuse(environ, start_response, f"{refused}; --allow-host NAME adds one")
        else:
            given = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get("token")
            if given is not None and method in READS and _same(given, self._token):
                return self._let_in(environ, start_response)
            if not any(_same(cookie, self._token) for cookie in _cookies(environ, self._cookie)):
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
        """Whether the Host header names this server: by loopback's address or name, or a name that the user allowed."""
        host = _name_in(header)
        return host is not None and (host in self._allowed or is_loopback(host))

    def _let_in(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Remember the visitor, and take the token out of the address."""
        rest = urlencode([pair for pair in parse_qsl(environ.get("QUERY_STRING", "")) if pair[0] != "token"])
        asked = environ.get("PATH_INFO", "").encode("latin-1")  # WSGI's way of handing on bytes
        # One slash, whatever was asked: two would lead to another host.
        place = "/" + quote(asked.lstrip(b"/\\")) + (f"?{rest}" if rest else "")
        # Lax, not Strict: an address that is followed from a chat would arrive without the cookie.
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Lax; Path=/"
        if (
            environ.get("HTTP_X_FORWARDED_PROTO", "").lower() == "https"
        ):  # a proxy's, which then is asked by https alone
            cookie += "; Secure"
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
    return found[1].strip("[]").removesuffix(".") if found else None


def _allowed_name(given: str) -> str:
    """A name as it is compared; BadInput where it is none."""
    name = _name_in(given)
    if not name:
        raise BadInput(f"--allow-host {given}: not a host name; gpu01.example.org is one")
    return name


def _cookies(environ: WSGIEnvironment, name: str) -> Iterator[str]:
    """The values of a cookie. By hand: under a name that is shared, others' cookies have what the standard forbids."""
    for part in environ.get("HTTP_COOKIE", "").split(";"):
        found, _, value = part.strip().partition("=")
        if found == name:
            yield value


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

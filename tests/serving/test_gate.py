"""The gate: what passes and what does not, request by request, before an application that answers anything."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from gs_search.serving.gate import Gate, is_loopback
from tests.serving.asking import Behind, ask

TOKEN = "a-token-of-this-test"


def guarded(**options: Any) -> tuple[Behind, Gate]:
    behind = Behind()
    return behind, Gate(behind, **{"host": "127.0.0.1", "port": 8080, "verb": "phone"} | options)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_only_reads_pass(method: str) -> None:
    behind, gate = guarded()
    answer = ask(gate, "/", method, body={})
    assert answer.status == 403 and answer.body == b"gs-search phone is read-only\n" and behind.seen == []
    assert [ask(gate, "/", read).status for read in ("GET", "HEAD")] == [200, 200]
    assert ask(gate, "/").headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080", "evil.localhost",
        "192.0.2.7:8080", "0.0.0.0:8080", "[2001:db8::1]:8080", "127.0.0.1:8080,evil.example", "127.0.0.1@evil.example",
        "127.0.0.1:8080/evil", "127.0.0.1:port", " 127.0.0.1", "127.0.0.1\n", "", None, "2130706433", "[::1",
        "x" * 9000,
    ],
)  # fmt: skip
def test_foreign_hosts_do_not_pass(host: str | None) -> None:
    behind, gate = guarded()
    for method in ("GET", "HEAD", "POST"):
        answer = ask(gate, "/dashboard", method, host=host)  # type: ignore[arg-type]
        assert answer.status == 403
        assert answer.body.count(b"\n") <= 1 and len(answer.body) < 200
    assert behind.seen == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.2:9", "localhost:9000"],
)
def test_names_of_this_machine_pass(host: str) -> None:
    """With any port: that of a tunnel is another one."""
    _, gate = guarded()
    assert ask(gate, "/", host=host).status == 200


def test_other_names_of_a_machine_that_is_reached_from_others() -> None:
    _, gate = guarded(host="0.0.0.0", token=TOKEN)
    cookie = f"gs_search_8080={TOKEN}"
    own = socket.gethostname()
    for host, status in ((own, 200), (f"{own}:8080", 200), ("192.0.2.7:8080", 200), (f"{own}.evil.example", 403)):
        assert ask(gate, "/", host=host, cookie=cookie).status == status, host
    _, named = guarded(host="gpu-box.example", token=TOKEN)
    assert ask(named, "/", host="gpu-box.example:8080", cookie=cookie).status == 200
    assert ask(named, "/", host="other.example:8080", cookie=cookie).status == 403


def test_a_token_once_a_cookie_then() -> None:
    behind, gate = guarded(host="192.0.2.7", token=TOKEN)
    host = "192.0.2.7:8080"
    for path in ("/", "/static/bundle.js", "/api/studies", f"/?token={TOKEN}x", "/?token=", f"/?Token={TOKEN}"):
        refused = ask(gate, path, host=host)
        assert refused.status == 403 and "Set-Cookie" not in refused.headers
    assert TOKEN.encode() not in refused.body
    wrong = ask(gate, "/", host=host, cookie=f"gs_search_8080={TOKEN[:-1]}")
    other_port = ask(gate, "/", host=host, cookie=f"gs_search_8081={TOKEN}")
    assert (wrong.status, other_port.status) == (403, 403)
    assert behind.seen == []

    first = ask(gate, f"/dashboard/studies/1?numbers=3&token={TOKEN}", host=host)
    assert first.status == 302 and first.headers["Location"] == "/dashboard/studies/1?numbers=3"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie
    assert ask(gate, "/", host=host, cookie=cookie.partition(";")[0]).status == 200
    assert ask(gate, "/", "POST", host=host, cookie=cookie.partition(";")[0]).status == 403
    assert ask(gate, f"/?token={TOKEN}", "POST", host=host).status == 403
    assert ask(gate, "/", host=host, cookie="\x00; =;;a b").status == 403


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example/x", "/a\r\nSet-Cookie: b=c"])
def test_letting_in_leads_nowhere_else(path: str) -> None:
    _, gate = guarded(host="192.0.2.7", token=TOKEN)
    place = ask(gate, f"{path}?token={TOKEN}", host="192.0.2.7").headers["Location"]
    assert place[0] == "/" and place[1:2] not in ("/", "\\") and "\r" not in place and "\n" not in place


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("gpu-box", False), ("", False),
    ],
)  # fmt: skip
def test_who_needs_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback

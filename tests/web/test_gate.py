"""The gate: what passes and what does not, request by request, before an application that answers anything."""

from __future__ import annotations

from typing import Any

import pytest

from gs_search.errors import BadInput
from gs_search.web.gate import Gate, is_loopback
from tests.web.asking import Behind, ask

TOKEN = "a-token-of-this-test"


def guarded(**options: Any) -> tuple[Behind, Gate]:
    behind = Behind()
    return behind, Gate(behind, **{"port": 8080, "verb": "phone"} | options)


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
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "localhost:8080",
        "LOCALHOST",
        "localhost.:8080",
        "[::1]:8080",
        "127.0.0.2:9",
        "localhost:9000",
    ],
)
def test_names_of_this_machine_pass(host: str) -> None:
    """With any port: that of a tunnel is another one."""
    _, gate = guarded()
    assert ask(gate, "/", host=host).status == 200


FOREIGN = [
    "evil.example", "gpu01.example.org:8080", "4f2c0d1e9a7b:8080", "dash.example.org", "192.0.2.7:8080",
    "[2001:db8::1]:8080", "", None, "127.0.0.1:8080,evil.example",
]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_under_any_name_the_token_opens_and_nothing_else_does(host: str | None) -> None:
    """A rebound page knows no token, and its browser sends cookies of its own name alone."""
    behind, gate = guarded(token=TOKEN)
    named: Any = {"host": host}
    for method in ("GET", "HEAD", "POST"):
        answer = ask(gate, "/", method, **named)
        assert answer.status == 403 and TOKEN.encode() not in answer.body
    assert ask(gate, "/?token=", **named).status == ask(gate, "/", cookie="gs_search_8080=", **named).status == 403
    assert behind.seen == []
    assert ask(gate, f"/?token={TOKEN}", **named).status == 302
    assert ask(gate, "/", cookie=f"gs_search_8080={TOKEN}", **named).status == 200


def test_names_that_are_allowed_without_a_token() -> None:
    _, gate = guarded(allowed=["Dash.example.org", "gpu01"])
    for host, status in {
        "dash.example.org": 200, "DASH.example.org:8443": 200, "dash.example.org.": 200, "gpu01:1": 200,
        "127.0.0.1:8080": 200, "gpu01.example.org": 403, "example.org": 403, "x.dash.example.org": 403,
        "dash.example.org,evil.example": 403,
    }.items():  # fmt: skip
        answer = ask(gate, "/", host=host)
        assert answer.status == status, host
    assert b"--allow-host NAME adds one" in answer.body
    # Who was asked is for the proxy to say; here it is not believed.
    assert ask(gate, "/", host="evil.example", x_forwarded_host="dash.example.org").status == 403


@pytest.mark.parametrize("name", ["", "http://dash.example.org/", "*", "*.example.org", "a b", "."])
def test_a_name_that_is_none_is_said(name: str) -> None:
    with pytest.raises(BadInput, match="--allow-host .*: not a host name"):
        guarded(allowed=[name])


def test_the_cookie_among_others() -> None:
    """Under a name that is shared, others set cookies that no standard knows; one of ours may be another server's."""
    _, gate = guarded(token=TOKEN)
    for around in ('a={"x": [1]}; {}', "{}; b=\xe4 c", "gs_search_8080=other; {}", ";;=; {} ;"):
        cookie = around.replace("{}", f"gs_search_8080={TOKEN}")
        assert ask(gate, "/", host="dash.example.org", cookie=cookie).status == 200, cookie


def test_behind_https_the_cookie_goes_by_https_alone() -> None:
    _, gate = guarded(token=TOKEN)
    for scheme, secure in (("https", True), ("http", False), (None, False)):
        answer = ask(gate, f"/?token={TOKEN}", x_forwarded_proto=scheme)
        assert answer.headers["Set-Cookie"].endswith("; Secure") is secure


def test_a_token_once_a_cookie_then() -> None:
    behind, gate = guarded(token=TOKEN)
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
    _, gate = guarded(token=TOKEN)
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

"""The dashboard's gate: what may be written, request by request, before an application that answers anything."""

from __future__ import annotations

from typing import Any

import pytest

from gs_search.dashboard.gate import DashboardGate
from tests.web.asking import Answer, Behind, ask

WRITES = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")


def guarded(**options: Any) -> tuple[Behind, DashboardGate]:
    behind = Behind()
    return behind, DashboardGate(behind, **{"port": 8080} | options)


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("path", ["/", "/api/studies/1", "/api/studies/1/note", "/incompatible-rdb-schema"])
def test_only_reads_pass(method: str, path: str) -> None:
    behind, gate = guarded()
    answer = ask(gate, path, method, body={})
    assert answer.status == 403 and behind.seen == []
    line = answer.json["reason"] if path.startswith("/api/") else answer.body.decode()
    assert "--allow-edit" in line and len(line.splitlines()) == 1
    for read in ("GET", "HEAD"):
        assert ask(gate, path, read).status == 200
    assert behind.seen == [f"GET {path}", f"HEAD {path}"]


def edit(path: str, method: str = "PUT", **headers: Any) -> Answer:
    return ask(guarded(allow_edit=True)[1], path, method, body={}, **headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/studies/1/note"), ("PUT", "/api/studies/1/17/note"), ("POST", "/api/trials/17/user-attrs"),
        ("POST", "/api/artifacts/1"), ("POST", "/api/artifacts/1/17"), ("DELETE", "/api/artifacts/1/ab-12"),
        ("DELETE", "/api/artifacts/1/17/ab-12"),
    ],
)  # fmt: skip
def test_notes_and_uploads_may_be_allowed(method: str, path: str) -> None:
    assert edit(path, method).status == 200
    assert edit(path, method, origin="http://127.0.0.1:8080", sec_fetch_site="same-origin").status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1:8080.evil.example"):
        assert edit(path, method, origin=origin).status == 403
    for site in ("cross-site", "same-site"):
        assert edit(path, method, sec_fetch_site=site).status == 403
        assert edit(path, method, sec_fetch_site=site, origin="http://127.0.0.1:8080").status == 403


def test_notes_through_a_proxy_that_asks_under_another_name() -> None:
    """It says under which it was asked; or the browser, over https, that the page is the same."""
    page = "https://dash.example.org"
    path = "/api/studies/1/note"
    assert edit(path, origin=page).status == 403
    assert edit(path, origin=page, sec_fetch_site="same-origin").status == 200
    for forwarded, status in (("dash.example.org", 200), ("dash.example.org, inner", 200), ("other", 403), ("", 403)):
        assert edit(path, origin=page, x_forwarded_host=forwarded).status == status
    assert edit(path, origin="null", x_forwarded_host="dash.example.org").status == 403
    assert edit(path, origin="null", x_forwarded_host="").status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename"), ("POST", "/api/studies"),
        ("POST", "/api/trials/17/tell"), ("POST", "/incompatible-rdb-schema"), ("POST", "/api/studies/1/17/skip"),
        ("POST", "/api/llm/generate_plotly_graph_query"), ("PUT", "/api/studies/1/note/../../2"),
    ],
)  # fmt: skip
def test_the_study_itself_is_never_open(method: str, path: str) -> None:
    answer = edit(path, method)
    assert answer.status == 403 and b"belong to the search" in answer.body


def test_answers_are_for_this_page_only() -> None:
    _, gate = guarded()
    page, picture, data = (ask(gate, path) for path in ("/dashboard", "/artifacts/1/2/ab", "/api/studies"))
    for answer in (page, picture, data):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert picture.headers["Content-Security-Policy"].startswith("sandbox")
    assert data.headers["Cache-Control"] == "no-store"

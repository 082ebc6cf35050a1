"""What the page's server answers, and with which headers; what has no address."""

from __future__ import annotations

import json
import re

import pytest

from gs_search.phone.app import PhoneApp
from gs_search.phone.runtime import FILES
from tests.web.asking import ask

SCRIPTS = ("page.js", "picture.js", "engine.js")


def policy(app: PhoneApp, path: str) -> dict[str, list[str]]:
    told = ask(app, path).headers["Content-Security-Policy"]
    return {name: sources for name, *sources in (part.split() for part in told.split(";"))}


def test_every_answer_is_for_this_page_alone(app: PhoneApp) -> None:
    for path in ("/", "/engine.js", "/models/student.onnx", f"/runtime/1.2.3/{FILES[2]}", "/none"):
        rules = policy(app, path)
        assert rules["default-src"] == ["'none'"] and rules["connect-src"] == ["'self'"]
        assert rules["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
        assert rules["worker-src"] == rules["style-src"] == ["'self'"]
        assert rules["form-action"] == rules["frame-ancestors"] == rules["base-uri"] == ["'none'"]
        assert not any("unsafe-inline" in source or "*" in source for sources in rules.values() for source in sources)
        headers = ask(app, path).headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/models/student.onnx", "application/octet-stream", b"not really one"),
        ("/models/teacher.onnx", "application/octet-stream", b"the teacher"),
        *((f"/runtime/1.2.3/{name}", None, f"content of {name}".encode()) for name in FILES),
    ],
)
def test_files(app: PhoneApp, path: str, kind: str | None, content: bytes) -> None:
    answer = ask(app, path)
    expected = {".mjs": "text/javascript; charset=utf-8", ".wasm": "application/wasm"}
    assert answer.status == 200 and answer.body == content
    assert answer.headers["Content-Type"] == (kind or expected[path[path.rindex(".") :]])
    lasting = path.startswith("/runtime/")
    assert answer.headers["Cache-Control"] == ("private, max-age=31536000, immutable" if lasting else "no-store")
    head = ask(app, path, "HEAD")
    assert (head.status, head.body, head.headers) == (200, b"", answer.headers)
    assert answer.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    "path",
    [
        "/index.html", "/page.html.jinja", "/app.py", "//", "/..", "/../app.py", "/models/../app.py", "/models/",
        "/models/other.onnx", "/runtime/1.2.3/manifest.json", "/runtime/1.2.3/../../run/study.yaml",
        "/runtime/9.9.9/" + FILES[0], "/%2e%2e/app.py",
        "/web/page.js", "/etc/passwd", "/models/student.onnx/", "/favicon.ico", "/\x00",
        "/resolved.yaml",
    ],
)  # fmt: skip
def test_nothing_else_has_an_address(app: PhoneApp, path: str) -> None:
    assert ask(app, path).status == 404


def test_a_file_that_has_gone(app: PhoneApp, tmp_path: object) -> None:
    for content in app._contents.values():
        if not isinstance(content.source, bytes):
            content.source.unlink()
    answer = ask(app, "/models/student.onnx")
    assert answer.status == 404 and b"is gone" in answer.body and answer.body.count(b"\n") == 1


def test_the_page_has_nothing_inline_and_asks_nobody(app: PhoneApp) -> None:
    page = ask(app, "/").body.decode()
    assert "a &lt;study&gt; &amp; more" in page and "<study>" not in page
    assert re.findall(r"<script(?! type=\"module\" src=\"/page\.js\"></script>)", page) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert loaded == ["/icon.svg", "/palette.css", "/page.css", "/page.js"]
    for address in (*loaded, *(f"/{name}" for name in SCRIPTS)):
        answer = ask(app, address)
        assert answer.status == 200
        outside = re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", answer.body)
        assert [host for host in outside if b"w3.org" not in host] == []  # the name space of SVG
        assert b"sendBeacon" not in answer.body and b"XMLHttpRequest" not in answer.body and b"POST" not in answer.body
    for control in re.findall(r"<(?:input|select)[^>]*>", page):
        name = re.search(r'id="([^"]+)"', control)
        assert "aria-label" in control or (name and f'for="{name[1]}"' in page) or f"<label>{control}" in page or (
            re.search(rf"<label>[^<]*{re.escape(control)}", page)
        ), control  # fmt: skip


def test_what_the_page_is_told(app: PhoneApp) -> None:
    told = json.loads(ask(app, "/study.json").body)
    assert (told["study"], told["image_px"], told["multiple"]) == ("a <study> & more", 64, 8)
    assert told["runtime"] == "/runtime/1.2.3/"
    assert told["models"]["student"] == {
        "label": "trial 1", "kind": "whole numbers", "mb": 14e-6, "fid": 101.0, "gflops": 0.0144,
        "address": "/models/student.onnx",
    }  # fmt: skip
    assert list(told["models"]) == ["student", "teacher"]

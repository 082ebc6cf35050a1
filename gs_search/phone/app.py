"""What the page may ask for: itself, the files it runs, and the runtime. Nothing else has an address.

No part of an address ever becomes a path of a file: it is looked up in a table that is made at the start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from gs_search import __version__
from gs_search.phone.models import Model
from gs_search.phone.runtime import FILES, Runtime

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["PhoneApp"]

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Scripts and WebAssembly of this server alone, and no connection to any other: a photo cannot leave."""

HEADERS = [
    ("Content-Security-Policy", POLICY),
    # Together they give the page memory that threads may share, and clocks that tell microseconds.
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),  # a file input asks the camera's own app
]

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}

CHUNK = 1 << 18


@dataclass(frozen=True)
class _Content:
    """What an address answers with: bytes, or a file that is read when it is asked for."""

    source: bytes | Path
    type: str
    lasting: bool = False
    """Whether it never changes under its address, so that a browser need not ask again."""


class PhoneApp:
    """A WSGI application: the page for one student, and its teacher where that is wanted."""

    def __init__(
        self, student: Model, runtime: Runtime, *, study: str, image_px: int, teacher: Model | None = None
    ) -> None:
        models = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
        told = {
            "study": study,
            "image_px": image_px,
            "multiple": student.multiple,
            "runtime": f"/runtime/{runtime.version}/",
            "models": {name: model.to_json() | {"address": f"/models/{name}.onnx"} for name, model in models.items()},
        }
        self._contents = {
            "/": _Content(_page(told, runtime), "text/html; charset=utf-8"),
            "/study.json": _Content(json.dumps(told, allow_nan=False).encode(), "application/json"),
            "/palette.css": _Content(_asset("report", "palette.css"), TYPES[".css"]),
        }
        for name in ("page.css", "page.js", "picture.js", "engine.js", "icon.svg"):
            self._contents[f"/{name}"] = _Content(_asset("phone", name), TYPES[Path(name).suffix])
        for name in FILES:
            address = f"/runtime/{runtime.version}/{name}"
            self._contents[address] = _Content(runtime.folder / name, TYPES[Path(name).suffix], lasting=True)
        for name, model in models.items():
            self._contents[f"/models/{name}.onnx"] = _Content(model.file, TYPES[".onnx"])

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; whether it may be made is the gate's affair."""
        content = self._contents.get(environ.get("PATH_INFO", ""))
        if content is None:
            return _answer(environ, start_response, "404 Not Found", _Content(b"not here\n", "text/plain"))
        try:
            return _answer(environ, start_response, "200 OK", content)
        except OSError as error:
            line = f"{content.source!s} is gone: {error.strerror}; export it again, then start gs-search phone anew\n"
            return _answer(environ, start_response, "404 Not Found", _Content(line.encode(), "text/plain"))


def _answer(environ: WSGIEnvironment, start_response: StartResponse, status: str, content: _Content) -> Iterable[bytes]:
    body = content.source if isinstance(content.source, bytes) else content.source.read_bytes()
    caching = "private, max-age=31536000, immutable" if content.lasting else "no-store"
    headers = [("Content-Type", content.type), ("Content-Length", str(len(body))), ("Cache-Control", caching)]
    start_response(status, [*headers, *HEADERS])
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return (body[start : start + CHUNK] for start in range(0, len(body), CHUNK))


def _page(told: dict[str, Any], runtime: Runtime) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gs_search.phone", "web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja")
    return page.render(**told, version=__version__, runtime_version=runtime.version).encode("utf-8")


def _asset(part: str, name: str) -> bytes:
    return (resources.files("gs_search") / part / "web" / name).read_bytes()

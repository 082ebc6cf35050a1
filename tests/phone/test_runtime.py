"""The cache of the runtime: filled from a registry of this machine, checked to the byte, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gs_search.cli import main
from gs_search.errors import BadInput, GsSearchError
from gs_search.phone import runtime
from gs_search.phone.runtime import FILES, PUBLIC_REGISTRY, cache_folder, fetch_runtime, find_runtime, registry

DESCRIPTION = f"/{runtime.PACKAGE}/{runtime.VERSION}"
TARBALL = f"/{runtime.PACKAGE}/-/{runtime.PACKAGE}-{runtime.VERSION}.tgz"


def package(names: tuple[str, ...] = FILES) -> bytes:
    """A package file as npm's: what is wanted, and what is not, some of it with a foreign aim."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in (*(f"package/dist/{name}" for name in names), "package/README.md", "../../evil", "/tmp/evil"):
            content = f"content of {name}".encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@contextmanager
def registry_with(answers: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A registry of this machine; yields its address and what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def to(content: bytes) -> None:
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")

    return to


def described(tarball: str) -> bytes:
    return json.dumps({"dist": {"tarball": tarball, "integrity": "sha512-whatever"}}).encode()


def test_fetched_once_checked_always(
    cache: Path, pin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match=r"is not there yet; `gs-search phone --fetch-runtime` fetches it, once"):
        find_runtime()
    content = package()
    pin(content)
    # A mirror hands on the description of the public registry: the file has to come from the mirror nevertheless.
    answers = {DESCRIPTION: described(PUBLIC_REGISTRY[:-1] + TARBALL), TARBALL: content}
    with registry_with(answers) as (address, asked):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{address}/")
        found = fetch_runtime()
        assert asked == [DESCRIPTION, TARBALL]
        assert fetch_runtime() == find_runtime() == found and len(asked) == 2, "what is there is not fetched again"
        assert main(["phone", "--fetch-runtime", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["folder"] == str(found.folder) and len(asked) == 2

        assert {path.name for path in found.folder.iterdir()} == {*FILES, "manifest.json"}
        assert (found.folder / FILES[0]).read_bytes() == f"content of package/dist/{FILES[0]}".encode()
        assert [path.name for path in cache.iterdir()] == [found.folder.name], "no drafts, and nothing beside"

        for damage in (lambda path: path.write_bytes(b"content of another"), Path.unlink):
            damage(found.folder / FILES[2])
            with pytest.raises(BadInput, match=f"{FILES[2]}: damaged or missing; .*--fetch-runtime"):
                find_runtime()
            assert fetch_runtime() == found
        (found.folder / "manifest.json").write_text("{")
        with pytest.raises(BadInput, match="damaged"):
            find_runtime()
        fetch_runtime()
        assert len(asked) == 8


def test_what_is_not_the_package_is_not_kept(
    cache: Path, pin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = package()
    pin(content)
    tampered = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    with registry_with({TARBALL: tampered}) as (address, _):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        for answer, line in (
            (None, r"cannot be fetched from 127\.0\.0\.1 \(HTTP Error 404"),
            (b"<html>", "does not describe"),
            (b"[]", "does not describe"),
            (described("file:///etc/passwd"), "no address of the web"),
            (described(address + "/elsewhere.tgz"), "404"),
            (described(address + TARBALL), "its SHA-512 differs from the pinned one"),
        ):
            with registry_with({DESCRIPTION: answer} if answer else {}) as (described_at, _):
                monkeypatch.setenv("NPM_CONFIG_REGISTRY", described_at)
                with pytest.raises(GsSearchError, match=line) as error:
                    fetch_runtime()
                assert "\n" not in str(error.value)
                assert main(["phone", "--fetch-runtime"]) == 1
                assert capsys.readouterr().err.splitlines()[-1] == f"error: {error.value}"
    assert not cache.exists()


def test_a_server_that_does_not_end_is_left(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MOST_BYTES", 1000)
    with registry_with({TARBALL: bytes(1001)}) as (address, _):
        with registry_with({DESCRIPTION: described(address + TARBALL)}) as (other, _):
            monkeypatch.setenv("npm_config_registry", other)
            with pytest.raises(GsSearchError, match="sends more than"):
                fetch_runtime()


def test_a_package_that_lacks_a_file(cache: Path, pin: Callable[[bytes], None]) -> None:
    """As one of another version might; what was there before stays."""
    whole, short = package(), package(FILES[:-1])
    pin(whole)
    runtime.install(whole)
    pin(short)
    with pytest.raises(GsSearchError, match=f"lacks what it should have .*{FILES[-1]}"):
        runtime.install(short)
    assert find_runtime().folder.is_dir() and len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, pin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / "file" / "cache"))
    pin(package())
    with pytest.raises(GsSearchError, match="cannot be written .*set GS_SEARCH_CACHE"):
        runtime.install(package())


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GS_SEARCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == Path.home() / ".cache" / "gs-search"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "gs-search"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/gs-search")
    monkeypatch.setenv("GS_SEARCH_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_which_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    npm = tmp_path / "npm"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert registry() == PUBLIC_REGISTRY
    for told, expected in (
        ("echo https://npm.example/mirror", "https://npm.example/mirror/"),
        ("echo undefined", PUBLIC_REGISTRY),
        ("exit 1", PUBLIC_REGISTRY),
    ):
        npm.write_text(f'#!/bin/sh\n[ "$*" = "config get registry" ] && {told}\n')
        npm.chmod(0o755)
        assert registry() == expected
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://other.example")
    assert registry() == "https://other.example/"


def test_the_pinned_one_is_a_sha512() -> None:
    kind, _, digest = runtime.INTEGRITY.partition("-")
    assert kind == "sha512" and len(base64.b64decode(digest, validate=True)) == 64

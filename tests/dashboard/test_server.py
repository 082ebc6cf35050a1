"""The server over HTTP: its address, its refusals, and its end."""

from __future__ import annotations

import functools
import json
import re
import shlex
import signal
import socket
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gs_search import cli
from gs_search.dashboard import server
from gs_search.dashboard.server import DashboardAddress, serve
from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.web import listening
from tests.web.asking import request, visited


def visit(folder: RunFolder, look: Callable[[DashboardAddress], Any], **options: Any) -> Any:
    """Serve, look at it from another thread, and end it by a signal, as a terminal does."""
    return visited(functools.partial(serve, folder), look, **options)


def test_over_http(original: RunFolder) -> None:
    def look(address: DashboardAddress) -> DashboardAddress:
        assert address.url == f"http://127.0.0.1:{address.port}/" and address.token is None
        status, body = request(address, "GET", "/api/studies/1")
        assert status == 200 and len(json.loads(body)["trials"]) == 24
        for method in ("POST", "PUT", "DELETE"):
            assert request(address, method, "/api/studies/1")[0] == 403
        assert request(address, "GET", "/", Host="evil.example")[0] == 403
        assert request(address, "HEAD", "/dashboard") == (200, b"")
        return address

    address = visit(original, look)
    with pytest.raises(ConnectionRefusedError):
        request(address, "GET", "/")


def test_ends_on_sigterm_with_a_request_under_way(original: RunFolder) -> None:
    """One that says nothing keeps nobody from leaving."""

    def look(address: DashboardAddress) -> socket.socket:
        return socket.create_connection(("127.0.0.1", address.port))

    visit(original, look, number=signal.SIGTERM).close()


def test_from_other_machines_with_a_token(original: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    def look(address: DashboardAddress) -> None:
        assert (
            address.token is not None and len(address.token) >= 32 and address.url.endswith(f"?token={address.token}")
        )
        assert request(address, "GET", "/api/studies")[0] == 403
        connection = HTTPConnection("127.0.0.1", address.port, timeout=60)
        connection.request("GET", f"/?token={address.token}")
        answer = connection.getresponse()
        answer.read()
        cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]
        assert (answer.status, answer.getheader("Location")) == (302, "/")
        assert request(address, "GET", "/api/studies", Cookie=cookie)[0] == 200

    visit(original, look, host="0.0.0.0")
    told = capfd.readouterr()
    assert told.out == told.err == "", "the token would be in a log of requests"


def test_a_port_that_is_taken(original: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BadInput, match=rf"--port {port}: is taken; leave --port out"):
            serve(original, port=port)
        monkeypatch.setattr(server, "DEFAULT_PORT", port)
        found = visit(original, lambda address: address.port, port=None)
        assert port < found <= port + listening.TRIED
        monkeypatch.setattr(listening, "TRIED", 1)
        with pytest.raises(BadInput, match="are all taken"):
            serve(original)


def test_an_address_of_another_machine(original: RunFolder) -> None:
    with pytest.raises(BadInput, match="--host 192.0.2.7: cannot be listened on"):
        serve(original, host="192.0.2.7", port=0)


def test_the_browser_is_opened_on_request(original: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()
    addresses: list[str] = []

    def open_address(url: str) -> None:
        addresses.append(url)
        opened.set()

    monkeypatch.setattr("webbrowser.open", open_address)
    visit(original, lambda address: None)
    assert addresses == []
    url = visit(original, lambda address: opened.wait(60) and address.url, open_browser=True)
    assert addresses == [url]


def test_the_command_of_the_readme(
    original: RunFolder, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.findall(r"<!-- test: serves -->\n```bash\n(.*?)```", (repository / "README.md").read_text(), re.S)
    seen: list[Path] = []
    monkeypatch.setattr(server, "serve", lambda folder, **options: seen.append(folder.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(original.path)
    for line in "".join(lines).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "gs-search" and cli.main(arguments) == 0
    assert seen == [Path("runs/quickstart")]


def test_the_verb(original: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> tuple[str, str]:
        def fake(folder: RunFolder, *, announce: Callable[[DashboardAddress], None], **options: Any) -> None:
            given.append(options)
            announce(
                DashboardAddress(
                    url="http://h:1/?token=t", host="h", port=1, token="t", allow_edit=options["allow_edit"]
                )
            )

        monkeypatch.setattr(server, "serve", fake)
        assert cli.main(["dashboard", str(original.path), *arguments]) == 0
        captured = capsys.readouterr()
        return captured.out, captured.err

    given: list[dict[str, Any]] = []
    out, err = told()
    assert out == "http://h:1/?token=t\n" and "read-only" in err and "not encrypted" in err
    nothing = {"host": "127.0.0.1", "port": None}
    assert given == [nothing | {"allow_hosts": (), "allow_edit": False, "open_browser": False}]
    out, err = told(
        "--json", "--port", "0", "--host", "::1", "--allow-host", "a", "--allow-host", "b", "--allow-edit", "--open"
    )
    assert json.loads(out) == {"url": "http://h:1/?token=t", "host": "h", "port": 1, "token": "t", "allow_edit": True}
    assert err == ""
    assert given[1] == {
        "host": "::1", "port": 0, "allow_hosts": ("a", "b"), "allow_edit": True, "open_browser": True,
    }  # fmt: skip
    assert cli.main(["dashboard", str(original.path.parent / "none")]) == 2
    assert cli.main(["dashboard", str(original.path), "--port", "70000"]) == 2

"""The server over HTTP, its address in the network, and the verb."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gs_search import cli
from gs_search.errors import BadInput
from gs_search.phone import runtime, server
from gs_search.phone.models import Model
from gs_search.phone.qr import qr_code
from gs_search.phone.server import PhoneAddress, lan_address, serve
from gs_search.results.run_folder import RunFolder
from tests.phone.conftest import export_by_hand
from tests.web.asking import request, visited


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, stub_runtime: runtime.Runtime) -> None:
    monkeypatch.setattr(server, "find_runtime", lambda: stub_runtime)


def test_over_http(folder: RunFolder) -> None:
    path = export_by_hand(folder, 1)

    def look(address: PhoneAddress) -> PhoneAddress:
        assert address.url == f"http://127.0.0.1:{address.port}/" and address.token is None
        assert address.student.file == path and address.teacher is None
        assert request(address, "GET", "/models/student.onnx") == (200, b"not really one")
        assert request(address, "GET", "/../../../../etc/passwd")[0] == 404
        assert request(address, "HEAD", "/") == (200, b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert request(address, method, "/")[0] == 403
        assert request(address, "GET", "/", Host="evil.example")[0] == 403
        return address

    address = visited(functools.partial(serve, folder), look)
    with pytest.raises(ConnectionRefusedError):
        request(address, "GET", "/")


def test_in_the_network_with_a_token(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    export_by_hand(folder, 1)
    # 0.0.0.0 stands for the network's address: this machine may be in none.
    monkeypatch.setattr(server, "lan_address", lambda: "0.0.0.0")
    tokens = []

    def look(address: PhoneAddress) -> None:
        assert address.token is not None and len(address.token) >= 32
        assert address.url.endswith(f":{address.port}/?token={address.token}")
        for path in ("/", "/models/student.onnx", f"/?token={address.token}x"):
            status, body = request(address, "GET", path)
            assert status == 403 and b"open the whole address that gs-search phone printed" in body
        connection = HTTPConnection("127.0.0.1", address.port, timeout=60)
        connection.request("GET", f"/?token={address.token}")
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.getheader("Location")) == (302, "/")
        cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]
        assert request(address, "GET", "/models/student.onnx", Cookie=cookie) == (200, b"not really one")
        tokens.append(address.token)

    for _ in range(2):
        visited(functools.partial(serve, folder), look, lan=True)
    assert tokens[0] != tokens[1]


def test_the_address_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe:
        def __init__(self, found: str | None) -> None:
            self.found = found

        def __call__(self, *kind: Any) -> Probe:
            return self

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *error: object) -> None: ...

        def connect(self, place: tuple[str, int]) -> None:
            if self.found is None:
                raise OSError("network is unreachable")

        def getsockname(self) -> tuple[str | None, int]:
            return self.found, 5

    monkeypatch.setattr("socket.socket", Probe("198.51.100.7"))
    assert lan_address() == "198.51.100.7"
    for found in (None, "127.0.0.1", "0.0.0.0"):
        monkeypatch.setattr("socket.socket", Probe(found))
        with pytest.raises(BadInput, match="--lan: this machine is in no network"):
            lan_address()


def test_a_host_of_another_machine(folder: RunFolder) -> None:
    export_by_hand(folder, 1)
    with pytest.raises(BadInput, match="--host 192.0.2.7: cannot be listened on"):
        serve(folder, host="192.0.2.7", port=0)


def test_the_verb(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[dict[str, Any]] = []

    def told(*arguments: str, token: str | None = None) -> tuple[str, str]:
        def fake(folder: RunFolder, *, announce: Callable[[PhoneAddress], None], **options: Any) -> None:
            options.pop("log")("a line")
            given.append(options)
            student = Model(export_by_hand(folder, 1), "trial 1")
            announce(PhoneAddress(url="http://h:1/", host="h", port=1, token=token, student=student, teacher=None))

        monkeypatch.setattr(server, "serve", fake)
        assert cli.main(["phone", str(folder.path), *arguments]) == 0
        captured = capsys.readouterr()
        return captured.out, captured.err

    out, err = told()
    assert out == "http://h:1/\n" and "--lan" in err and "trial 1: quickstart@fid1.0.onnx, 1.4e-05 MB" in err
    nothing = {"trial": None, "file": None, "floats": False, "teacher": False, "lan": False, "host": None, "port": None}
    assert given == [nothing | {"allow_hosts": (), "open_browser": False}]
    out, err = told(
        "--trial",
        "1",
        "--float",
        "--teacher",
        "--lan",
        "--port",
        "0",
        "--open",
        "--allow-host",
        "a.example",
        "--json",
        token="t",
    )
    assert json.loads(out) == {
        "url": "http://h:1/", "host": "h", "port": 1, "token": "t", "teacher": None,
        "student": str(folder.exports / "quickstart@fid1.0.onnx"),
    }  # fmt: skip
    assert err == "a line\n" and given[1] == nothing | {
        "trial": 1, "floats": True, "teacher": True, "lan": True, "port": 0, "allow_hosts": ("a.example",),
        "open_browser": True,
    }  # fmt: skip
    assert "not encrypted" in told("--lan", token="t")[1]
    assert cli.main(["phone"]) == 2
    assert capsys.readouterr().err.startswith("error: phone: which run folder?")
    assert cli.main(["phone", str(tmp_path / "none")]) == 2


def test_one_line_where_the_runtime_is_missing(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_by_hand(folder, 1)
    monkeypatch.setattr(server, "find_runtime", runtime.find_runtime)
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / "empty"))
    assert cli.main(["phone", str(folder.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`gs-search phone --fetch-runtime` fetches it" in line


def test_the_commands_of_the_readme(
    folder: RunFolder, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"<!-- (?:ci: runtime|test: phone) -->\n```bash\n(.*?)```", text, re.S)).splitlines()
    seen: list[str] = []
    monkeypatch.setattr(server, "serve", lambda found, **options: seen.append(str(found.path)))
    monkeypatch.setattr(runtime, "fetch_runtime", lambda log: seen.append("fetched") or server.find_runtime())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(folder.path)
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "gs-search" and cli.main(arguments) == 0
    assert seen[0] == "fetched" and set(seen[1:]) == {"runs/quickstart"}


def test_a_code_that_a_camera_reads() -> None:
    """Read back by the rules of ISO/IEC 18004 as far as they need no mathematics: size, finders, quiet zone."""
    pytest.importorskip("segno", reason="the extra 'phone' is not installed")
    url = "http://198.51.100.7:8090/?token=abcdefghijklmnopqrstuvwxyz012345"
    code = qr_code(url, colours=False)
    assert code is not None
    halves = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}
    rows = [row for line in code.splitlines() for row in zip(*(halves[mark] for mark in line), strict=True)]
    light = [row for row in rows if any(row)]
    side = len(light[0]) - 8
    assert (side - 17) % 4 == 0
    inner = [row[4:-4] for row in light[4 : 4 + side]]
    assert all(all(row[:4]) and all(row[-4:]) for row in light) and all(all(row) for row in light[:4])
    finder = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]
    corners = ((0, 0), (0, side - 7), (side - 7, 0))
    for top, left in corners:
        dark = ["".join(str(1 - bit) for bit in row[left : left + 7]) for row in inner[top : top + 7]]
        assert dark == finder
    coloured = qr_code(url, colours=True)
    assert coloured is not None and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == code


def test_without_the_extra_there_is_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "segno", None)
    assert qr_code("http://h:1/", colours=False) is None

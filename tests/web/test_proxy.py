"""Pages through a reverse proxy over HTTP: a small real one, and nginx where it is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gs_search.dashboard.gate import DashboardGate
from tests.web.asking import Behind, serving

TOKEN = "a-token-of-this-test"
OUTSIDE = "dash.example.org"
"""The name under which the proxy is asked."""


class _Forwarding(BaseHTTPRequestHandler):
    """Hands a request on, as proxies do: with what it knows about who asked, and under which name."""

    server: Any

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
        behind = urlsplit(self.server.behind)
        asked = self.headers["Host"]
        headers |= {"Host": asked if self.server.keeps_host else behind.netloc}
        headers |= {"X-Forwarded-For": "192.0.2.99", "X-Forwarded-Proto": "https"}
        if self.server.tells_host:
            headers["X-Forwarded-Host"] = asked
        assert behind.hostname is not None
        with closing(HTTPConnection(behind.hostname, behind.port, timeout=30)) as connection:
            connection.request(self.command, self.path, self.rfile.read(length), headers)
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, format: str, *arguments: Any) -> None: ...


@contextmanager
def small_proxy(behind: str, *, keeps_host: bool, tells_host: bool) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forwarding) as server:
        server.behind, server.keeps_host, server.tells_host = behind, keeps_host, tells_host  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nginx(folder: Path, behind: str, lines: str) -> Iterator[int]:
    """A proxy as most people have it."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed here (apt-get install nginx-light)")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forwarding) as taken:
        port = taken.server_port
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off; {places} "
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {behind.rstrip('/')}; {lines} }} }} }}"
    )
    with subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What somebody gets who reaches the proxy under its name."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, b"{}" if method == "PUT" else None, {"Host": OUTSIDE} | told)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def visit_with_a_token(port: int) -> str:
    """Once by the whole address, then by the cookie that came with it, which is returned."""
    assert ask(port, "/")[0] == ask(port, "/?token=wrong")[0] == 403
    status, headers, _ = ask(port, f"/dashboard?token={TOKEN}")
    assert status == 302 and headers["Location"] == "/dashboard"
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert ask(port, "/dashboard", Cookie=cookie)[::2] == (200, b"inside")
    assert ask(port, "/dashboard", Cookie=f"{cookie}x")[0] == 403
    return cookie


@pytest.mark.parametrize(("keeps_host", "tells_host"), [(True, False), (False, True), (False, False)])
def test_the_token_suffices_behind_a_proxy(keeps_host: bool, tells_host: bool) -> None:
    with (
        serving(lambda port: DashboardGate(Behind(), port=port, token=TOKEN, allow_edit=True)) as address,
        small_proxy(address, keeps_host=keeps_host, tells_host=tells_host) as port,
    ):
        cookie = visit_with_a_token(port)
        note = "/api/studies/1/note"
        own = {"Origin": f"https://{OUTSIDE}", "Cookie": cookie}
        assert ask(port, note, "PUT", **own)[0] == (200 if keeps_host or tells_host else 403)
        assert ask(port, note, "PUT", **own, Sec_Fetch_Site="same-origin")[0] == 200
        assert ask(port, note, "PUT", Cookie=cookie, Origin="https://evil.example")[0] == 403
        assert ask(port, note, "PUT", Origin=f"https://{OUTSIDE}")[0] == 403


def test_without_a_token_a_name_is_allowed_or_not() -> None:
    for allowed, status in (((), 403), ((OUTSIDE,), 200), (("other.example",), 403)):
        with (
            serving(lambda port, names=allowed: DashboardGate(Behind(), port=port, allowed=names)) as address,  # type: ignore[misc]
            small_proxy(address, keeps_host=True, tells_host=True) as port,
        ):
            assert ask(port, "/")[0] == status
            assert ask(port, "/", Host="evil.example")[0] == 403


@pytest.mark.parametrize("lines", ["", "proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto https;"])
def test_behind_nginx(lines: str, tmp_path: Path) -> None:
    with (
        serving(lambda port: DashboardGate(Behind(), port=port, token=TOKEN)) as address,
        nginx(tmp_path, address, lines) as port,
    ):
        visit_with_a_token(port)

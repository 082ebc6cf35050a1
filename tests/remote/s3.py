"""An S3 server of the tests' own: moto's, on loopback, with its objects in memory.

It is reached through a door of ours, which can be shut: a server that is restarted refuses connections and breaks those
that it had, and moto's would lose its objects over it. One that hangs, which is another thing, is stopped by a signal.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BUCKET", "KEYS", "Door", "S3Server", "environment"]

BUCKET = "studies"

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTKEYOFOURS", "AWS_SECRET_ACCESS_KEY": "sEcReTof1testONLYnobodyElse"}


def environment(port: int) -> dict[str, str]:
    """What a process needs to use the server; the keys are this test's."""
    quick = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
    return {**KEYS, **quick, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


class Door:
    """Passes on what comes to a port of its own, while it is not shut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                self._pairs += [here, there]
                for a, b in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                sink.sendall(block)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def shut(self) -> None:
        """Refuse connections, and break those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()


class S3Server:
    """A server with one bucket, behind a door; ``close`` ends it.

    Args:
        free: so many requests need no key that it knows, and it knows none; None lets everyone do everything.
    """

    def __init__(self, log: Path, *, free: int | None = None) -> None:
        if importlib.util.find_spec("moto") is None:
            pytest.skip("moto is not installed here (pip install 'moto[server]')")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            behind = int(found.getsockname()[1])
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(behind)]
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        own |= {} if free is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(free)}
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, env=own, stdout=file, stderr=file)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", behind), 0.5).close()
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        self._behind, self.door = behind, Door(behind)
        self.files().create_dir(BUCKET)

    @property
    def port(self) -> int:
        """Of the door."""
        return self.door.port

    def uri(self, name: str) -> str:
        """Of a folder in the bucket, with all that is needed to reach it, but for the keys."""
        return f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def files(self) -> Any:
        """The server as another client than ours sees it, past the door."""
        from pyarrow import fs

        return fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self._behind}", scheme="http", access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"], region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip

    def names(self, below: str) -> list[str]:
        """Of all objects below a folder of the bucket."""
        from pyarrow import fs

        base = f"{BUCKET}/{below}"
        found = self.files().get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return sorted(one.path[len(base) + 1 :] for one in found if one.type == fs.FileType.File)

    def put(self, name: str, content: bytes) -> None:
        with self.files().open_output_stream(f"{BUCKET}/{name}") as sink:
            sink.write(content)

    def get(self, name: str) -> bytes:
        with self.files().open_input_stream(f"{BUCKET}/{name}") as source:
            return bytes(source.read())

    def hang(self) -> None:
        """Take connections, and answer none."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.door.shut()
        self.go_on()
        self.process.kill()
        self.process.wait()

"""A Ray cluster on this machine alone: a head without cores, and nodes that die as machines do.

Every node is a raylet of its own, on its own loopback address. Where the system allows it (root, or user namespaces)
it also has process and mount namespaces of its own: one SIGKILL then ends all of its processes at once, and what lies
in ``private`` of the cluster's folder is another folder on every node.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.kills_processes import below, wait_until_gone
from tests.remote.s3 import KEYS
from tests.test_readme import commands

__all__ = ["Node", "RayCluster", "free_port"]

HERE = Path(__file__).resolve().parent
OWN_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
OBJECT_STORE_BYTES = 80_000_000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def namespaces_allowed() -> bool:
    """Whether nodes can have namespaces of their own."""
    if not shutil.which("unshare"):
        return False
    script = "mount -t tmpfs tmpfs /mnt"
    return subprocess.run([*OWN_NAMESPACES, "sh", "-c", script], capture_output=True).returncode == 0


class Node:
    """A raylet and what it has started."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log

    def kill(self) -> None:
        """As if its plug was pulled."""
        family = below(self.process.pid)
        self.process.kill()
        for pid in family:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        self.process.wait()
        assert not wait_until_gone(family, 20)

    def family(self) -> list[int]:
        return below(self.process.pid)


class RayCluster:
    """Started nodes; ``close`` ends them all. The commands are those of the README, with addresses of this machine.

    Args:
        root: a short path; ``shared`` in it is the same on all nodes, ``private`` is not.
        first: the head's address is the one after 127.0.0.FIRST; clusters that live at a time have their own.
    """

    def __init__(self, root: Path, first: int = 10) -> None:
        self.root, self.shared, self.private = root, root / "shared", root / "private"
        for folder in (self.shared, self.private, root / "home"):
            folder.mkdir()
        # A copy, because all processes have to have the same source, and whoever runs the tests may be at work on it.
        self.code = root / "code"
        source = HERE.parents[1] / "gs_search"
        shutil.copytree(source, self.code / "gs_search", ignore=shutil.ignore_patterns("__pycache__"))
        self.isolated = namespaces_allowed()
        self.port, self.client_port, self.jobs_port, agent_port = (free_port() for _ in range(4))
        self.nodes: list[Node] = []
        self._last = first
        self.shell(*commands("test: cluster token"))
        self.token = (root / "home" / ".ray" / "auth_token").read_text()
        (head,) = commands("test: cluster head")
        assert "--port=6379" in head
        # The rest of 127.0.0.0/8 is loopback too: every node has an address of its own, and none is reached from afar.
        self.head = self._start(
            head.replace("6379", str(self.port)), f"--ray-client-server-port={self.client_port}",
            f"--dashboard-port={self.jobs_port}", f"--dashboard-agent-listen-port={agent_port}",
            f"--temp-dir={root / 'head'}", alone=False,
        )  # fmt: skip
        self.address = f"{self.head.address}:{self.port}"
        self.client_address = f"ray://{self.head.address}:{self.client_port}"
        self._await("the head", lambda: self._listens(self.port) and self._listens(self.client_port))

    def environment(self) -> dict[str, str]:
        """Of a login on any of the machines."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GS_SEARCH_", "PG"))}
        own |= KEYS  # of the S3 server, where a test has one
        own |= {"HOME": str(self.root / "home"), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        own["PYTHONPATH"] = os.pathsep.join([str(self.code), str(HERE.parent / "driving"), *filter(None, sys.path)])
        return own

    def driver_environment(self) -> dict[str, str]:
        """Of a driver: its temporary files are seen by no node."""
        return {**self.environment(), "TMPDIR": str(self.private), "RAY_AUTH_MODE": "token"}

    def shell(self, *lines: str, seconds: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run lines of the README on the head."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)], env={**self.environment(), **environment},
            cwd=self.root, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def add(self, *, cpus: int = 1, **environment: str) -> Node:
        """Start another node."""
        (command,) = commands("test: cluster node")
        assert "HEAD:6379" in command
        folder = self.private / "ray" if self.isolated else self.root / f"n{self._last}"
        # Copies of run folders in object stores are each node's own.
        environment.setdefault("GS_SEARCH_CACHE", str(folder.with_name(f"{folder.name}-cache")))
        node = self._start(
            command.replace("HEAD:6379", self.address), f"--num-cpus={cpus}", f"--temp-dir={folder}",
            alone=self.isolated, **environment,
        )  # fmt: skip
        self.nodes.append(node)
        return node

    def await_nodes(self, seconds: float = 120) -> None:
        """Wait until all nodes are up."""
        for node in self.live():
            self._await(node.address, lambda node=node: b"Ray runtime started" in node.log.read_bytes(), seconds)

    def live(self) -> list[Node]:
        """Nodes that no test has killed."""
        return [node for node in self.nodes if node.process.poll() is None]

    def full(self) -> None:
        """Have three live nodes, whatever a test has done to them."""
        for _ in range(3 - len(self.live())):
            self.add()
        self.await_nodes()

    def close(self) -> list[str]:
        """End everything; command lines of processes that did not."""
        families = [pid for node in [self.head, *self.nodes] for pid in [node.process.pid, *node.family()]]
        for node in reversed([self.head, *self.nodes]):
            if node.process.poll() is None:
                node.kill()
        return wait_until_gone(families, 30)

    def _start(self, command: str, *options: str, alone: bool, **environment: str) -> Node:
        """Run a ``ray start`` of the README in the foreground."""
        self._last += 1
        address, log = f"127.0.0.{self._last}", self.root / f"node{self._last}.txt"
        store = f"--object-store-memory={OBJECT_STORE_BYTES}"
        script = f"{command} {shlex.join(['--block', f'--node-ip-address={address}', store, *options])}"
        arguments = ["bash", "-c", script]
        if alone:
            arguments = [*OWN_NAMESPACES, "bash", "-c", f"mount -t tmpfs tmpfs {self.private} && {script}"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                arguments, env={**self.environment(), **environment}, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return Node(process, address, log)

    def _listens(self, port: int) -> bool:
        try:
            socket.create_connection((self.head.address, port), timeout=1).close()
        except OSError:
            return False
        return True

    def _await(self, what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.root.glob("node*.txt"))
            assert self.head.process.poll() is None, logs
            assert time.monotonic() < deadline, f"{what} did not come up:\n{logs}"
            time.sleep(0.2)

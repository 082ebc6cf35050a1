"""A PgBouncer of the tests' own before their PostgreSQL: transactions of all clients share two connections."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.cluster.postgres import Postgres
from tests.cluster.raylets import free_port

__all__ = ["PgBouncer", "find_pgbouncer"]


def find_pgbouncer() -> str | None:
    """The program; Debian puts it where administrators look."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


class PgBouncer:
    """A pool in transaction mode, as hosted databases have it.

    Args:
        root: a folder that another user may look into.
    """

    def __init__(self, root: Path, postgres: Postgres) -> None:
        program = find_pgbouncer()
        assert program is not None
        self.port, self._postgres = free_port(), postgres
        folder = root / "pgbouncer"
        folder.mkdir()
        (folder / "users").write_text(f'"{postgres.user}" "{postgres.password}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = transaction\n"
            "default_pool_size = 2\nserver_round_robin = 1\n"
        )
        self._as: list[str] = []
        if os.geteuid() == 0:  # which it refuses to be
            self._as = ["runuser", "-u", "nobody", "--"]
            nobody = pwd.getpwnam("nobody")
            for path in (folder, folder / "users", folder / "ini"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*self._as, program, str(folder / "ini")], cwd=folder, stdout=self._log, stderr=self._log
        )
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError((folder / "log").read_text())

    def url(self, database: str) -> str:
        """Of a database behind it, for SQLAlchemy."""
        return self._postgres.url(database).replace(f":{self._postgres.port}/", f":{self.port}/")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

"""A PostgreSQL server of the tests' own: on loopback, with a password, in a folder that goes away."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import create_engine, text

from gs_search.study.database_url import with_driver
from tests.cluster.raylets import free_port

__all__ = ["Postgres", "find_postgres"]


def find_postgres() -> Path | None:
    """Folder of PostgreSQL's programs; Debian does not put them on the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


class Postgres:
    """A server that can be stopped and started.

    Args:
        root: a short path, for the socket.
    """

    def __init__(self, root: Path) -> None:
        programs = find_postgres()
        assert programs is not None
        self._programs = programs
        self.port = free_port()
        self.user, self.password = "gs_user", f"sEcReT{secrets.token_hex(8)}"
        self._folder = root / "postgres"
        self._folder.mkdir()
        self._as: list[str] = []
        if os.geteuid() == 0:  # which the server refuses to be
            name = next(name for name in ("postgres", "nobody") if _exists(name))
            owner = pwd.getpwnam(name)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._as = ["runuser", "-u", name, "--"]
        secret = self._folder / "password"
        secret.write_text(self.password)
        if self._as:
            os.chown(secret, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-U", self.user, f"--pwfile={secret}", "-A", "scram-sha-256",
            "--no-sync", "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        secret.unlink()
        self.start()

    def url(self, database: str = "postgres", *, password: bool = True) -> str:
        """Of a database, for SQLAlchemy."""
        secret = f":{self.password}" if password else ""
        return f"postgresql://{self.user}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off "
            "-c shared_buffers=16MB"
        )
        data = str(self._folder / "data")
        self._run("pg_ctl", "-D", data, "-w", "-t", "60", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """``immediate`` is a crash, ``fast`` what an administrator does."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", mode, "stop")

    def create(self, database: str) -> None:
        """Make a database."""
        engine = create_engine(with_driver(self.url()), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{database}"'))
        engine.dispose()

    def _run(self, program: str, *arguments: str) -> None:
        # Its cwd: the user that it runs as may not look into ours.
        said = subprocess.run(
            [*self._as, str(self._programs / program), *arguments], cwd=self._folder, text=True, timeout=120,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": self.password, "LC_ALL": "C"},
        )  # fmt: skip
        assert said.returncode == 0, f"{program}: {said.stdout}"


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True

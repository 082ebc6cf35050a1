"""A cluster of three nodes, a PostgreSQL server, an S3 server; nothing of them is left when the tests have ended."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Stand-ins for trials, and writers of studies; nodes get the same path.
sys.path.insert(0, str(Path(__file__).parents[1] / "driving"))

from tests.cluster.pgbouncer import PgBouncer, find_pgbouncer  # noqa: E402
from tests.cluster.postgres import Postgres, find_postgres  # noqa: E402
from tests.cluster.raylets import RayCluster  # noqa: E402
from tests.remote.s3 import S3Server  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gsc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server runs as another user
        yield Path(folder)


@pytest.fixture(scope="session")
def started(root: Path) -> Iterator[RayCluster]:
    """A cluster that ends with the tests, and leaves no process."""
    made = RayCluster(root)
    try:
        yield made
    finally:
        assert not made.close()


@pytest.fixture
def cluster(started: RayCluster) -> RayCluster:
    """A head, and three nodes with a core each."""
    started.full()
    return started


@pytest.fixture(scope="session")
def s3(root: Path) -> Iterator[S3Server]:
    server = S3Server(root / "s3.txt")
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres(root: Path) -> Iterator[Postgres]:
    if find_postgres() is None:
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql)")
    pytest.importorskip("psycopg")
    server = Postgres(root)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def pgbouncer(root: Path, postgres: Postgres) -> Iterator[PgBouncer]:
    if find_pgbouncer() is None:
        pytest.skip("PgBouncer is not installed here (apt-get install pgbouncer)")
    pool = PgBouncer(root, postgres)
    try:
        yield pool
    finally:
        pool.close()

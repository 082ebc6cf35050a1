"""A study in PostgreSQL behind PgBouncer in transaction mode: each transaction may get another connection."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import pytest
import short_search
from engine_studies import complete, state_counts
from optuna.exceptions import StorageInternalError

from gs_search.dashboard.source import StudySource
from gs_search.errors import BadInput
from gs_search.search.storage import NoStudyYet, close_study
from gs_search.search.study_database import open_database
from gs_search.study.database_url import with_driver
from tests.cluster.pgbouncer import PgBouncer
from tests.cluster.postgres import Postgres
from tests.cluster.test_postgres import a_study

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_two_searches_and_a_dashboard_share_connections(
    driver: str, postgres: Postgres, pgbouncer: PgBouncer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a session keeps (prepared statements, settings) is neither missed by the one nor met by the others."""
    pytest.importorskip(driver)
    postgres.create(f"pooled_{driver}")
    url = pgbouncer.url(f"pooled_{driver}").replace("postgresql://", f"postgresql+{driver}://")
    opened = []
    for name in ("one", "two"):
        config, folder = a_study(tmp_path / name, name)
        with pytest.raises(NoStudyYet):
            open_database(folder, config, url=url, read_only=True)
        opened.append(open_database(folder, config, url=url))
    source = StudySource(opened[0].folder, url=url)
    for number in range(6):
        for database in opened:
            complete(database, database.ask())
        assert len(source.study().trials) == number + 1
        with pytest.raises(StorageInternalError):
            source.study().set_user_attr("mine", 1)
    for database in opened:
        assert state_counts(database) == {"COMPLETE": 6}
        close_study(database.study)
    source.close()
    monkeypatch.setattr(short_search, "open_database", functools.partial(open_database, url=url))
    config, folder = a_study(tmp_path / "three", "three")
    searcher = short_search.short_search(config, folder, lambda database: None)
    assert searcher.error is None and state_counts(searcher.database) == {"COMPLETE": 4}
    close_study(searcher.database.study)


def test_the_server_behind_it_restarts(pgbouncer: PgBouncer, postgres: Postgres, tmp_path: Path) -> None:
    """The pool stays, and answers for the server that it has lost."""
    postgres.create("restarted")
    config, folder = a_study(tmp_path, "restarted")
    database = open_database(folder, config, url=with_driver(pgbouncer.url("restarted")))
    complete(database, database.ask())
    postgres.stop()
    back = threading.Timer(3, postgres.start)
    back.start()
    try:
        complete(database, database.ask())
    finally:
        back.join()
    assert state_counts(database) == {"COMPLETE": 2}
    close_study(database.study)


def test_what_it_refuses_is_said_in_a_line(pgbouncer: PgBouncer, postgres: Postgres, tmp_path: Path) -> None:
    config, folder = a_study(tmp_path, "refused")
    wrong = {
        "the server refuses the login": pgbouncer.url("postgres").replace(postgres.password, "wRoNg"),
        "the server has no such database": pgbouncer.url("nowhere"),
    }
    for reason, url in wrong.items():
        with pytest.raises(BadInput) as raised:
            open_database(folder, config, url=with_driver(url))
        assert str(raised.value) == f"the study database cannot be opened: {reason}"

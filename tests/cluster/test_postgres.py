"""A study in PostgreSQL: before there is one, while connections are cut, and as the dashboard opens it. No Ray here."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import short_search
import sqlalchemy
from engine_studies import complete, state_counts, write_study
from optuna.exceptions import StorageInternalError

from gs_search.dashboard.source import StudySource
from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.search.optuna_adapter import database_of, storage_of
from gs_search.search.storage import NoStudyYet, close_study
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.database_url import with_driver
from tests.cluster.postgres import Postgres

pytestmark = [
    pytest.mark.timeout(600),
    # Some tests end, as a run does, without closing a database; psycopg says so.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def a_study(place: Path, name: str) -> tuple[StudyConfig, RunFolder]:
    config = load_study(write_study(place / "study", study=name))
    folder = RunFolder(place / "run")
    folder.create(config)
    return config, folder


def test_a_server_without_tables_and_one_without_the_study_are_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create("empty")
    url = with_driver(postgres.url("empty"))
    config, folder = a_study(tmp_path, "first")
    for _ in range(2):
        with pytest.raises(NoStudyYet):
            open_database(folder, config, url=url, read_only=True)
        with pytest.raises(NoStudyYet):
            StudySource(folder, url=url).study()
    other, elsewhere = a_study(tmp_path / "other", "other")
    close_study(open_database(elsewhere, other, url=url).study)
    with pytest.raises(NoStudyYet):
        open_database(folder, config, url=url, read_only=True)


def test_what_a_server_refuses_is_said_in_a_line_without_secrets(postgres: Postgres, tmp_path: Path) -> None:
    config, folder = a_study(tmp_path, "refused")
    wrong = {
        "the server refuses the login": postgres.url().replace(postgres.password, "wRoNg"),
        "the server has no such database": postgres.url("nowhere"),
        "the server cannot be reached": postgres.url().replace(f":{postgres.port}/", ":1/"),
    }
    for reason, url in wrong.items():
        for read_only in (True, False):
            with pytest.raises(BadInput) as raised:
                open_database(folder, config, url=with_driver(url), read_only=read_only)
            said = str(raised.value)
            assert said == f"the study database cannot be opened: {reason}"
            assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_the_dashboard_reads_and_the_server_itself_refuses_changes(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create("shown")
    url = with_driver(postgres.url("shown"))
    config, folder = a_study(tmp_path, "shown")
    database = open_database(folder, config, url=url)
    complete(database, database.ask())
    source = StudySource(folder, url=url)
    assert len(source.study().trials) == 1
    with pytest.raises(StorageInternalError):
        source.study().set_user_attr("mine", 1)
    source.close()
    close_study(database.study)


def test_two_studies_share_a_database(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create("shared")
    url = with_driver(postgres.url("shared"))
    opened = []
    for name in ("one", "two"):
        config, folder = a_study(tmp_path / name, name)
        opened.append(open_database(folder, config, url=url))
    for first, second in itertools.permutations(opened):
        complete(first, first.ask())
        complete(second, second.ask())
    for database in opened:
        assert state_counts(database) == {"COMPLETE": 2}
        assert [trial.number for trial in database.trials()] == [0, 1]
        close_study(database.study)


@pytest.mark.parametrize("first", [1, 4, 7])
def test_connections_may_be_cut_at_any_statement(
    first: int, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends them, as when it restarts; at every third statement, one search for each."""
    postgres.create(f"cuts{first}")
    url = with_driver(postgres.url(f"cuts{first}"))
    administrator = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    cut = sqlalchemy.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    monkeypatch.setattr(short_search, "open_database", functools.partial(open_database, url=url))
    cuts = 0
    for number in itertools.count(first, 9):
        config, folder = a_study(tmp_path / str(number), f"cut{number}")
        seen = [0]

        def arm(database: StudyDatabase, number: int = number, seen: list[int] = seen) -> None:
            def count(*arguments: Any) -> None:
                seen[0] += 1
                if seen[0] == number:
                    with administrator.connect() as connection:
                        assert list(connection.execute(cut))

            engine = database_of(storage_of(database.study)).engine  # type: ignore[union-attr]
            sqlalchemy.event.listen(engine, "before_cursor_execute", count)
            sqlalchemy.event.listen(engine, "commit", count)

        searcher = short_search.short_search(config, folder, arm)
        if seen[0] < number:
            close_study(searcher.database.study)
            break
        cuts += 1
        assert searcher.error is None, number
        states = state_counts(searcher.database)
        assert states.pop("COMPLETE") == 4 and states.keys() <= {"FAIL"}, number
        assert searcher.database.counted() == 4, "a proposal that was cut off does not count"
        close_study(searcher.database.study)
        short_search.assert_whole_after_the_next_run(config, folder)
        close_study(searcher.database.study)
    administrator.dispose()
    assert cuts > 6, "the killer did kill"

"""Where a study is kept: SQLite in the run folder, or a database that a URL names.

A server may be away for a while: connections are tried before they are used, and ``patiently`` waits for it.
"""

from __future__ import annotations

import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna

from gs_search.errors import BadInput, GsSearchError
from gs_search.results.pareto import OBJECTIVES
from gs_search.search.optuna_adapter import database_of, storage_of

__all__ = [
    "NOT_COUNTED", "Damaged", "NoStudyYet", "check_file", "close_study", "damage", "is_counted", "is_server",
    "open_study", "patiently", "quiet",
]  # fmt: skip

PATIENCE_S = 60.0
"""How long a file that cannot be written is waited for."""

SERVER_PATIENCE_S = 300.0
"""How long a server that cannot be reached is: it may be restarted, or its place be taken by another machine."""

CONNECT_S = 10
"""How long a server may take to answer a new connection."""

NOT_COUNTED = ("requeue", "warm_start")
"""User attributes of trials that wait for another attempt, or came from an earlier study."""

TOLD_AFTER_S = 2.0
"""An absence that is shorter is no news."""

T = TypeVar("T")


class NoStudyYet(BadInput):
    """The database is there, or about to be, but not the study."""


class Damaged(BadInput):
    """The file of the database is not as SQLite left it."""


def is_counted(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial is one of the finished ones that a study has so many of."""
    return trial.state.is_finished() and not any(map(trial.user_attrs.get, NOT_COUNTED))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's notes about experimental features off the screen; errors are exceptions anyway."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def check_file(path: Path) -> None:
    """Refuse a SQLite file that is damaged, before anything is built on it.

    Raises:
        Damaged: it is; the line says in which way, and leaves it to the caller to say what to do.
        BadInput: it cannot be opened or is locked.
    """
    if not path.exists() or path.stat().st_size == 0:  # a run may die just after making the file
        return
    try:
        problem = damage(path)
    except sqlite3.OperationalError as error:
        raise BadInput(f"{path}: the study database cannot be opened ({error})") from None
    if problem:
        raise Damaged(f"{path}: the study database is damaged ({problem})")


def damage(path: Path) -> str | None:
    """Say what is wrong with a SQLite file, in a few words, or return None; raises sqlite3.OperationalError.

    It reads every page: a lost header, a file cut short and overwritten pages show.
    """
    try:
        # Not mode=ro: a run that was killed in the middle of a commit left a journal, which SQLite now rolls back.
        uri = f"file:{quote(str(path.resolve()))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
            # Some milliseconds; unlike quick_check it compares the indexes with the tables too.
            verdict = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            page = int(connection.execute("PRAGMA page_size").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "unsupported file format" not in str(error):  # a number in the header that no SQLite writes
            raise
        return str(error)
    except sqlite3.DatabaseError as error:
        return " ".join(str(error).split())
    if verdict != "ok":
        # Below a heading that names the database; one line is enough to say that something is wrong.
        return verdict.splitlines()[-1].strip()
    # SQLite reads a last page that is cut off as if zeros followed.
    return "its last page is cut off" if path.stat().st_size % page else None


def open_study(name: str, where: Path | str, *, read_only: bool = False) -> optuna.Study:
    """Open the study ``name``, making it unless ``read_only``.

    Args:
        where: a SQLite file, or an SQLAlchemy URL.

    Raises:
        NoStudyYet: ``read_only``, and there is none, or not even tables.
        BadInput: the database cannot be reached, or the study is of another kind.
    """
    directions = [optuna.study.StudyDirection.MINIMIZE] * len(OBJECTIVES)
    backend: Any = None
    with quiet():
        try:
            url, options = _engine(where)
            backend = optuna.storages.RDBStorage(url, engine_kwargs=options, skip_table_creation=read_only)
            if read_only:
                study = optuna.load_study(study_name=name, storage=backend)
            else:
                study = optuna.create_study(
                    study_name=name, storage=backend, directions=directions, load_if_exists=True
                )
        except KeyError:
            backend.engine.dispose()
            raise NoStudyYet(f"the database holds no study {name!r}") from None
        except Exception as error:
            if backend is not None:
                backend.engine.dispose()
            if read_only and isinstance(where, str) and _is_empty(where):
                raise NoStudyYet("the database is empty yet") from None
            # SQLAlchemy quotes the URL, password and all, in some of its messages.
            reason = _reason(error) if isinstance(where, str) else (str(error).splitlines() or [""])[0]
            raise BadInput(f"the study database cannot be opened: {reason}") from None
        if study.directions != directions:
            raise BadInput(
                f"study {name!r} in the database is of another kind ({len(study.directions)} objectives; "
                f"this one minimises {len(OBJECTIVES)}); rename the study or use another database"
            )
        if not read_only and study.metric_names is None:
            study.set_metric_names(list(OBJECTIVES))
    return study


def close_study(study: optuna.Study) -> None:
    """Let go of the database, so that its file can be moved; the study cannot be used any more."""
    backend = database_of(storage_of(study))
    if backend is not None:
        backend.remove_session()
        backend.engine.dispose()


def is_server(study: optuna.Study) -> bool:
    """Whether a study is kept by a server, and not in a file."""
    backend = database_of(storage_of(study))
    return backend is not None and backend.engine.dialect.name != "sqlite"


def _engine(where: Path | str) -> tuple[str, dict[str, Any]]:
    """URL and options of the engine behind a study."""
    if isinstance(where, str):
        return where, _server_options(where)
    path = where.resolve()
    # A connection made here and no path in the URL, where ``{``, ``?``, ``#`` and ``%`` would mean something.
    return "sqlite:///study.db", {"creator": lambda: _connect(path)}


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60, check_same_thread=False)


def _server_options(url: str) -> dict[str, Any]:
    """Options that notice a server which has gone, and one that hangs; what the URL says comes first."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    driver = parsed.get_driver_name()
    wanted: dict[str, int | str | None] = {}
    if driver in ("psycopg", "psycopg2"):
        wanted = {"connect_timeout": CONNECT_S, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        wanted |= {"tcp_user_timeout": 60_000, "application_name": "gs-search"}
    if driver == "psycopg":
        # It would prepare statements in the server's session; behind PgBouncer in transaction mode the next
        # transaction may have another one.
        wanted["prepare_threshold"] = None
    elif driver == "pymysql":
        wanted = {"connect_timeout": CONNECT_S}
    if not wanted:
        return {}
    arguments = {name: value for name, value in wanted.items() if name not in parsed.query}
    return {"pool_pre_ping": True, "connect_args": arguments}


def _is_empty(url: str) -> bool:
    """Whether a database can be reached and has none of Optuna's tables."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(url, **_server_options(url))
        try:
            return not inspect(engine).has_table("studies")
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError):
        return False


REASONS = (
    ("password|authentication|access denied|pg_hba", "the server refuses the login"),
    ("database .* does not exist|unknown database|no such database", "the server has no such database"),
    ("permission denied", "the server does not allow it"),
    ("too many (clients|connections)|no more connections|remaining connection", "the server has no connection left"),
    ("starting up|shutting down|recovery mode", "the server is starting or stopping"),
    (
        "refused|timeout|timed out|cannot connect|resolve|translate|unreachable|no route|closed",
        "the server cannot be reached",
    ),
)
"""What servers say, and what of it may be told."""


def _reason(error: BaseException) -> str:
    """Why a server did not do as told, without where it is and who asked."""
    found: BaseException | None = error
    while found is not None:
        said = str(getattr(found, "orig", "") or "").lower()
        for pattern, words in REASONS:
            if re.search(pattern, said):
                return words
        found = found.__cause__
    return type(error).__name__


def patiently(action: Callable[[], T], *, server: bool = False, note: Callable[[str], None] | None = None) -> T:
    """Do ``action``, again while the database cannot be reached; GsSearchError if that takes too long.

    Args:
        server: the database is one, and no file.
        note: is told that the database is away, and that it is back.
    """
    start, pause = time.monotonic(), 0.1
    patience = SERVER_PATIENCE_S if server else PATIENCE_S
    told = False
    while True:
        try:
            done = action()
            if told and note:
                note(f"the study database is back after {time.monotonic() - start:.0f} s")
            return done
        except optuna.exceptions.StorageInternalError as error:
            waited = time.monotonic() - start
            if waited > patience:
                raise GsSearchError(
                    f"the study database could not be reached for {patience:g} s; finished results are "
                    "safe in trials/, and the same command goes on from there once it can be"
                ) from error
            if note and not told and waited > TOLD_AFTER_S:
                note(f"the study database cannot be reached; trying again for {patience:g} s")
                told = True
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

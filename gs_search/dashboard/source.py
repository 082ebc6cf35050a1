"""The study that is being watched: opened, opened again when its file is another one, and never written by accident."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from gs_search.errors import BadInput, GsSearchError
from gs_search.results.run_folder import RunFolder
from gs_search.search.optuna_adapter import database_of, storage_of
from gs_search.search.storage import NoStudyYet, close_study
from gs_search.search.study_database import open_database

__all__ = ["StudySource", "Unreachable"]

T = TypeVar("T")

RETRY_S = 1.0
"""Time between two attempts to open a study that is not there yet."""


class Unreachable(GsSearchError):
    """The database cannot be read just now."""


class StudySource:
    """The study of a run folder, in its ``study.db`` or where ``url`` says. Threads may share it."""

    def __init__(self, folder: RunFolder, *, url: str | None = None, writable: bool = False) -> None:
        self._folder = folder
        self._url = url
        self._writable = writable
        self._lock = threading.Lock()
        self._study: optuna.Study | None = None
        self._file: tuple[int, int] | None = None
        self._why: BadInput = NoStudyYet(f"{folder}: no study database here yet")
        self._try_after = 0.0

    def study(self) -> optuna.Study:
        """The study as it is now.

        Raises:
            NoStudyYet: nothing is there yet.
            BadInput: the database is damaged or cannot be reached; the message never holds the URL.
        """
        with self._lock:
            # A rebuild puts another file in its place; whoever has the old one open would read that for ever.
            if self._study is not None and self._file_now() == self._file:
                return self._study
            if time.monotonic() < self._try_after:
                raise self._why
            self._let_go()
            try:
                before = self._file_now()
                self._study = self._open()
                self._file = before
            except BadInput as error:
                self._why = error
                self._try_after = time.monotonic() + RETRY_S
                raise
            return self._study

    def ask(self, question: Callable[[BaseStorage], T]) -> T:
        """Ask the storage of the study; raises Unreachable in a line that tells nothing of where it is."""
        study = self.study()
        try:
            return question(storage_of(study))
        except (StorageInternalError, sqlite3.Error) as error:
            raise Unreachable(f"the study database cannot be read just now ({type(error).__name__})") from None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._study is not None:
            with suppress(Exception):  # it may be as broken as it likes: nobody reads from it any more
                close_study(self._study)
        self._study = None

    def _open(self) -> optuna.Study:
        folder = self._folder
        study = open_database(folder, folder.config(), url=self._url, read_only=True).study
        if not self._writable:
            _forbid_writing(study)
        return study

    def _file_now(self) -> tuple[int, int] | None:
        """What is another one when the file of the database is; None where it is no file of this folder."""
        if self._url is not None:
            return None
        try:
            found = self._folder.database.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _forbid_writing(study: optuna.Study) -> None:
    """Have the database itself refuse whatever would change it.

    SQLite's file is not opened read-only, for then nobody could roll back what a killed run has left half done.
    """
    from sqlalchemy import event

    backend = database_of(storage_of(study))
    if backend is None:
        return
    engine = backend.engine
    if engine.dialect.name == "postgresql":
        # With each transaction: a pool of connections, such as PgBouncer's, would hand a session's setting to others.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("SET TRANSACTION READ ONLY"))
        backend.remove_session()
        return
    statement = {"sqlite": "PRAGMA query_only = ON", "mysql": "SET SESSION TRANSACTION READ ONLY"}.get(
        engine.dialect.name
    )
    if statement is None:
        return

    def forbid(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", forbid)
    backend.remove_session()
    engine.dispose()  # connections of before

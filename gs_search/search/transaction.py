"""One transaction for everything that a proposal, or a result, reads and writes in the study database.

Optuna commits each parameter and each attribute, some fifteen times a trial, and every commit waits for the disk. And
a process that is killed between two commits leaves half a trial. Within ``transaction`` all gets in or nothing, with
one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna

from gs_search.search.transactional_storage import StudyStorage

__all__ = ["add_user_attributes", "transaction"]


def add_user_attributes(study: optuna.Study, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Enter attributes that an unfinished trial does not have yet, within a transaction."""
    storage = study._storage
    if isinstance(storage, StudyStorage):
        storage.add_user_attributes(trial_id, attributes)
        return
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)


@contextmanager
def transaction(study: optuna.Study) -> Iterator[None]:
    """Have all reads and writes of ``study`` within the block, by this thread, in one transaction.

    Raises:
        optuna.exceptions.StorageInternalError: the database cannot be reached; nothing of the block is in it.
    """
    storage = study._storage
    if not isinstance(storage, StudyStorage):  # in memory, where there are no transactions
        yield
        return
    from sqlalchemy.exc import DBAPIError, TimeoutError
    from sqlalchemy.orm import scoped_session, sessionmaker

    backend = storage._backend
    sessions = backend.scoped_session
    try:
        # SQLAlchemy's recipe for joining a session into an external transaction: Optuna's own commits become
        # flushes, its rollbacks stay what they are.
        with backend.engine.begin() as connection:
            joined = scoped_session(sessionmaker(bind=connection, join_transaction_mode="rollback_only"))
            backend.scoped_session, storage.open = joined, True
            try:
                yield
                storage.write_rows()
            finally:
                backend.scoped_session, storage.open, storage.fresh = sessions, False, False
                joined.remove()
    except BaseException as error:
        storage.forget()
        study._thread_local.cached_all_trials = None
        if isinstance(error, (DBAPIError, TimeoutError)):
            raise optuna.exceptions.StorageInternalError(f"no transaction: {type(error).__name__}") from error
        raise

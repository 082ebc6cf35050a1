"""One transaction for everything that a proposal, or a result, reads and writes in the study database.

Optuna commits each parameter and each attribute, some fifteen times a trial, and every commit waits for the disk. It
reads all unfinished trials again whenever it looks at any. And a process that is killed between two commits leaves
half a trial. Within ``transaction`` all gets in or nothing, with one commit, and nothing is read twice that nobody
has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models

__all__ = ["StudyStorage", "add_user_attributes", "transaction"]


class StudyStorage(_CachedStorage):
    """Optuna's own cache before a database, with transactions."""

    def __init__(self, backend: optuna.storages.RDBStorage) -> None:
        super().__init__(backend)
        self.fresh = False
        """Whether the cache has all that there is: within a transaction, since the last write."""
        self.open = False
        """Whether a transaction is."""

    def forget(self) -> None:
        """Drop what was read: some of it may have been rolled back."""
        self.__dict__.update(StudyStorage(self._backend).__dict__)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self.fresh:
            super()._read_trials_from_remote_storage(study_id)
            self.fresh = self.open

    def create_new_trial(self, study_id: int, template_trial: optuna.trial.FrozenTrial | None = None) -> int:
        """As Optuna's, and the cache is not fresh any more; so the others below."""
        self.fresh = False
        return int(super().create_new_trial(study_id, template_trial))

    def set_trial_param(self, *arguments: Any, **named: Any) -> None:
        """See ``create_new_trial``."""
        self.fresh = False
        super().set_trial_param(*arguments, **named)

    def set_trial_state_values(self, *arguments: Any, **named: Any) -> bool:
        """See ``create_new_trial``."""
        self.fresh = False
        return bool(super().set_trial_state_values(*arguments, **named))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``create_new_trial``."""
        self.fresh = False
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``create_new_trial``."""
        self.fresh = False
        super().set_trial_system_attr(trial_id, key, value)


def add_user_attributes(study: optuna.Study, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Enter attributes that an unfinished trial does not have yet; within a transaction, in one statement."""
    storage = study._storage
    if not isinstance(storage, StudyStorage):
        for name, value in attributes.items():
            storage.set_trial_user_attr(trial_id, name, value)
        return
    from sqlalchemy import insert

    storage.fresh = False
    rows = [{"trial_id": trial_id, "key": name, "value_json": json.dumps(v)} for name, v in attributes.items()]
    if rows:
        storage._backend.scoped_session().execute(insert(models.TrialUserAttributeModel), rows)


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
    from sqlalchemy.exc import SQLAlchemyError
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
            finally:
                backend.scoped_session, storage.open, storage.fresh = sessions, False, False
                joined.remove()
    except BaseException as error:
        storage.forget()
        study._thread_local.cached_all_trials = None
        if isinstance(error, SQLAlchemyError):
            raise optuna.exceptions.StorageInternalError(f"no transaction: {type(error).__name__}") from error
        raise

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
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models

__all__ = ["StudyStorage", "add_user_attributes", "transaction"]


class StudyStorage(_CachedStorage):
    """Optuna's own cache before a database, with transactions.

    Args:
        alone: nobody else changes trials that this process has seen; others may only add new ones. Then what has not
            been changed here is not read again. (Optuna reads every unfinished trial again at each look.)
    """

    def __init__(self, backend: optuna.storages.RDBStorage, *, alone: bool = False) -> None:
        super().__init__(backend)
        self.alone = alone
        self.fresh = False
        """Whether the cache has all that there is: within a transaction, since the last write."""
        self.open = False
        """Whether a transaction is."""
        self._changed: set[int] = set()
        """Trials that were written here since they were read."""

    def forget(self) -> None:
        """Drop what was read: some of it may have been rolled back."""
        self.__dict__.update(StudyStorage(self._backend, alone=self.alone).__dict__)

    def touched(self, trial_id: int) -> None:
        """Have a trial read again, which was written past this cache."""
        self.fresh = False
        self._changed.add(trial_id)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self.fresh:
            return
        if self.alone:
            self._read_news(study_id)
        else:
            super()._read_trials_from_remote_storage(study_id)
        self.fresh = self.open

    def _read_news(self, study_id: int) -> None:
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            seen = max((trial._trial_id for trial in study.trials.values()), default=-1)
            trials = self._backend._get_trials(
                study_id, states=None, included_trial_ids=self._changed, trial_id_greater_than=seen
            )
            self._add_trials_to_cache(study_id, trials)
            self._changed.clear()

    def create_new_trial(self, study_id: int, template_trial: optuna.trial.FrozenTrial | None = None) -> int:
        """As Optuna's, and the cache is not fresh any more; so the others below."""
        self.fresh = False
        return int(super().create_new_trial(study_id, template_trial))

    def set_trial_param(self, trial_id: int, *arguments: Any, **named: Any) -> None:
        """See ``create_new_trial``."""
        self.touched(trial_id)
        super().set_trial_param(trial_id, *arguments, **named)

    def set_trial_state_values(self, trial_id: int, *arguments: Any, **named: Any) -> bool:
        """See ``create_new_trial``."""
        self.touched(trial_id)
        return bool(super().set_trial_state_values(trial_id, *arguments, **named))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See ``create_new_trial``."""
        self.touched(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``create_new_trial``."""
        self.touched(trial_id)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``create_new_trial``."""
        self.touched(trial_id)
        super().set_trial_system_attr(trial_id, key, value)


def add_user_attributes(study: optuna.Study, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Enter attributes that an unfinished trial does not have yet; within a transaction, in one statement."""
    storage = study._storage
    if not isinstance(storage, StudyStorage):
        for name, value in attributes.items():
            storage.set_trial_user_attr(trial_id, name, value)
        return
    from sqlalchemy import insert

    storage.touched(trial_id)
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

"""The storage of a study that this process alone runs: it knows what it has written, and reads little.

Optuna reads a trial back after each thing that it has entered, by six questions to the database, and all unfinished
trials again whenever it looks at any. With sixteen workers and trials of a second that was a third of what the driver
did (``benchmarks.engine``).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState

__all__ = ["StudyStorage", "add_user_attributes", "transaction"]

LATE = 200
"""By so many trials one that another process adds may show later than its number says: they are many at work."""


class StudyStorage(_CachedStorage):
    """Optuna's own cache before a database, with transactions, see below.

    Args:
        alone: nobody else changes trials that this process has seen; others may only add new ones. Then what has not
            been changed here is not read again, and what has been is entered into the cache, too.
    """

    def __init__(self, backend: optuna.storages.RDBStorage, *, alone: bool = False) -> None:
        super().__init__(backend)
        self.alone = alone
        self.fresh = False
        """Whether the cache has all that there is: within a transaction, since the last look."""
        self.open = False
        """Whether a transaction is."""
        self._changed: set[int] = set()
        """Trials that were written here since they were read, in ways that are not entered into the cache."""
        self._rows: dict[Any, list[dict[str, Any]]] = {}
        """Rows of tables that wait for the end of the transaction."""

    def forget(self) -> None:
        """Drop what was read: some of it may have been rolled back."""
        self.__dict__.update(StudyStorage(self._backend, alone=self.alone).__dict__)

    def write_rows(self) -> None:
        """Write what has been held back, in one statement a table instead of several for each row."""
        for model in list(self._rows):
            self._insert(model, self._rows.pop(model))

    def add_user_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Enter attributes that an unfinished trial does not have yet; within a transaction, in one statement."""
        if not attributes:
            return
        texts = {name: json.dumps(value) for name, value in attributes.items()}
        rows = [{"trial_id": trial_id, "key": name, "value_json": text} for name, text in texts.items()]
        self._insert(models.TrialUserAttributeModel, rows)
        self._enter(trial_id, user_attrs={name: json.loads(text) for name, text in texts.items()})

    def _insert(self, model: Any, rows: list[dict[str, Any]]) -> None:
        from sqlalchemy import insert

        self._backend.scoped_session().execute(insert(model), rows)

    # --- reading

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's."""
        where = self._trial_id_to_study_id_and_number.get(trial_id)
        if not self.alone or where is None:
            return super().get_trial(trial_id)
        study_id, number = where
        if trial_id in self._changed:
            self._read_news(study_id)
        with self._lock:
            trial = self._studies[study_id].trials[number]
        return trial if trial.state.is_finished() else copy.deepcopy(trial)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self.fresh and not self._changed:
            return
        if self.alone:
            self._read_news(study_id)
        else:
            super()._read_trials_from_remote_storage(study_id)
        self.fresh = self.open

    def _read_news(self, study_id: int) -> None:
        self.write_rows()
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            newest = max((trial._trial_id for trial in study.trials.values()), default=-1)
            wanted = self._changed | self._unknown(study_id, newest)
            if study.trials and not wanted:
                return
            above = max([newest, *wanted]) if study.trials else -1
            trials = self._backend._get_trials(
                study_id, states=None, included_trial_ids=wanted, trial_id_greater_than=above
            )
            self._add_trials_to_cache(study_id, trials)
            self._changed.clear()

    def _unknown(self, study_id: int, newest: int) -> set[int]:
        """Trials that others have added; nothing where none is known, for then all are read."""
        if newest < 0:
            return set()
        from sqlalchemy import select

        ids = models.TrialModel.trial_id
        asked = select(ids).where(models.TrialModel.study_id == study_id, ids > newest - LATE)
        with _create_scoped_session(self._backend.scoped_session) as session:
            return set(session.execute(asked).scalars()) - self._trial_id_to_study_id_and_number.keys()

    # --- writing

    def _touched(self, trial_id: int) -> None:
        """Have a trial read again."""
        self.fresh = False
        self._changed.add(trial_id)

    def _enter(self, trial_id: int, **changes: Any) -> None:
        """Have the cache know what was written. Mappings are added to; whoever has the trial keeps what he has."""
        where = self._trial_id_to_study_id_and_number.get(trial_id)
        if not self.alone or where is None:
            self._touched(trial_id)
            return
        study_id, number = where
        with self._lock:
            trials = self._studies[study_id].trials
            trials[number] = trial = copy.copy(trials[number])
            for name, change in changes.items():
                value = {**getattr(trial, name), **change} if isinstance(change, dict) else change
                setattr(trial, name, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's."""
        trial_id = int(super().create_new_trial(study_id, template_trial))
        if not self.alone or template_trial is not None:  # which is what Optuna's cache then has, not what was written
            self._touched(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As Optuna's, but within a transaction all parameters of a trial are written together."""
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        info = self._studies[study_id]
        known, trial = info.param_distribution.get(param_name), info.trials[number]
        if known is None or not self.open or not self.alone or param_name in trial.params:
            self.write_rows()  # those before it keep their place
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            self._backend.check_trial_is_updatable(trial_id, trial.state)
            check_distribution_compatibility(known, distribution)
            told, text = float(param_value_internal), distribution_to_json(distribution)
            row = {"trial_id": trial_id, "param_name": param_name, "param_value": told, "distribution_json": text}
            self._rows.setdefault(models.TrialParamModel, []).append(row)
        value = distribution.to_external_repr(param_value_internal)
        self._enter(trial_id, params={param_name: value}, _distributions={param_name: distribution})

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; the database says when."""
        done = bool(super().set_trial_state_values(trial_id, state, values))
        if not (done and self.open):
            self._touched(trial_id)
            return done
        row = models.TrialModel.find_or_raise_by_id(trial_id, self._backend.scoped_session())
        began, ended = row.datetime_start, row.datetime_complete
        told = {} if values is None else {"values": [float(value) for value in values]}
        self._enter(trial_id, state=state, datetime_start=began, datetime_complete=ended, **told)
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's."""
        self._touched(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        super().set_trial_user_attr(trial_id, key, value)
        self._enter(trial_id, user_attrs={key: json.loads(json.dumps(value))})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's, but within a transaction all that are new are written together."""
        where, text = self._trial_id_to_study_id_and_number.get(trial_id), json.dumps(value)
        trial = None if where is None else self._studies[where[0]].trials[where[1]]
        if trial is None or not self.open or not self.alone or key in trial.system_attrs:
            self.write_rows()
            super().set_trial_system_attr(trial_id, key, value)
        else:
            self._backend.check_trial_is_updatable(trial_id, trial.state)
            row = {"trial_id": trial_id, "key": key, "value_json": text}
            self._rows.setdefault(models.TrialSystemAttributeModel, []).append(row)
        self._enter(trial_id, system_attrs={key: json.loads(text)})


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

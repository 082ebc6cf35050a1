"""What Optuna has and gives no public name: all uses of it in this package, in one place.

``tests/search/test_optuna_adapter.py`` says for which version it was written, and what each of them has to do.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

__all__ = [
    "FrozenStudy", "StudySystemAttributeModel", "TrialSystemAttributeModel", "database_of", "fixed_params",
    "generation_attribute", "is_queued_as", "storage_of", "study_id", "trial_id",
]  # fmt: skip

StudySystemAttributeModel = models.StudySystemAttributeModel
TrialSystemAttributeModel = models.TrialSystemAttributeModel

FIXED = "fixed_params"


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage of a study; ``study.tell`` and ``study.ask`` are not all that it can do."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    """By which the storage knows a study."""
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    """By which the storage knows a trial; another number in another study of the same database."""
    return trial._trial_id


def database_of(storage: BaseStorage) -> RDBStorage | None:
    """The database below a storage, which Optuna puts a cache before; None where there is none."""
    backend: Any = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """Parameters with which a trial was queued; empty for one that was not."""
    return dict(trial.system_attrs.get(FIXED, {}))


def is_queued_as(params: dict[str, Any]) -> dict[str, Any]:
    """System attributes of a trial that is, or was, queued with these parameters."""
    return {FIXED: params}


def generation_attribute(sampler: type[optuna.samplers.BaseGASampler]) -> str:
    """System attribute in which a genetic sampler keeps a trial's generation."""
    return str(sampler._get_generation_key())

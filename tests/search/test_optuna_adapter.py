"""What is taken from Optuna without a public name does what it is taken for, in the version that is installed."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, RDBStorage
from sqlalchemy import select

from gs_search.search import optuna_adapter
from gs_search.search.optuna_adapter import (
    StudySystemAttributeModel,
    TrialSystemAttributeModel,
    database_of,
    fixed_params,
    generation_attribute,
    is_queued_as,
    storage_of,
    study_id,
    trial_id,
)
from gs_search.search.storage import quiet

WRITTEN_FOR = "5.0"
"""Optuna's version. Another one that passes these tests will do; then say here which."""


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="a")


def test_the_version_is_the_one_that_it_was_written_for() -> None:
    assert optuna.__version__.startswith(WRITTEN_FOR), f"look at {optuna_adapter.__name__} and at these tests again"


def test_storages_and_their_names_for_things(study: optuna.Study) -> None:
    storage = storage_of(study)
    assert isinstance(database_of(storage), RDBStorage) and database_of(InMemoryStorage()) is None
    assert storage.get_study_name_from_id(study_id(study)) == "a"
    study.enqueue_trial({"x": 1})
    (trial,) = study.get_trials(deepcopy=False)
    assert storage.get_trial(trial_id(trial)) == trial
    assert fixed_params(trial) == {"x": 1} and trial.system_attrs == is_queued_as({"x": 1})
    assert fixed_params(study.get_trials()[0]) and fixed_params(optuna.trial.create_trial(value=0.0)) == {}


def test_system_attributes_lie_where_the_publisher_writes_them(study: optuna.Study) -> None:
    storage = storage_of(study)
    study.enqueue_trial({})
    storage.set_study_system_attr(study_id(study), "of the study", [1])
    storage.set_trial_system_attr(trial_id(study.trials[0]), "of the trial", {"a": 2})
    database = database_of(storage)
    assert database is not None
    with database.engine.begin() as connection:
        for model, owner in ((StudySystemAttributeModel, "study_id"), (TrialSystemAttributeModel, "trial_id")):
            table = model.__table__
            rows = connection.execute(select(table.c.key, table.c.value_json, table.c[owner])).all()
            expected = ("of the study", "[1]", 1) if owner == "study_id" else ("of the trial", '{"a": 2}', 1)
            assert expected in [tuple(row) for row in rows]


@pytest.mark.parametrize("sampler", [optuna.samplers.NSGAIISampler, optuna.samplers.NSGAIIISampler])
def test_generations_are_noted_under_this_attribute(sampler: type[optuna.samplers.BaseGASampler]) -> None:
    with quiet():
        made = sampler(population_size=2, seed=0)
    study = optuna.create_study(sampler=made)
    for _ in range(4):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))
    noted = [trial.system_attrs.get(generation_attribute(sampler)) for trial in study.trials]
    assert noted == [0, 0, 1, 1]

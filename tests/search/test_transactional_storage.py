"""The storage behind a running study shows what Optuna's own does, and reads little."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gs_search.search.storage import close_study, open_study
from gs_search.search.transactional_storage import StudyStorage, add_user_attributes, transaction


def every_trial(study: optuna.Study) -> list[dict[str, Any]]:
    return [dict(vars(trial)) for trial in study.get_trials(deepcopy=True)]


@pytest.mark.parametrize("seed", range(2))
def test_shows_what_a_fresh_look_shows(tmp_path: Path, seed: int) -> None:
    """Whatever is done, within transactions or not, while another process queues points."""
    study, other = (open_study("s", tmp_path / "study.db") for _ in range(2))
    draw, live = random.Random(seed), list[optuna.Trial]()

    def ask() -> None:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("c", ["u", None, 3])
        trial.suggest_int("i", 1, 9, step=2)
        live.append(trial)

    def ask_whole() -> None:
        with transaction(study):
            ask()

    def tell() -> None:
        if live:
            study.tell(live.pop(0).number, [draw.random(), 1, 2])

    def tell_whole() -> None:
        if live:
            with transaction(study):
                trial = live.pop(0)
                add_user_attributes(study, trial._trial_id, {"d": [1, {"e": None}], "f": draw.random()})
                study.tell(trial.number, [draw.random(), 1, 2])

    def fail_whole() -> None:
        if live:
            with transaction(study):
                study.tell(live.pop().number, state=TrialState.FAIL)

    def note() -> None:
        if live:
            draw.choice(live).set_user_attr(draw.choice("ab"), draw.random())

    def roll_back() -> None:
        known = list(live)
        with pytest.raises(ZeroDivisionError), transaction(study):
            ask()
            note()
            raise ZeroDivisionError
        live[:] = known

    def queue() -> None:
        draw.choice([study, other]).enqueue_trial({"x": draw.random(), "c": None})

    for _ in range(40):
        draw.choice([ask, ask_whole, ask_whole, tell, tell_whole, fail_whole, note, roll_back, queue])()
        if draw.random() < 0.5:
            fresh = open_study("s", tmp_path / "study.db", read_only=True)
            assert every_trial(study) == every_trial(fresh)
            close_study(fresh)


def test_a_reader_sees_what_the_run_changes(tmp_path: Path) -> None:
    run = open_study("s", tmp_path / "study.db")
    trial = run.ask()
    reader = open_study("s", tmp_path / "study.db", read_only=True)
    assert reader.get_trials()[0].state == TrialState.RUNNING
    trial.set_user_attr("seen", 1)
    assert reader.get_trials()[0].user_attrs == {"seen": 1}
    run.tell(trial, [1, 2, 3])
    assert reader.get_trials()[0].state == TrialState.COMPLETE


def test_trials_that_nobody_changed_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study("s", tmp_path / "study.db")
    trials = [study.ask() for _ in range(5)]
    study.get_trials()
    storage = study._storage
    assert isinstance(storage, StudyStorage)
    read: list[int] = []
    get_trials = storage._backend._get_trials

    def counted(*arguments: Any, **named: Any) -> Any:
        found = get_trials(*arguments, **named)
        read.extend(trial.number for trial in found)
        return found

    monkeypatch.setattr(storage._backend, "_get_trials", counted)
    study.get_trials()
    assert read == []
    storage.set_trial_intermediate_value(trials[3]._trial_id, 1, 0.0)
    study.get_trials()
    assert read == [3], "what the cache is not told of"
    read.clear()
    with transaction(study):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("a", 1)
    with transaction(study):
        study.tell(trial.number, [1, 2, 3])
    assert study.get_trials()[5].values == [1, 2, 3] and read == []

"""Saving into the study what the dashboard shows, for those who open it with plain ``optuna-dashboard``.

``optuna-dashboard sqlite:///RUN/study.db --artifact-dir RUN/artifacts`` then shows the same names, notes, pictures and
figures as ``gs-search dashboard RUN``, as they were when a run ended. All of it is written in one transaction, past
Optuna's own interface, which would commit each piece: a second a hundred trials.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy import bindparam, delete, insert, select, update

from gs_search.dashboard.feasible import feasible_front
from gs_search.dashboard.figures import FIGURES
from gs_search.dashboard.notes import is_untouched, merged
from gs_search.dashboard.page import RunPage
from gs_search.dashboard.stored import (
    METRIC_NAMES,
    METRIC_NAMES_KEY,
    UPLOADS,
    Note,
    Pictures,
    figure_attributes,
    is_figure,
    is_note,
    note_attributes,
    note_owner,
    read_notes,
)
from gs_search.results.run_folder import RunFolder
from gs_search.search.optuna_adapter import (
    StudySystemAttributeModel,
    TrialSystemAttributeModel,
    database_of,
    storage_of,
    study_id,
    trial_id,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Published", "publish", "publish_quietly"]

MOST_NOTES = 500
"""Trials whose notes are saved. The dashboard goes through all of them for each trial, and samplers read them all."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What has been saved: attributes that were written or changed, and pictures that were not there before."""

    attributes: int
    pictures: int


def publish_quietly(study: optuna.Study, folder: RunFolder, note: Callable[[str], None]) -> None:
    """Publish at the end of a run. Raises nothing: a study is worth more than what stands beside it."""
    try:
        publish(study, folder)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        note(f"notes and figures were not saved into the study ({type(error).__name__}: {line})")


def publish(study: optuna.Study, folder: RunFolder) -> Published:
    """Save notes, pictures, figures and names into a study; what is as it should be is not written again.

    Only the process that runs the study may. Above ``MOST_NOTES`` trials, notes are saved of the front and the newest.
    """
    backend = database_of(storage_of(study))
    if backend is None:
        return Published(attributes=0, pictures=0)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    page, pictures = RunPage(folder), Pictures(folder, study.study_name)
    shown = page.study_now()
    there = storage_of(study).get_study_system_attrs(study_id(study))
    written: dict[int | None, str] = {None: shown.note}
    for trial in _noted(study, trials):
        told = trial.user_attrs
        written[trial_id(trial)] = page.trial(
            trial.number, trial.state.name, told.get("cause"), told.get("message")
        ).note
    wanted: dict[str, Any] = {METRIC_NAMES_KEY: METRIC_NAMES}
    notes = read_notes(there)
    for owner, text in written.items():
        old = notes.get(owner, Note())
        body = merged(old.body, text)
        wanted |= note_attributes(owner, Note(old.version + (body != old.body), body))
    for name, figure in shown.figures.items():
        wanted |= figure_attributes(name, figure)
    dropped = {owner for owner, old in notes.items() if owner not in written and is_untouched(old.body)}
    stale = [key for key in there if key not in wanted and _is_stale(key, written.keys() | dropped)]
    grids = {trial_id(trial): trial.number for trial in trials if pictures.path(trial.number).is_file()}
    placed = sum(_placed(folder, pictures, number) for number in grids.values())
    with backend.engine.begin() as connection:
        count = _write_study(connection, study_id(study), wanted, stale)
        metas = {trial_id: (pictures.key(number), pictures.meta(number)) for trial_id, number in grids.items()}
        count += _write_trials(connection, metas)
    return Published(attributes=count, pictures=placed)


def _noted(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials whose notes are saved: all, or the front and then the newest."""
    if len(trials) <= MOST_NOTES:
        return list(trials)
    front = {trial.number for trial in feasible_front(trials, study.directions)}
    return sorted(trials, key=lambda trial: (trial.number not in front, -trial.number))[:MOST_NOTES]


def _is_stale(key: str, ours: Collection[int | None]) -> bool:
    """Whether an attribute that is not wanted any more is a piece of a note or of a figure that is written here."""
    if is_note(key):
        return note_owner(key) in ours
    return any(is_figure(key, name) for name in FIGURES)


def _placed(folder: RunFolder, pictures: Pictures, number: int) -> bool:
    """Put a picture where ``--artifact-dir`` looks, as a second name of the same file if that can be."""
    target = folder.path / UPLOADS / pictures.artifact_id(number)
    if target.exists():
        return False
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(pictures.path(number), target)
    except OSError:  # a file system without second names
        shutil.copyfile(pictures.path(number), target)
    return True


def _write_study(connection: Connection, study_id: int, wanted: Mapping[str, Any], stale: Sequence[str]) -> int:
    """Have the study's system attributes say what is wanted; return how many were changed."""
    table = StudySystemAttributeModel.__table__
    number, own = table.c.study_system_attribute_id, table.c.study_id == study_id
    found = connection.execute(select(number, table.c.key, table.c.value_json).where(own))
    there = {row.key: (row[0], row.value_json) for row in found}
    texts = {key: json.dumps(value) for key, value in wanted.items()}
    new = [{"study_id": study_id, "key": key, "value_json": text} for key, text in texts.items() if key not in there]
    changed = [
        {"of": there[key][0], "text": text} for key, text in texts.items() if key in there and there[key][1] != text
    ]
    if new:
        connection.execute(insert(table), new)
    if changed:
        change = update(table).where(number == bindparam("of")).values(value_json=bindparam("text"))
        connection.execute(change, changed)
    gone = [{"of": there[key][0]} for key in stale if key in there]
    if gone:
        connection.execute(delete(table).where(number == bindparam("of")), gone)
    return len(new) + len(changed) + len(gone)


def _write_trials(connection: Connection, metas: Mapping[int, tuple[str, str]]) -> int:
    """Name the pictures of trials, where that is not done yet; return of how many it was not.

    Optuna lets nobody change a trial that has ended, because processes keep such trials in memory. This one has no
    further use for it, and the next one reads it anew.
    """
    table = TrialSystemAttributeModel.__table__
    keys = {key for key, _ in metas.values()}
    found = connection.execute(select(table.c.trial_id, table.c.key).where(table.c.key.startswith(Pictures.PREFIX)))
    there = {row.trial_id for row in found if row.key in keys}
    new = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(meta)}
        for trial_id, (key, meta) in metas.items()
        if trial_id not in there
    ]
    if new:
        connection.execute(insert(table), new)
    return len(new)

"""An Optuna storage that shows one study, with more than its database holds: pictures, and names with units.

The dashboard reads from this; what it adds is made from the run folder when it is asked for, and stands nowhere. So
watching a search writes nothing, and shows whatever there is at that moment. Writing is refused, or goes on to the
database as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gs_search.dashboard.figures import FIGURES
from gs_search.dashboard.source import StudySource
from gs_search.dashboard.stored import METRIC_NAMES, METRIC_NAMES_KEY, Note, Pictures, is_figure, is_note, read_notes
from gs_search.errors import GsSearchError
from gs_search.search.optuna_adapter import FrozenStudy
from gs_search.search.storage import NoStudyYet

__all__ = ["OverlayStorage"]


class OverlayStorage(BaseStorage):
    """One study of one run folder. Threads may share it."""

    def __init__(self, source: StudySource, pictures: Pictures, *, writable: bool = False) -> None:
        self._source = source
        self._pictures = pictures
        self._writable = writable
        self._trials: dict[int, tuple[FrozenTrial, FrozenTrial]] = {}
        self.notes: dict[int | None, Note] = {}
        """Notes that stand in the database, by the id of the trial, as they were when the study was last read."""

    # --- what is shown

    def get_all_studies(self) -> list[FrozenStudy]:
        """The study, or nothing while there is none; others in the same database are not shown."""
        try:
            study_id = self._source.study()._study_id
        except NoStudyYet:
            return []
        found = self._source.ask(lambda storage: storage.get_all_studies())
        return [self._filled(study) for study in found if study._study_id == study_id]

    def _filled(self, study: FrozenStudy) -> FrozenStudy:
        self.notes = read_notes(study.system_attrs)
        # The dashboard looks through all of this for each of its trials: a thousand notes here cost it seconds. So
        # notes and figures are put into its answers instead (app.py).
        attributes = {key: value for key, value in study.system_attrs.items() if not _is_ours(key)}
        filled = copy.copy(study)
        filled.system_attrs = attributes | {METRIC_NAMES_KEY: METRIC_NAMES}
        return filled

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Those in the database: this is what saving a note is compared with."""
        found = self._source.ask(lambda storage: storage.get_study_system_attrs(study_id))
        return {**found, METRIC_NAMES_KEY: METRIC_NAMES}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials, with their pictures."""
        trials = self._source.ask(lambda storage: storage.get_all_trials(study_id, deepcopy=deepcopy, states=states))
        return [self._pictured(trial) for trial in trials]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial, with its picture."""
        return self._pictured(self._source.ask(lambda storage: storage.get_trial(trial_id)))

    def _pictured(self, trial: FrozenTrial) -> FrozenTrial:
        kept = self._trials.get(trial.number)
        if kept is not None and kept[0] is trial:
            return kept[1]
        picture = self._pictures.attribute(trial.number)
        if not picture or picture.keys() <= trial.system_attrs.keys():
            return trial
        pictured = copy.copy(trial)  # the other one is in Optuna's cache
        pictured.system_attrs = {**trial.system_attrs, **picture}
        self._trials[trial.number] = trial, pictured
        return pictured

    # --- what is passed on

    def get_study_id_from_name(self, study_name: str) -> int:
        """As Optuna's; so are the others below."""
        return self._source.ask(lambda storage: storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """See above."""
        return self._source.ask(lambda storage: storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See above."""
        return self._source.ask(lambda storage: storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See above."""
        return self._source.ask(lambda storage: storage.get_study_user_attrs(study_id))

    def remove_session(self) -> None:
        """Nothing to do: the source does so when it lets go."""

    # --- writing

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Passed on where writing is allowed; so are the others below."""
        self._write(lambda storage: storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See above; this is how a note is saved."""
        self._write(lambda storage: storage.set_study_system_attr(study_id, key, value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See above."""
        self._write(lambda storage: storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See above; this is how an artifact is noted."""
        self._write(lambda storage: storage.set_trial_system_attr(trial_id, key, value))

    def _write(self, action: Callable[[BaseStorage], None]) -> None:
        if not self._writable:
            self._refuse("start it with --allow-edit to write notes")
        self._source.ask(action)

    def _refuse(self, advice: str) -> NoReturn:
        raise GsSearchError(f"the dashboard does not change the study; {advice}")

    # Trials and studies themselves belong to the search, whatever else may be edited.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Refused; so are the others below."""
        self._refuse("`gs-search run` makes studies")

    def delete_study(self, study_id: int) -> None:
        """See above."""
        self._refuse("delete the run folder instead")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See above."""
        self._refuse("`gs-search enqueue` adds points")

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """See above."""
        self._refuse("`gs-search enqueue` adds points")

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See above."""
        self._refuse("trials end by themselves")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See above."""
        self._refuse("trials end by themselves")


def _is_ours(key: str) -> bool:
    return is_note(key) or any(is_figure(key, name) for name in FIGURES)

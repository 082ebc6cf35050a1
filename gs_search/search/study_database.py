"""The study database: asking Optuna for points, telling it results, and setting right what a dead run left.

Only the process that runs the study writes here; workers never see the database. Every ending of a trial is
on disk as ``trials/<number>/result.json`` before it is told, so that a run which dies between the two loses
nothing: the next one tells from the file. No Ray in this module.
"""

from __future__ import annotations

import hashlib
import platform
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from gs_search.errors import BadInput
from gs_search.results.pareto import OBJECTIVES
from gs_search.results.record import Rung, TrialRecord, read_trial, write_record
from gs_search.results.run_folder import RESULT
from gs_search.search.backup import ways_out
from gs_search.search.feasibility import Feasibility, constraint_attributes
from gs_search.search.optuna_adapter import fixed_params, storage_of, study_id, trial_id
from gs_search.search.outcomes import (
    Asked,
    failure_record,
    objective_problem,
    told_attributes,
    told_values,
    trained,
)  # fmt: skip
from gs_search.search.samplers import make_sampler
from gs_search.search.storage import (
    Damaged,
    NoStudyYet,
    check_file,
    is_counted,
    is_server,
    open_study,
    patiently,
    quiet,
)

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = ["StudyDatabase", "open_database"]

T = TypeVar("T")

MAX_DEATHS = 3
"""A point whose run died this often, driver and all, is not tried again: it may be what kills."""


TIMEOUT_TIMES, LEAST_TIMEOUT_S = 10, 600.0
"""``timeout_minutes: auto``: so many times the median trial, but no less than ten minutes."""


def derived_seed(*parts: object) -> int:
    """Mix ``parts`` into a seed in 0..2**31 - 1, the same on every machine and in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def open_database(
    folder: RunFolder, config: StudyConfig, *, url: str | None = None, read_only: bool = False
) -> StudyDatabase:
    """Open the database of a run folder, making it unless ``read_only``.

    Args:
        url: another SQLAlchemy URL (PostgreSQL for a team); it stays in memory and is written nowhere.

    Raises:
        NoStudyYet: ``read_only``, and nothing is there.
        BadInput: the database is damaged, cannot be reached, or holds another kind of study; or it is missing
            while results are there.
    """
    if url is None:
        if read_only and not (folder.database.is_file() and folder.database.stat().st_size):
            raise NoStudyYet(f"{folder}: no study database here yet")
        try:
            check_file(folder.database)
        except Damaged as error:
            raise Damaged(f"{error}; {ways_out(folder, config.study)}") from None
    study = open_study(config.study, url or folder.database, read_only=read_only)
    if url is not None:
        _of_this_folder(study, folder, read_only=read_only)
    try:
        database = StudyDatabase(study, folder, config)
    except (ValueError, LookupError) as error:  # whole pages with nonsense in them
        raise Damaged(
            f"{folder}: the study database is damaged ({type(error).__name__} while reading it); "
            + ("restore it" if url else ways_out(folder, config.study))
        ) from error
    if not read_only and not database.trials() and folder.results():
        raise BadInput(
            f"{folder}: trials/ has results but the database has none; restore study.db: "
            f"{ways_out(folder, config.study)}"
        )
    return database


def _of_this_folder(study: optuna.Study, folder: RunFolder, *, read_only: bool) -> None:
    """Refuse a study of another run folder that has the same name; whoever comes first has it."""
    mine = folder.provenance().get("id") if folder.resolved_yaml.is_file() else None
    if mine is None:  # made by a version that knew no such thing
        return
    known = study.user_attrs.get("folder")
    if known is None and not read_only:
        study.set_user_attr("folder", {"id": mine, "host": platform.node(), "path": folder.place})
    elif known is not None and known["id"] != mine:
        raise BadInput(
            f"{folder}: the database holds another study {study.study_name!r}, of {known['path']} on "
            f"{known['host']}; rename one of the two, or take another database"
        )


class StudyDatabase:
    """One open study. Not shared between threads or processes."""

    def __init__(self, study: optuna.Study, folder: RunFolder, config: StudyConfig) -> None:
        self.study = study
        self.folder = folder
        self.config = config
        self.records: dict[str, int] = {}
        """Key of a point to the number of the trial that completed it."""
        self.feasibility = Feasibility(folder, config)
        self.note: Callable[[str], None] | None = None
        """Is told of a server that is away."""
        self.on_ask: Callable[[], None] = lambda: None
        """Is called when a trial is about to begin."""
        self._live: set[int] = set()
        """Trials that were asked for here and have not ended."""
        self._cut_off = False
        """The last proposal may have left a trial of which nobody knows."""
        for trial in self.trials():
            if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs:
                self.records.setdefault(trial.user_attrs.get("key", ""), trial.number)

    def trials(self) -> list[FrozenTrial]:
        """All trials, as Optuna has them, by number."""
        return self._patiently(lambda: self.study.get_trials(deepcopy=False))

    def running(self) -> list[FrozenTrial]:
        """Trials that have been asked for and not ended."""
        return [t for t in self.trials() if t.state == TrialState.RUNNING]

    def counted(self) -> int:
        """Number of finished trials; those that wait for another attempt, or came from an earlier study, left out."""
        return sum(map(is_counted, self.trials()))

    def taken_over(self) -> int:
        """Number of trials that came from an earlier study."""
        return sum("warm_start" in t.user_attrs for t in self.trials())

    def seconds(self) -> list[float]:
        """What each trial took that was trained to its end."""
        return [
            t.user_attrs["seconds"] for t in self.trials() if t.state == TrialState.COMPLETE and trained(t.user_attrs)
        ]

    def usual_seconds(self) -> float | None:
        """Median of ``seconds``; None before a trial has been trained."""
        spent = self.seconds()
        return statistics.median(spent) if spent else None

    def timeout_s(self, usual: float | None) -> float | None:
        """Seconds after which a trial has failed, by those of the median one; None where nothing is known."""
        if self.config.timeout_minutes != "auto":
            return 60 * float(self.config.timeout_minutes)
        return None if usual is None else max(LEAST_TIMEOUT_S, TIMEOUT_TIMES * usual)

    # --- asking

    def enqueue_start_points(self) -> None:
        """Put the space's start points at the head of the queue, each once in the life of a study."""
        for point in self.config.space.start_points:
            self.enqueue(self.config.space.tunable(point), skip_if_exists=True)

    def ask(self) -> Asked:
        """Take the next point: from the queue, else from the sampler."""
        # A sampler made anew for each turn, seeded by the turn, makes the list of proposals a function of the
        # study seed and of what is known: a continued run neither repeats start-up points nor differs from an
        # undisturbed one.
        with quiet():
            # A start point may lie beyond what max_gflops leaves of the space; ``refuse`` answers it.
            warnings.filterwarnings("ignore", "Fixed parameter", UserWarning)
            asked = self._patiently(self._ask)
        self.on_ask()
        return asked

    def _ask(self) -> Asked:
        if self._cut_off:
            lost = [trial for trial in self.running() if trial.number not in self._live]
            self._end_lost(lost, "interrupted", "the database went away while it was proposed")
            for trial in lost:
                self._requeue(trial)
        self._cut_off = True
        asked = self._proposed()
        self._live.add(asked.number)
        self._cut_off = False
        return asked

    def _proposed(self) -> Asked:
        self.study.sampler = sampler = self.next_sampler()
        trial = self.study.ask()
        if isinstance(sampler, optuna.samplers.BaseGASampler):
            # Optuna leaves queued points without a generation, and start points would never be parents.
            sampler.get_trial_generation(self.study, self.trials()[trial.number])
        return self._asked(trial.number, self.feasibility.space().suggest(trial))

    def next_sampler(self) -> optuna.samplers.BaseSampler:
        """Make the sampler of the next proposal."""
        turn = self._turn()
        turn_seed = derived_seed(self.config.seed, "sampler", turn)
        study_seed = derived_seed(self.config.seed, "sampler")
        if self.config.sampler == "surrogate":
            from gs_search.search.surrogate import SurrogateSampler

            space, corner = self.feasibility.space(), self.feasibility.corner()
            return SurrogateSampler(space, reference=corner, position=turn, seed=turn_seed, study_seed=study_seed)
        return make_sampler(
            self.config.sampler,
            turn=turn,
            turn_seed=turn_seed,
            study_seed=study_seed,
            parameters=[parameter.name for parameter in self.config.space.parameters],
        )

    def _turn(self) -> int:
        """Number of proposals so far; those of the studies that this one builds on are not made again."""
        own = [t for t in self.trials() if t.state != TrialState.WAITING and "warm_start" not in t.user_attrs]
        earlier = self.study.user_attrs.get("earlier_turns", {})
        return sum(not t.user_attrs.get("requeue") for t in own) + sum(earlier.values())

    def _asked(self, number: int, point: Mapping[str, Any]) -> Asked:
        # The seed follows the point: the same point gives the same numbers in whichever trial it is.
        key = self.config.space.key(point)
        return Asked(number, dict(point), key, derived_seed(self.config.seed, "trial", key))

    # --- telling

    def tell(self, record: TrialRecord) -> None:
        """Enter the ending that ``record`` describes; telling twice changes nothing."""
        violated = self.feasibility.violations(record)
        told = self._patiently(lambda: self._tell(record, violated))
        self._live.discard(record.number)
        if told and record.is_trained:
            self.records.setdefault(record.key, record.number)

    def _tell(self, record: TrialRecord, violated: Mapping[str, float]) -> bool:
        """Say whether there was anything to tell."""
        # The state comes last: a run that dies before it finds the trial running, and tells it again.
        storage, number = storage_of(self.study), record.number  # the live trial is gone
        its_id = storage.get_trial_id_from_study_id_trial_number(study_id(self.study), number)
        trial = storage.get_trial(its_id)
        if trial.state != TrialState.RUNNING:
            return False
        if violated and record.constraints != violated:
            self.write_result(record.but(constraints=violated))
        for name, value in told_attributes(record).items():
            if trial.user_attrs.get(name) != value:
                storage.set_trial_user_attr(its_id, name, value)
        for name, share in constraint_attributes(violated).items():  # what Trial.set_constraint does
            storage.set_trial_system_attr(its_id, name, share)
        self.study.tell(number, told_values(record), state=TrialState[record.state])
        return True

    def tell_duplicate(self, asked: Asked, original: int) -> TrialRecord:
        """Answer a point from the record of the trial that had it first; return the new record."""
        record = self.read_result(original)
        if record is None:  # the folder was thinned out by hand; the database still knows the objectives
            values = dict(zip(OBJECTIVES, self.trials()[original].values, strict=True))
            record = TrialRecord(study=self.config.study, number=original, state="COMPLETE", objectives=values)
        seed = asked.seed if record.seed is None else record.seed
        record = record.but(number=asked.number, point=asked.point, key=asked.key, seed=seed, duplicate_of=original)
        if record.warm_start is not None:  # this one is a trial of this study
            record = record.but(warm_start=None)
        self.write_result(record)
        self.tell(record)
        return record

    def fail(self, asked: Asked, cause: str, message: str, *, requeue: bool = False) -> TrialRecord:
        """Enter a trial's ending without a result, on disk first; ``requeue`` has the next run repeat it."""
        record = failure_record(self.config.study, asked, cause, message, place=self.folder.trial(asked.number))
        if requeue:
            # Before the file: once that is there, a run that starts after our death tells from it.
            self._attribute(self.trials()[asked.number], "requeue", True)
            record = record.but(requeue=True)
        self.write_result(record)
        self.tell(record)
        return record

    def refuse(self, asked: Asked) -> TrialRecord | None:
        """Answer a point that is too large to be worth a training; None where it may start.

        Raises:
            GsSearchError: it is one of too many in a row.
        """
        violated, message = self.feasibility.before_training(asked.point)
        if not violated:
            return None
        # To Optuna it is pruned, with a constraint: TPE ranks it by that, behind all that keep the constraints.
        record = failure_record(self.config.study, asked, "infeasible", message, place=self.folder.trial(asked.number))
        record = record.but(state="PRUNED", constraints=violated)
        self.write_result(record)
        self.tell(record)
        self.feasibility.check_hope()
        return record

    def leave(self, asked: Asked, verdict: object, report: Rung | None) -> TrialRecord:
        """Enter a trial that was left at a rung, on disk first, with what it had told there."""
        seconds = None if report is None else report.seconds
        place = self.folder.trial(asked.number)
        record = failure_record(self.config.study, asked, "dominated", str(verdict), place=place, seconds=seconds)
        record = record.but(state="PRUNED", rungs=() if report is None else (report,))
        self.write_result(record)
        self.tell(record)
        return record

    # --- results on disk

    def write_result(self, record: TrialRecord) -> None:
        """Write ``trials/<number>/result.json`` whole."""
        path = self.folder.trial(record.number) / RESULT
        write_record(path, record)
        self.folder.send(path)

    def read_result(self, number: int) -> TrialRecord | None:
        """Read how a trial ended; None where there is no whole result of this study and number."""
        try:
            record = read_trial(self.folder.trial(number) / RESULT)
        except BadInput:
            return None
        return record if record.number == number and record.study == self.config.study else None

    def unheard_result(self, trial: FrozenTrial) -> TrialRecord | None:
        """Result that a running trial has left on disk, whose news did not arrive; None where there is none."""
        self.folder.fetch(self.folder.trial(trial.number) / RESULT)
        record = self.read_result(trial.number)
        return record if record is not None and _describes(record, trial) else None

    # --- after an ending

    def settle(self, cause: str, message: str) -> list[int]:
        """End every trial that the database calls running though nothing runs any more.

        One that left a whole result is told from it; the others fail with ``cause`` and are marked to be
        repeated. Returns the numbers of the latter.
        """
        lost = []
        for trial in self.running():
            if record := self.unheard_result(trial):
                self.tell(record)
            else:
                lost.append(trial)
        self._end_lost(lost, cause, message)
        return [trial.number for trial in lost]

    def _end_lost(self, trials: Iterable[FrozenTrial], cause: str, message: str) -> None:
        for trial in trials:
            asked = self._asked(trial.number, {**self.config.space.constants, **fixed_params(trial), **trial.params})
            deaths = int(trial.user_attrs.get("deaths", 0)) + (cause == "killed")
            if deaths:
                self._attribute(trial, "deaths", deaths)
            self.fail(asked, cause, message, requeue=deaths < MAX_DEATHS)

    def requeue(self) -> list[int]:
        """Queue every trial that is marked to be repeated and has not been; return their numbers."""
        trials = self.trials()
        repeated = {t.user_attrs.get("retry_of") for t in trials}
        queued = []
        for trial in trials:
            if trial.user_attrs.get("requeue") and trial.number not in repeated and self._requeue(trial):
                queued.append(trial.number)
        return queued

    def _requeue(self, trial: FrozenTrial) -> bool:
        """Queue the point of a trial again, as far as it was queued or proposed; say whether there was one.

        Of a proposal that was cut off nothing is queued: its turn is not counted, and proposes the same point again.
        """
        whole = not self.config.space.check_point({**self.config.space.constants, **trial.params})
        params = dict(trial.params) if whole else fixed_params(trial)
        if params:
            attributes = {"retry_of": trial.number, "deaths": trial.user_attrs.get("deaths", 0)}
            self.enqueue(params, user_attrs=attributes)
        return bool(params)

    # --- storage

    def enqueue(self, params: dict[str, Any], **options: Any) -> None:
        """Queue parameters of the space, some or all of them; what is missing the sampler adds."""
        with quiet():
            self._patiently(lambda: self.study.enqueue_trial(params, **options))

    def _attribute(self, trial: FrozenTrial, name: str, value: Any) -> None:
        storage = storage_of(self.study)  # ask() returned the live trial long ago; its number is all we keep
        self._patiently(lambda: storage.set_trial_user_attr(trial_id(trial), name, value))

    def describe(self, name: str, value: Any) -> None:
        """Set an attribute of the study."""
        self._patiently(lambda: self.study.set_user_attr(name, value))

    def _patiently(self, action: Callable[[], T]) -> T:
        return patiently(action, server=is_server(self.study), note=self.note)


def _describes(record: TrialRecord, trial: FrozenTrial) -> bool:
    """Whether a result is that of this trial, and not of a forgotten one that had the same number."""
    if objective_problem(record):
        return False
    return bool(trial.params) and all(record.point.get(name) == value for name, value in trial.params.items())

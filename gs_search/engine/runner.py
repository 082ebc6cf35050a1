"""Running a study: from a configuration and a folder to a number of finished trials.

Reading order for the engine: this module, then ``searcher`` (what Tune asks and hears), ``search.study_database`` (what
is remembered), ``worker`` (what runs elsewhere). Ray is imported only once there is something to run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from gs_search.engine.console import Progress
from gs_search.engine.memory import planned, require_memory
from gs_search.engine.preparation import Preparation, RemotePreparation
from gs_search.engine.ray.cluster import Cluster, cluster_address, connected
from gs_search.engine.ray.local import dead_ray_process, local_ray, saying_that_ray_died, scratch_folder, sweep_scratch
from gs_search.engine.ray.watchdog import last_words
from gs_search.engine.store_sync import StoreSync
from gs_search.errors import BadInput, GsSearchError, one_line
from gs_search.monitor.estimate import reference_of, standing
from gs_search.results.pareto import reference_point
from gs_search.search.backup import RollingCopy
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.search.warm_start import warm_start
from gs_search.study.database_url import database_url, with_driver
from gs_search.system.signals import interruption

if TYPE_CHECKING:
    import optuna

    from gs_search.results.record import TrialRecord
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = ["StudySummary", "run_study"]


WORKERS_DIE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """How a run ended. Numbers are of the whole study, earlier runs included."""

    study: str
    total: int
    finished: int
    states: dict[str, int]
    """Trials by state: COMPLETE, PRUNED, FAIL, WAITING, RUNNING (which is 0)."""
    front: tuple[int, ...]
    infeasible: int = 0
    """Complete trials that miss a constraint."""
    hypervolume: float | None
    """0..1, see ``Standing``."""
    seconds: float
    """Of this run."""
    new: int
    """Trials finished by this run."""
    ending: str
    """``finished``, ``nothing_to_do``, ``out_of_time`` or ``interrupted``."""

    @property
    def interrupted(self) -> bool:
        """Whether someone stopped the run."""
        return self.ending == "interrupted"


def run_study(
    config: StudyConfig,
    folder: RunFolder,
    *,
    trials: int | None = None,
    workers: int | None = None,
    hours: float | None = None,
    retrain_teacher: bool = False,
    earlier: RunFolder | None = None,
    progress: Progress | None = None,
    storage: str | None = None,
    address: str | None = None,
    insecure: bool = False,
    on_end: Callable[[optuna.Study], None] | None = None,
    trial_function: str = "gs_search.trial.run:trial_in_rungs",
    prepare_function: str = "gs_search.trial.assets:prepare",
) -> StudySummary:
    """Start or continue a study until ``trials`` are finished, time is up, or someone stops it.

    Args:
        trials, workers, hours: replace what the study says. ``trials`` is the total, trials of earlier runs
            included; ``hours`` counts from now, and no trial starts that would probably end later.
        retrain_teacher: train the teacher anew; only before the first trial.
        earlier: run folder of a study of the same teacher, whose students are taken over.
        address: of a Ray cluster, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None starts Ray on this machine.
        insecure: take a cluster that lets everyone in.
        storage: URL of another database than ``GS_SEARCH_STORAGE``, the study or its folder name.
        on_end: called with the study when no worker is left, however the run ends; it must not raise.
        trial_function, prepare_function: ``module:name`` of the trial, and of what prepares the study for it.

    Raises:
        StudyBusy: another process runs the study.
        BadInput: the folder holds another study, the database is damaged, or the data cannot be used.
        GsSearchError: five trials in a row failed for one cause, or the database was lost.
    """
    start = time.monotonic()
    total = config.trials if trials is None else trials
    hours = config.hours if hours is None else hours
    with _plain_errors(folder), progress or Progress() as progress, folder.lock(progress.note):
        url = with_driver(storage) if storage else database_url(config.storage)
        folder.join(database=url is None)
        folder.create(config)
        keeper = StoreSync(folder, None if url else RollingCopy(folder, progress.note))
        database = open_database(folder, config, url=url)
        database.note, database.on_ask = progress.note, keeper.asked
        sweep_scratch()  # also where nothing is left to do
        _set_right(database, progress)
        before = database.counted()
        if retrain_teacher:
            _forget_teacher(folder, before + database.taken_over())
        if earlier is not None and folder.baselines.is_file():
            keeper.prepared(whole=True)
            _take_over(database, earlier, progress, keeper)
            earlier = None
        ending = "nothing_to_do"
        if before < total:
            ending = _run(
                _Run(
                    database=database,
                    folder=folder,
                    config=config,
                    total=total,
                    workers=config.workers if workers is None else workers,
                    deadline=None if hours is None else start + 3600 * hours,
                    progress=progress,
                    address=cluster_address(address),
                    insecure=insecure,
                    earlier=earlier,
                    on_end=on_end,
                    trial_function=trial_function,
                    keeper=keeper,
                ),
                prepare_function,
                retrain_teacher,
            )
        return _summary(database, folder, total, before, ending, time.monotonic() - start)


@contextmanager
def _plain_errors(folder: RunFolder) -> Iterator[None]:
    """Turn what a full disk, a missing right or a lost database raises, wherever it does, into one line."""
    try:
        yield
    except (OSError, StorageInternalError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise GsSearchError(
            f"{folder}: {reason}; finished results are safe in trials/, and the same command goes on from there "
            "once that is mended"
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one run works with."""

    database: StudyDatabase
    folder: RunFolder
    config: StudyConfig
    total: int
    workers: int | str
    deadline: float | None
    progress: Progress
    address: str | None
    insecure: bool
    earlier: RunFolder | None
    """None where there is none, or its students have been taken over."""
    on_end: Callable[[optuna.Study], None] | None
    trial_function: str
    keeper: StoreSync


def _set_right(database: StudyDatabase, progress: Progress) -> None:
    """Put in order what a run that died has left, and queue what it owes."""
    if database.running():
        # Workers notice within three seconds that their driver is gone; one may be writing its result now.
        time.sleep(WORKERS_DIE_S)
    lost = database.settle("killed", "the run that it belonged to died")
    again = database.requeue()
    if lost:
        progress.note(f"an earlier run died; trials it was at: {', '.join(map(str, lost))}")
    if again:
        progress.note(f"queued again: {', '.join(map(str, again))}")


def _take_over(database: StudyDatabase, earlier: RunFolder, progress: Progress, keeper: StoreSync) -> None:
    progress.note(str(warm_start(database, earlier)))
    keeper.took_over()


def _forget_teacher(folder: RunFolder, finished: int) -> None:
    if finished:  # of whatever ending: their figures would stand beside another teacher's
        raise BadInput(
            f"{folder}: {finished} finished trials imitate its present teacher; to have another one "
            "trained, take another folder with --out"
        )
    shutil.rmtree(folder.teacher, ignore_errors=True)
    if folder.mirror is not None:
        folder.mirror.forget_below(folder.teacher.name)


def _run(run: _Run, prepare_function: str, retrain: bool) -> str:
    """Prepare, start Ray meanwhile, search, and leave no trial running; return the ending."""
    with (
        interruption(run.progress.note, "stopping; what is finished is kept") as interrupted,
        scratch_folder() as scratch,
    ):
        path, note = run.folder.place, run.progress.note
        run.keeper.wait_for_store(note, interrupted)
        prepared: Preparation | RemotePreparation | None = None
        if run.address is None:
            require_memory()
            prepared = Preparation(path, prepare_function, retrain=retrain, note=note)
        try:
            with (
                # Ray tells of dead workers on standard output, which belongs to --json.
                (scratch / "printed.txt").open("w") as printed,
                redirect_stdout(printed),
                _ray(run, scratch) as cluster,
                saying_that_ray_died(note),
            ):
                interrupted.listen()  # Ray has put its own handler there
                prepared = prepared or RemotePreparation(
                    path,
                    prepare_function,
                    retrain=retrain,
                    note=note,
                    told=cluster.told,
                    resources=cluster.plan.resources,
                )
                try:
                    ready = prepared.wait(interrupted)
                finally:
                    prepared.close()
                if ready:
                    run.keeper.prepared(whole=run.earlier is not None)
                ending = _search(run, cluster, scratch, interrupted) if ready else "interrupted"
        finally:
            if prepared is not None:
                prepared.close()
            if run.address is not None and run.database.running():
                time.sleep(WORKERS_DIE_S)  # its nodes have been told to end them, and may be at it
            try:
                # Only now, when no worker can write a result any more.
                run.database.settle("interrupted", "the run was stopped")
                run.keeper.results()
                if run.on_end is not None:
                    run.on_end(run.database.study)
            finally:
                run.keeper.close()
    return ending


@contextmanager
def _ray(run: _Run, scratch: Path) -> Iterator[Cluster]:
    """Ray on this machine, or on many."""
    if run.address is None:
        with local_ray(scratch, workers=run.workers, device=run.config.device) as plan:
            yield Cluster(plan)
        return
    with connected(
        run.address,
        run.folder.place,
        scratch,
        workers=run.workers,
        device=run.config.device,
        resources=run.config.resources,
        insecure=run.insecure,
        note=run.progress.note,
    ) as cluster:
        yield cluster


def _search(run: _Run, cluster: Cluster, scratch: Path, interrupted: Callable[[], bool]) -> str:
    """Have Tune run trials until the searcher says that it is enough."""
    from ray import tune

    from gs_search.engine.ray.membership import Membership, TrialPlace
    from gs_search.engine.scheduler import ParetoStopping, WarmProcesses
    from gs_search.engine.searcher import RayLost, SearchStopped, StudyCallback, StudySearcher
    from gs_search.engine.worker import TrialWorker
    from gs_search.search.stopping import Rungs

    if run.earlier is not None:
        _take_over(run.database, run.earlier, run.progress, run.keeper)
    run.database.enqueue_start_points()  # but for those that came from an earlier study
    prepared = run.folder.measured()
    if prepared.precision is not None:
        run.folder.decided({"precision": prepared.precision["precision"]})
    plan = planned(cluster.plan, prepared, run.config.resources if cluster.told else None, run.progress.note)
    reference = reference_point(prepared)
    ends = None if run.deadline is None else time.time() + run.deadline - time.monotonic()
    where = standing(run.database, reference, run.total, plan.workers, ends=ends)
    told = {"total": run.total, "workers": plan.workers, "pid": os.getpid(), "ends": ends}
    run.database.describe("run", told)
    run.progress.note(
        f"{run.total - where.done} trials to go, {plan.workers} at once on {plan.device}; results in {run.folder}"
    )
    run.progress.start(where.done, run.total)

    def on_finish(record: TrialRecord) -> None:
        try:
            run.progress.trial(record, standing(run.database, reference, run.total, plan.workers, ends=ends))
        except Exception as error:  # the trial is recorded; a search does not end for want of a line about it
            run.progress.note(f"trial {record.number} ended; its line failed: {one_line(error)}")
        run.keeper.ended(record.number)

    searcher = StudySearcher(
        run.database,
        total=run.total,
        deadline=run.deadline,
        interrupted=interrupted,
        on_finish=on_finish,
        is_gone=cluster.is_gone,
    )
    place = TrialPlace(plan.resources)
    callbacks: list[Any] = [StudyCallback(searcher, run.progress.note)]
    if cluster.told:
        membership = Membership(
            cluster,
            place,
            custom=run.config.resources.custom,
            note=run.progress.note,
            give_up=lambda error: searcher.give_up("placing trials", error),
        )
        callbacks.insert(0, membership)  # before a trial is queued again
    rungs = Rungs(run.config.stopping.rule, run.config.stopping.margin_db)
    for trial in run.database.trials():
        if (record := run.database.read_result(trial.number)) is not None:
            rungs.remember(trial.number, record.rungs)
    try:
        tune.run(
            TrialWorker,
            name="trials",
            config={"folder": run.folder.place, "function": run.trial_function, "told": cluster.told},
            search_alg=searcher,
            scheduler=ParetoStopping(rungs, searcher, WarmProcesses(plan.workers)),
            num_samples=-1,
            max_concurrent_trials=plan.workers,
            resources_per_trial=place,
            max_failures=0,
            reuse_actors=True,  # see ``WarmProcesses``
            callbacks=callbacks,
            storage_path=str(scratch / "tune"),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            raise_on_failed_trial=False,
            verbose=0,
            _remote=False,  # over ray:// too: the study database stays in this process
        )
    except SearchStopped:
        pass
    except RayLost as lost:
        # Nobody can be asked to end its workers; they notice by themselves.
        time.sleep(WORKERS_DIE_S)
        raise GsSearchError(last_words(str(lost))) from None
    except Exception as error:
        if searcher.error is None and (dead := dead_ray_process()):
            raise GsSearchError(last_words(dead)) from None
        if searcher.error is None:
            raise GsSearchError(f"Ray Tune ended the search: {one_line(error)}") from error
    if searcher.error is not None:
        raise searcher.error
    if interrupted():
        return "interrupted"
    return "out_of_time" if searcher.out_of_time else "finished"


def _summary(
    database: StudyDatabase, folder: RunFolder, total: int, before: int, ending: str, seconds: float
) -> StudySummary:
    where = standing(database, reference_of(folder), total, 1)
    states = {state.name: 0 for state in TrialState}
    for trial in database.trials():
        states[trial.state.name] += 1
    return StudySummary(
        study=database.config.study,
        total=total,
        finished=where.done,
        states=states,
        front=where.front,
        infeasible=len(where.infeasible),
        hypervolume=where.hypervolume,
        seconds=round(seconds, 1),
        new=where.done - before,
        ending=ending,
    )

"""One full training from its beginning to ``result.json``: who may begin it, what goes on, what is measured at the end.

``retrain/<number>/`` holds the files of a trial, and beside them ``last.safetensors`` (the student of the last step;
``student.safetensors`` is the best one by FID on the validation pictures), ``samples/`` (one grid a look) and
``tensorboard/``; until it is finished also ``schedule.json``, ``progress.json`` and the checkpoint. ``result.json``
comes last, so that it vouches for the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_search.errors import BadInput, StudyBusy, TrialFailed
from gs_search.results.record import FullRecord, Look, Parity, ShortFigures, TrialRecord, write_record
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.retrain.schedule import Asked, Schedule, plan
from gs_search.retrain.selection import check_teacher
from gs_search.system.files import read_json, write_json, write_text
from gs_search.system.lock import hold, live_holder
from gs_search.system.signals import Interruption

__all__ = ["Interrupted", "retrain"]

BEGUN = "schedule.json"


class Interrupted(Exception):
    """Somebody has asked to stop; the checkpoint is written.

    Attributes:
        number: of the trial.
    """

    def __init__(self, number: int, step: int, schedule: Schedule) -> None:
        super().__init__(f"trial {number} stopped after step {step} of {schedule.steps}")
        self.number = number


def retrain(
    folder: RunFolder,
    trial: TrialRecord,
    asked: Asked,
    *,
    stop: Interruption,
    note: Callable[[str], None],
    on_progress: Callable[[Mapping[str, Any]], None],
    force: bool = False,
) -> FullRecord:
    """Train a trial in full, or go on with it, or return what is there.

    Args:
        trial: how the short one ended.
        asked: what is not asked for is as it was begun, else as the study says.
        note: gets one line for everything worth telling.
        on_progress: gets what ``progress.json`` holds.
        force: begin anew, whatever is there.

    Raises:
        Interrupted: ``stop`` has said so.
        StudyBusy: another process trains it.
        BadInput: it was begun or finished with another length, or other settings; or the teacher, the pictures or the
            GPUs are not there.
        TrialFailed: the training broke down.
    """
    check_teacher(folder)
    place = folder.retrained(trial.number)
    if (found := live_holder(place / "lock")) is not None:
        by = f"process {found['pid']} on {found['host']}"
        raise StudyBusy(f"{place}: {by} trains it since {found['since']}; wait for it, or stop it with Ctrl-C there")
    with _made(place), hold(place / "lock"):
        if force:
            _clear(place)
        config = folder.config()
        schedule = _settled(folder, trial, asked, place)
        if (finished := folder.full_result(trial.number)) is not None:
            _sweep(place)
            return finished
        for draft in place.glob(".*.*"):  # of a process that was killed while it wrote
            draft.unlink(missing_ok=True)

        from gs_search.retrain.evaluate import TestPictures
        from gs_search.retrain.log import Journal
        from gs_search.retrain.loop import Course
        from gs_search.trial.assets import TrialAssets
        from gs_search.trial.run import peak_memory_mb

        ground = TrialAssets.of(folder, config)
        test = TestPictures(config, ground)
        started = datetime.now(timezone.utc)
        write_json(place / BEGUN, schedule.to_json())
        alone = schedule.workers == 1
        journal = Journal(folder, place, schedule, tell=note if alone else None, on_progress=on_progress)
        course = Course(folder, trial, schedule, journal)
        try:
            if alone:
                with journal:
                    course.run(stop)
            elif not _trained(course, schedule):
                from gs_search.retrain.distributed import train_together

                train_together(folder, trial, schedule, stop, note, on_progress)
        except TrialFailed as failure:  # its own doing: it would fail again
            journal.line(f"failed ({failure.cause}): {failure}")
            _sweep(place)
            raise TrialFailed(
                failure.cause,
                f"{place}: the full training of trial {trial.number} failed ({failure.cause}): {failure}; a trial "
                "with lower learning rates may not",
            ) from failure
        state: dict[str, Any] = course.state() if course.checkpoint.is_file() else {"done": 0}
        if state["done"] < schedule.steps:
            raise Interrupted(trial.number, state["done"], schedule)
        journal.count_from(state["notes"]["seconds"])
        record = _finished(trial, schedule, course, state, test, folder)
        record = record.but(
            seconds=round(journal.seconds, 3),
            peak_memory_mb=peak_memory_mb(),
            started=started.isoformat(timespec="seconds"),
        )
        journal.line(_told(record))
        write_record(place / RESULT, record)
        _sweep(place)
        return record


@contextmanager
def _made(place: Path) -> Iterator[None]:
    """The folder, which goes away again where nothing was written to it."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in (place, place.parent):
            with suppress(OSError):
                folder.rmdir()


def _told(record: FullRecord) -> str:
    short = record.short.objectives["fid"]
    text = f"best after step {record.best_step}: FID {record.fid:.2f}, {short:.2f} as a trial"
    return text + ("; no test pictures" if record.test is None else f"; on the test pictures {record.test.fid:.2f}")


def _settled(folder: RunFolder, trial: TrialRecord, asked: Asked, place: Path) -> Schedule:
    """What is begun or finished already, unless something else is asked for; raises BadInput where both is."""
    pictures = folder.measured().protocol.data["counts"]["source"]["train"]
    wanted = plan(asked, trial.point, folder.config(), pictures)
    before = _before(folder, trial, place)
    if before is None:
        return wanted
    schedule, how = before
    if how == FINISHED_WITH and not asked.anything:
        return schedule
    if asked.anything and schedule != wanted:
        raise BadInput(
            f"{place}: {how} {schedule.steps} steps of {schedule.batch_size} pictures{_others(schedule)}, not with "
            f"{wanted.steps} of {wanted.batch_size}{_others(wanted)}; --force begins anew"
        )
    if how == FINISHED_WITH:
        return schedule
    workers = asked.workers or schedule.workers
    try:
        return schedule.on(workers, wanted.checkpoint_minutes)
    except ValueError:
        raise BadInput(
            f"{place}: {how} {schedule.batch_size} pictures a step, which {workers} workers cannot share evenly"
        ) from None


def _others(schedule: Schedule) -> str:
    told = ", ".join(f"{name} {value}" for name, value in schedule.replaced.items())
    return f" ({told})" if told else ""


BEGUN_WITH, FINISHED_WITH = "was begun with", "is finished, with"


def _before(folder: RunFolder, trial: TrialRecord, place: Path) -> tuple[Schedule, str] | None:
    finished = folder.full_result(trial.number)
    if finished is not None and finished.key != trial.key:
        raise BadInput(f"{place / RESULT}: is of another point than trial {trial.number}; move {place} away")
    if finished is None and not (place / BEGUN).is_file():
        return None
    how, name = (BEGUN_WITH, BEGUN) if finished is None else (FINISHED_WITH, RESULT)
    try:
        return Schedule.from_json(read_json(place / BEGUN) if finished is None else finished.schedule), how
    except (KeyError, TypeError):
        raise BadInput(f"{place / name}: not of this version; --force begins anew") from None


def _trained(course: Any, schedule: Schedule) -> bool:
    return course.checkpoint.is_file() and course.state()["done"] == schedule.steps


def _finished(
    trial: TrialRecord,
    schedule: Schedule,
    course: Any,
    state: Mapping[str, Any],
    test: Any,
    folder: RunFolder,
) -> FullRecord:
    """Measure the best student, and put its files in place."""
    from gs_search.retrain.loop import write_packed
    from gs_search.trial.evaluate import costs, look_at
    from gs_search.trial.run import curve_csv, versions, write_samples

    place, ground, config, notes = course.place, course.ground, course.config, state["notes"]
    best, looks = notes["best"], notes["looks"]
    write_packed(place / "student.safetensors", best["packed"])
    student = ground.load_student(place / "student.safetensors").to(ground.device)
    found = look_at(student, ground, ground.validation, ground.validation_outputs)
    write_samples(place / "samples.png", ground, found.painted)
    write_text(place / "curve.csv", curve_csv(state["curve"]))
    spent = costs(student, place / "student.safetensors", ground, config)
    return FullRecord(
        study=config.study,
        number=trial.number,
        state="COMPLETE",
        cause=None,
        message=None,
        point=trial.point,
        key=trial.key,
        seed=course.seed,
        objectives={"fid": found.fid, "gflops": spent.gflops, "size_mb": spent.size_mb},
        split="val",
        kid=found.kid,
        psnr_to_teacher=found.psnr_to_teacher,
        psnr_before_training=notes["psnr"],
        learning_rate_factor=notes["factor"],
        rungs=(),
        macs=spent.macs,
        macs_paper=spent.macs_paper,
        params=spent.params,
        latency_ms=spent.latency_ms,
        layers=spent.layers,
        parity=Parity.from_json(state["parity"]),
        steps=schedule.steps,
        precision=course.settings.precision,
        schedule={
            **schedule.to_json(),
            "epochs": schedule.steps * schedule.batch_size / course.views.pictures,
            "views": course.views.views,
        },
        best_step=best["step"],
        looks=tuple(map(Look.from_json, looks)),
        last=Look.from_json(looks[-1]),
        test=test.measure(student, folder.trial(trial.number) / "student.safetensors", ground),
        short=ShortFigures(
            objectives=trial.values,
            **{name: getattr(trial, name) for name in ShortFigures.model_fields if name != "objectives"},
        ),
        protocol=ground.baselines.protocol.id,
        versions=versions(),
    )


def _sweep(place: Path) -> None:
    """Remove what only an unfinished training needs."""
    from gs_search.retrain.distributed import STOP

    for name in ("checkpoint.ckpt", "progress.json", BEGUN, STOP):
        (place / name).unlink(missing_ok=True)


def _clear(place: Path) -> None:
    """Remove all of an earlier training; the lock stays."""
    for entry in place.iterdir():
        if entry.name != "lock":
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    entry.unlink()

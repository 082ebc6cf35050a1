"""The verbs that make a study and change it: ``check``, ``run``, ``enqueue``, ``rebuild``."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gs_search.cli.options import FOLDER, INTERRUPTED, STUDY, Options, PlaceType, common, print_json, print_rich
from gs_search.errors import BadInput, NothingFeasible

if TYPE_CHECKING:
    from gs_search.remote import Place
    from gs_search.study.config import StudyConfig

__all__ = ["check", "enqueue", "rebuild", "run"]


@click.command(short_help="Find every mistake in a study.")
@STUDY
@click.option("--forecast", is_flag=True, help="Time some training steps, and say what the study will take.")
@common
@click.pass_obj
def check(options: Options, study: Path, forecast: bool) -> None:
    """Find every mistake in a study, and in what it names, before anything runs."""
    from gs_search.study.config import load_study
    from gs_search.study.preflight import check_inputs, teacher_notes

    config = load_study(study)
    check_inputs(config)
    notes = teacher_notes(config)
    expected = _forecast(config) if forecast else None
    if options.as_json:
        document = {"ok": True, "study": config.study, "problems": [], "notes": notes, "resolved": config.to_resolved()}
        print_json(document if expected is None else {**document, "forecast": expected})
        return
    space = config.space
    trials = f"{config.trials} trials at {config.image_px} px, {config.workers} workers"
    varied = f"{len(space.parameters)} settings vary, {len(space.start_points)} points are tried first"
    click.echo(f"{study}: fine\n  {trials}; {varied}\n  data {config.data.kind}, teacher {config.teacher.kind}")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if expected is not None:
        from gs_search.forecast.forecast import render_forecast

        print_rich(render_forecast(expected))


def _forecast(config: StudyConfig) -> dict[str, Any]:
    from gs_search.forecast.forecast import forecast

    return forecast(config, lambda line: click.echo(line, err=True))


@click.command(short_help="Start a study, or continue it.")
@STUDY
@click.option("--out", type=PlaceType(), metavar="DIR|URI", help="Run folder, s3://… too.  [default: runs/<study>]")
@click.option("--trials", type=click.IntRange(1), help="Finished trials in all, instead of the study's.")
@click.option("--workers", type=click.IntRange(1, 4096), help="Trials at once, instead of the study's.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Start no trial after so much time.")
@click.option("--retrain-teacher", is_flag=True, help="Train the teacher anew; before the first trial only.")
@click.option(
    "--from",
    "earlier",
    type=PlaceType(),
    metavar="RUN_FOLDER",
    help="Take over the students of an earlier study of the same teacher.",
)
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    metavar="auto|HOST:PORT|ray://HOST:PORT",
    help="Ray cluster whose nodes run the trials; RAY_ADDRESS says the same.  [default: Ray on this machine]",
)
@click.option("--insecure", is_flag=True, help="Take a Ray cluster that lets everyone in who reaches it.")
@common
@click.pass_obj
def run(
    options: Options,
    study: Path,
    out: Place | None,
    trials: int | None,
    workers: int | None,
    hours: float | None,
    retrain_teacher: bool,
    earlier: Place | None,
    address: str | None,
    insecure: bool,
) -> None:
    """Start a study, or continue it up to its number of trials."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import load_study
    from gs_search.study.preflight import check_inputs

    config = load_study(study)
    if retrain_teacher:
        _refuse_retraining(config, earlier)
    source = None if earlier is None else RunFolder.find(earlier, whole=True)
    folder = RunFolder(out or Path("runs") / config.study, at_work=True)
    folder.check(config)
    check_inputs(config, here=not address or address == "local")

    from gs_search.dashboard.publish import publish_quietly
    from gs_search.engine.console import Progress
    from gs_search.engine.runner import run_study

    progress = Progress()
    summary = run_study(
        config,
        folder,
        trials=trials,
        workers=workers,
        hours=hours,
        retrain_teacher=retrain_teacher,
        earlier=source,
        address=address,
        insecure=insecure,
        progress=progress,
        # Plain ``optuna-dashboard`` then shows what ``gs-search dashboard`` does.
        on_end=lambda ended: publish_quietly(ended, folder, progress.note),
    )
    if options.as_json:
        print_json({**dataclasses.asdict(summary), "folder": str(folder)})
    again = f"gs-search run {study}" + (f" --out {shlex.quote(str(out))}" if out else "")
    if summary.ending == "interrupted":
        click.echo(f"stopped with {summary.finished} of {summary.total} trials; go on with: {again}", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    if not summary.front and summary.finished >= summary.total:
        if summary.infeasible:
            raise NothingFeasible(
                f"{folder}: none of {summary.infeasible} students keeps the constraints; the nearest: "
                f"gs-search front {folder}"
            )
        raise NothingFeasible(f"{folder}: all trials ended without a result; see trials/*/result.json")
    if not options.as_json:
        _print_ending(summary, str(folder), again)


def _refuse_retraining(config: StudyConfig, earlier: Place | None) -> None:
    if earlier is not None:
        raise BadInput("--retrain-teacher: students taken over with --from imitate the teacher that is there")
    if config.teacher.kind == "checkpoint":
        raise BadInput("--retrain-teacher: the teacher of this study is a checkpoint, which is taken as it is")
    if config.data.kind == "photos":
        raise BadInput("--retrain-teacher: data of kind photos has no pictures of the target domain")


def _print_ending(summary: Any, folder: str, again: str) -> None:
    """Say how a run ended and what to do next."""
    if summary.ending == "nothing_to_do":
        click.echo(f"{folder}: all {summary.total} trials are there; more with: {again} --trials N")
    elif summary.ending == "out_of_time":
        click.echo(f"{folder}: time is up, {summary.finished} of {summary.total} trials; go on with: {again}")
    else:
        failed = summary.states.get("FAIL", 0)
        told = f", {failed} failed" if failed else ""
        told += f", {summary.infeasible} miss a constraint" if summary.infeasible else ""
        click.echo(f"{folder}: {summary.finished} trials{told}; {len(summary.front)} on the front")
    place = shlex.quote(folder)
    click.echo(f"next: gs-search front {place}; gs-search report {place}")


@click.command(short_help="Queue points to be tried next.")
@FOLDER
@click.option(
    "--point",
    "points",
    multiple=True,
    required=True,
    metavar="JSON",
    help="Setting to value, as in '{\"target_gflops_ratio\": 0.3}'; repeatable. The sampler adds what is missing.",
)
@common
@click.pass_obj
def enqueue(options: Options, folder: Place, points: tuple[str, ...]) -> None:
    """Queue points to be tried next, also while the study runs."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.search.enqueue import enqueue as put_in_queue

    document = put_in_queue(RunFolder.find(folder), points)
    if options.as_json:
        print_json(document)
        return
    for entry in document["known"]:
        click.echo(f"trial {entry['number']} has this point: {json.dumps(entry['point'])}", err=True)
    more = ", which has all its trials: raise --trials" if document["finished"] >= document["total"] else ""
    click.echo(f"{folder}: {len(document['queued'])} points queued; tried first by the study{more}")


@click.command(short_help="Make study.db anew from the trials' folders.")
@FOLDER
@click.option("--force", is_flag=True, help="Also where the database is sound and has all of them.")
@common
@click.pass_obj
def rebuild(options: Options, folder: Place, force: bool) -> None:
    """Make the study database anew from trials/*/result.json, after it was damaged or lost.

    A database that is there is kept beside the new one as study.db.damaged-1, -2 and so on. What could not be taken
    over is named on standard error, and `gs-search run` goes on from the new database as from the old one.
    """
    from gs_search.results.run_folder import RunFolder
    from gs_search.search.rebuild import rebuild_database

    rebuilt = rebuild_database(RunFolder.find(folder), force=force)
    for line in rebuilt.left_out:
        click.echo(f"left out: {line}", err=True)
    if options.as_json:
        print_json({**dataclasses.asdict(rebuilt), "folder": str(folder)})
        return
    states = ", ".join(f"{count} {name}" for name, count in rebuilt.states.items() if count)
    gaps = f"; without a result: {', '.join(map(str, rebuilt.gaps))}" if rebuilt.gaps else ""
    kept = f"; the old database is {rebuilt.kept}" if rebuilt.kept else ""
    click.echo(f"{rebuilt.database}: {rebuilt.finished} finished trials ({states}){gaps}{kept}")

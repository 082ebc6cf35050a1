"""``gs-search run``: starting a study, or continuing it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gs_search.cli.options import INTERRUPTED, STUDY, Options, PlaceType, common, print_json
from gs_search.errors import BadInput, NothingFeasible

if TYPE_CHECKING:
    from gs_search.remote import Place
    from gs_search.study.config import StudyConfig

__all__ = ["run"]


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
    if config.teacher.kind in ("checkpoint", "module"):
        raise BadInput(f"--retrain-teacher: the teacher of this study is a {config.teacher.kind}, taken as it is")
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

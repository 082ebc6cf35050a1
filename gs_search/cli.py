"""The command line: verbs, exit codes, and where output goes.

Results go to standard output (one JSON document with ``--json``), everything else to standard error. Exit
codes: 0 fine, 2 bad input, 3 nothing feasible, 130 interrupted, 1 anything else. What a verb needs is
imported when it runs, so that ``--help`` and ``check`` answer at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gs_search import __version__
from gs_search.errors import BadInput, GsSearchError, NothingFeasible

if TYPE_CHECKING:
    from gs_search.config import StudyConfig

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130


@dataclasses.dataclass
class _Options:
    """Options that every verb takes, wherever on the line they stand."""

    as_json: bool = False
    debug: bool = False


_STUDY = click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")
_FOLDER = click.argument("folder", type=click.Path(path_type=Path), metavar="RUN_FOLDER")


def _common(command: Command) -> Command:
    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.find_object(_Options), "debug" if parameter.name == "debug" else "as_json", True)

    options: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": remember, "is_eager": True}
    command = click.option("--debug", help="Show the traceback of an error.", **options)(command)
    return click.option("--json", help="Print one JSON document.", **options)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gs-search")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def cli(options: _Options, debug: bool) -> None:
    """Shrink image-to-image GANs: search how far a generator can be slimmed.

    A study file says what to search; `run` leaves its results in a run folder, which the other verbs take.
    """
    options.debug |= debug


@cli.command(short_help="Find every mistake in a study.")
@_STUDY
@click.option("--forecast", is_flag=True, help="Time some training steps, and say what the study will take.")
@_common
@click.pass_obj
def check(options: _Options, study: Path, forecast: bool) -> None:
    """Find every mistake in a study, and in what it names, before anything runs."""
    from gs_search.config import load_study
    from gs_search.preflight import check_inputs

    config = load_study(study)
    check_inputs(config)
    expected = _forecast(config) if forecast else None
    if options.as_json:
        document = {"ok": True, "study": config.study, "problems": [], "resolved": config.to_resolved()}
        _print_json(document if expected is None else {**document, "forecast": expected})
        return
    space = config.space
    trials = f"{config.trials} trials at {config.image_px} px, {config.workers} workers"
    varied = f"{len(space.parameters)} settings vary, {len(space.start_points)} points are tried first"
    click.echo(f"{study}: fine\n  {trials}; {varied}\n  data {config.data.kind}, teacher {config.teacher.kind}")
    if expected is not None:
        from gs_search.search.forecast import render_forecast

        _print_rich(render_forecast(expected))


def _forecast(config: StudyConfig) -> dict[str, Any]:
    from gs_search.search.forecast import forecast

    return forecast(config, lambda line: click.echo(line, err=True))


@cli.command(short_help="Start a study, or continue it.")
@_STUDY
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<study>]")
@click.option("--trials", type=click.IntRange(1), help="Finished trials in all, instead of the study's.")
@click.option("--workers", type=click.IntRange(1, 4096), help="Trials at once, instead of the study's.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Start no trial after so much time.")
@click.option("--retrain-teacher", is_flag=True, help="Train the teacher anew; before the first trial only.")
@click.option(
    "--from",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="RUN_FOLDER",
    help="Take over the students of an earlier study of the same teacher.",
)
@_common
@click.pass_obj
def run(
    options: _Options,
    study: Path,
    out: Path | None,
    trials: int | None,
    workers: int | None,
    hours: float | None,
    retrain_teacher: bool,
    earlier: Path | None,
) -> None:
    """Start a study, or continue it up to its number of trials."""
    from gs_search.config import load_study
    from gs_search.preflight import check_inputs
    from gs_search.runfolder import RunFolder

    config = load_study(study)
    if retrain_teacher:
        _refuse_retraining(config, earlier)
    source = None if earlier is None else RunFolder.find(earlier)
    folder = RunFolder(out or Path("runs") / config.study)
    folder.check(config)
    check_inputs(config)

    from gs_search.search.progress import Progress
    from gs_search.search.runner import run_study

    summary = run_study(
        config,
        folder,
        trials=trials,
        workers=workers,
        hours=hours,
        retrain_teacher=retrain_teacher,
        earlier=source,
        progress=Progress(),
    )
    if options.as_json:
        _print_json({**dataclasses.asdict(summary), "folder": str(folder.path)})
    again = f"gs-search run {study}" + (f" --out {out}" if out else "")
    if summary.ending == "interrupted":
        click.echo(f"stopped with {summary.finished} of {summary.total} trials; go on with: {again}", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    if not summary.front and summary.finished >= summary.total:
        if summary.infeasible:
            raise NothingFeasible(
                f"{folder.path}: none of {summary.infeasible} students keeps the constraints; the nearest: "
                f"gs-search front {folder.path}"
            )
        raise NothingFeasible(f"{folder.path}: all trials ended without a result; see trials/*/result.json")
    if not options.as_json:
        _print_ending(summary, folder.path, again)


def _refuse_retraining(config: StudyConfig, earlier: Path | None) -> None:
    if earlier is not None:
        raise BadInput("--retrain-teacher: students taken over with --from imitate the teacher that is there")
    if config.teacher.kind == "checkpoint":
        raise BadInput("--retrain-teacher: the teacher of this study is a checkpoint, which is taken as it is")
    if config.data.kind == "photos":
        raise BadInput("--retrain-teacher: data of kind photos has no pictures of the target domain")


def _print_ending(summary: Any, folder: Path, again: str) -> None:
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
    click.echo(f"next: gs-search front {folder}; gs-search report {folder}")


@cli.command(short_help="Queue points to be tried next.")
@_FOLDER
@click.option(
    "--point",
    "points",
    multiple=True,
    required=True,
    metavar="JSON",
    help="Setting to value, as in '{\"target_gflops_ratio\": 0.3}'; repeatable. The sampler adds what is missing.",
)
@_common
@click.pass_obj
def enqueue(options: _Options, folder: Path, points: tuple[str, ...]) -> None:
    """Queue points to be tried next, also while the study runs."""
    from gs_search.runfolder import RunFolder
    from gs_search.search.enqueue import enqueue as put_in_queue

    document = put_in_queue(RunFolder.find(folder), points)
    if options.as_json:
        _print_json(document)
        return
    for entry in document["known"]:
        click.echo(f"trial {entry['number']} has this point: {json.dumps(entry['point'])}", err=True)
    more = ", which has all its trials: raise --trials" if document["finished"] >= document["total"] else ""
    click.echo(f"{folder}: {len(document['queued'])} points queued; tried first by the study{more}")


@cli.command(short_help="Show how far a study is.")
@_FOLDER
@_common
@click.pass_obj
def status(options: _Options, folder: Path) -> None:
    """Show how far a study is, also while it runs."""
    from gs_search.runfolder import RunFolder
    from gs_search.status import render_status, study_status

    document = study_status(RunFolder.find(folder))
    _print_json(document) if options.as_json else _print_rich(render_status(document))


@cli.command(short_help="List the students that no other one beats.")
@_FOLDER
@click.option(
    "--dump-images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the pictures behind the FIDs as PNG: DIR/reference/ and DIR/<trial>/.",
)
@_common
@click.pass_obj
def front(options: _Options, folder: Path, dump_images: Path | None) -> None:
    """List the students that no other one beats in FID, GFLOPs and MB at once."""
    from gs_search.front_table import front_document, front_table
    from gs_search.runfolder import RunFolder

    found = RunFolder.find(folder)
    document = front_document(found)
    if dump_images is not None:
        from gs_search import trial

        if dump_images.is_dir() and any(dump_images.iterdir()):
            raise BadInput(f"{dump_images}: is not empty; give --dump-images a new folder")
        trial.dump_images(found, dump_images, [member["number"] for member in document["front"]])
        click.echo(f"pictures in {dump_images}", err=True)
    _print_json(document) if options.as_json else _print_rich(front_table(document))


@cli.command(short_help="Write report.html, figures and pictures.")
@_FOLDER
@_common
@click.pass_obj
def report(options: _Options, folder: Path) -> None:
    """Write report.html: the front as figures and pictures, in one file that needs no network."""
    from gs_search.report import write_report
    from gs_search.runfolder import RunFolder

    path = write_report(RunFolder.find(folder))
    _print_json({"report": str(path), "bytes": path.stat().st_size}) if options.as_json else click.echo(path)


@cli.command(short_help="Make study.db anew from the trials' folders.")
@_FOLDER
@click.option("--force", is_flag=True, help="Also where the database is sound and has all of them.")
@_common
@click.pass_obj
def rebuild(options: _Options, folder: Path, force: bool) -> None:
    """Make the study database anew from trials/*/result.json, after it was damaged or lost.

    A database that is there is kept beside the new one as study.db.damaged-1, -2 and so on. What could not be taken
    over is named on standard error, and `gs-search run` goes on from the new database as from the old one.
    """
    from gs_search.runfolder import RunFolder
    from gs_search.search.rebuild import rebuild_database

    rebuilt = rebuild_database(RunFolder.find(folder), force=force)
    for line in rebuilt.left_out:
        click.echo(f"left out: {line}", err=True)
    if options.as_json:
        _print_json({**dataclasses.asdict(rebuilt), "folder": str(folder)})
        return
    states = ", ".join(f"{count} {name}" for name, count in rebuilt.states.items() if count)
    gaps = f"; without a result: {', '.join(map(str, rebuilt.gaps))}" if rebuilt.gaps else ""
    kept = f"; the old database is {rebuilt.kept}" if rebuilt.kept else ""
    click.echo(f"{rebuilt.database}: {rebuilt.finished} finished trials ({states}){gaps}{kept}")


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, allow_nan=False))


def _print_rich(content: Any) -> None:
    from rich.console import Console

    # A file or a pipe has no width; the tables have at most this one.
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(content)


def _print_error(error: BaseException, options: _Options, exit_code: int) -> None:
    if options.debug:
        import traceback

        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    if not isinstance(error, GsSearchError):
        hint = "" if options.debug else "; --debug shows where"
        message = f"unexpected {type(error).__name__}: {' '.join(message.split())[:300]}{hint}"
    lines = message.splitlines()
    details = [dataclasses.asdict(problem) for problem in getattr(error, "details", [])]
    if options.as_json:
        kind = type(error).__name__
        _print_json({"ok": False, "exit_code": exit_code, "kind": kind, "problems": lines, "details": details})
    for line in lines:
        # Lines that begin with file:line stay as they are, so that an editor can follow them.
        click.echo(line if details else f"error: {line}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _Options()
    try:
        return cli.main(arguments, prog_name="gs-search", standalone_mode=False, obj=options) or 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; Python must not complain at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except GsSearchError as error:
        _print_error(error, options, error.exit_code)
        return error.exit_code
    except Exception as error:
        _print_error(error, options, 1)
        return 1

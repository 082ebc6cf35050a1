"""``gs-search front``: the students that no other one beats, on a screen or in files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gs_search.cli.options import FOLDER, Options, common, print_json, print_rich
from gs_search.errors import BadInput

if TYPE_CHECKING:
    from gs_search.remote import Place
    from gs_search.results.run_folder import RunFolder

__all__ = ["front"]


def _file(option: str, text: str) -> Callable[[Any], Any]:
    """An option that takes a file, or none for standard output."""
    kind = click.Path(dir_okay=False, allow_dash=True)
    return click.option(option, type=kind, is_flag=False, flag_value="-", metavar="[FILE]", help=text)


@click.command(short_help="List the students that no other one beats.")
@FOLDER
@click.option(
    "--dump-images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the pictures behind the FIDs as PNG: DIR/reference/ and DIR/<trial>/.",
)
@click.option(
    "--reevaluate",
    type=click.IntRange(1, 100),
    metavar="K",
    help="First train each member K more times, with other seeds; those that are there count.",
)
@click.option("--workers", type=click.IntRange(1, 4096), help="With --reevaluate: trainings at once.")
@_file("--csv", "The front as CSV, in full precision.")
@_file("--md", "The front as a table in Markdown.")
@_file("--png", "The front as two plots.")
@common
@click.pass_obj
def front(
    options: Options, folder: Place, dump_images: Path | None, reevaluate: int | None, workers: int | None, **files: str
) -> None:
    """List the students that no other one beats in FID, GFLOPs and MB at once.

    --csv, --md and --png write to a file, or, without one, to standard output instead of the table.
    """
    from gs_search.results.front import front_document, front_table
    from gs_search.results.run_folder import RunFolder

    found = RunFolder.find(folder, whole=dump_images is not None or reevaluate is not None)
    printed = _only_one(options, files)
    document = front_document(found)
    if workers is not None and reevaluate is None:
        raise BadInput("--workers: says how many trainings of --reevaluate run at once; give both")
    if reevaluate is not None:
        document = _reevaluated(found, document, reevaluate, workers)
    if dump_images is not None:
        from gs_search.trial.run import dump_images as write_pictures

        if dump_images.is_dir() and any(dump_images.iterdir()):
            raise BadInput(f"{dump_images}: is not empty; give --dump-images a new folder")
        write_pictures(found, dump_images, [member["number"] for member in document["front"]])
        click.echo(f"pictures in {dump_images}", err=True)
    for form, name in files.items():
        if name is not None:
            _write_front(document, form, name)
    if options.as_json:
        print_json(document)
    elif printed is None:
        print_rich(front_table(document))


def _only_one(options: Options, files: Mapping[str, str | None]) -> str | None:
    """Say what goes to standard output instead of the table; raises BadInput where two want to."""
    printed = [form for form, name in files.items() if name == "-"] + ["json"] * options.as_json
    if len(printed) > 1:
        names = " and ".join(f"--{form}" for form in printed)
        raise BadInput(f"{names}: only one goes to standard output; name files for the others")
    if printed == ["png"] and sys.stdout.isatty():
        raise BadInput("--png: a picture is nothing for a terminal; name a file, as in --png front.png")
    return printed[0] if printed else None


def _reevaluated(folder: RunFolder, document: dict[str, Any], seeds: int, workers: int | None) -> dict[str, Any]:
    """Train the members again, and read the front anew."""
    from gs_search.engine.reevaluate import reevaluate
    from gs_search.results.front import front_document

    numbers = [member["number"] for member in document["front"]]
    done = reevaluate(folder, numbers, seeds, workers=workers, note=lambda line: click.echo(line, err=True))
    if done["failed"]:
        click.echo(f"{done['failed']} of {done['run']} trainings failed; the same command tries again", err=True)
    return front_document(folder)


def _write_front(document: dict[str, Any], form: str, name: str) -> None:
    from gs_search.system.files import write_file
    from gs_search.terminal.front_files import front_csv, front_markdown

    if form == "png":
        from gs_search.report.front_png import front_png

        content = front_png(document)
    else:
        content = (front_csv if form == "csv" else front_markdown)(document).encode()
    if name == "-":
        click.echo(content, nl=False)
    else:
        write_file(Path(name), content)
        click.echo(f"written: {name}", err=True)

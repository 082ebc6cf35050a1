"""The verbs that look at a study and leave it as it is: ``status``, ``front``, ``report``."""

from __future__ import annotations

from pathlib import Path

import click

from gs_search.cli.conventions import FOLDER, Options, common, print_json, print_rich
from gs_search.errors import BadInput

__all__ = ["front", "report", "status"]


@click.command(short_help="Show how far a study is.")
@FOLDER
@common
@click.pass_obj
def status(options: Options, folder: Path) -> None:
    """Show how far a study is, also while it runs."""
    from gs_search.runfolder import RunFolder
    from gs_search.status import render_status, study_status

    document = study_status(RunFolder.find(folder))
    print_json(document) if options.as_json else print_rich(render_status(document))


@click.command(short_help="List the students that no other one beats.")
@FOLDER
@click.option(
    "--dump-images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the pictures behind the FIDs as PNG: DIR/reference/ and DIR/<trial>/.",
)
@common
@click.pass_obj
def front(options: Options, folder: Path, dump_images: Path | None) -> None:
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
    print_json(document) if options.as_json else print_rich(front_table(document))


@click.command(short_help="Write report.html, figures and pictures.")
@FOLDER
@common
@click.pass_obj
def report(options: Options, folder: Path) -> None:
    """Write report.html: the front as figures and pictures, in one file that needs no network."""
    from gs_search.report import write_report
    from gs_search.runfolder import RunFolder

    path = write_report(RunFolder.find(folder))
    print_json({"report": str(path), "bytes": path.stat().st_size}) if options.as_json else click.echo(path)

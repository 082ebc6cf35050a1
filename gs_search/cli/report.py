"""``gs-search report``: report.html."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gs_search.cli.options import FOLDER, Options, common, print_json

if TYPE_CHECKING:
    from gs_search.remote import Place

__all__ = ["report"]


@click.command(short_help="Write report.html, figures and pictures.")
@FOLDER
@common
@click.pass_obj
def report(options: Options, folder: Place) -> None:
    """Write report.html: the front as figures and pictures, in one file that needs no network."""
    from gs_search.report import write_report
    from gs_search.results.run_folder import RunFolder

    path = write_report(RunFolder.find(folder))
    print_json({"report": str(path), "bytes": path.stat().st_size}) if options.as_json else click.echo(path)

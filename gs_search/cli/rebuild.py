"""``gs-search rebuild``: study.db anew from the trials' folders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from gs_search.cli.options import FOLDER, Options, common, print_json

if TYPE_CHECKING:
    from gs_search.remote import Place

__all__ = ["rebuild"]


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

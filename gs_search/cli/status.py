"""``gs-search status``: how far a study is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gs_search.cli.options import FOLDER, Options, common, print_json, print_rich

if TYPE_CHECKING:
    from gs_search.remote import Place

__all__ = ["status"]


@click.command(short_help="Show how far a study is.")
@FOLDER
@click.option("--watch", is_flag=True, help="Go on until the run ends; wait for it where it has not begun.")
@click.option(
    "--every",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: time between two looks.",
)
@common
@click.pass_obj
def status(options: Options, folder: Place, watch: bool, every: float) -> None:
    """Show how far a study is, also while it runs, and what to do when it brings nothing any more.

    With --watch a terminal is refreshed; elsewhere a block is printed when something has changed, or with --json one
    document a line at each look. Ctrl-C ends the watching, not the study.
    """
    from gs_search.monitor.status import study_status
    from gs_search.results.run_folder import RunFolder
    from gs_search.terminal.status import render_status
    from gs_search.terminal.status import watch as watch_study

    if watch:
        watch_study(folder, every=every, as_json=options.as_json)
        return
    document = study_status(RunFolder.find(folder))
    print_json(document) if options.as_json else print_rich(render_status(document))

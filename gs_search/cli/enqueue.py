"""``gs-search enqueue``: points to be tried next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from gs_search.cli.options import FOLDER, Options, common, print_json

if TYPE_CHECKING:
    from gs_search.remote import Place

__all__ = ["enqueue"]


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

"""The verb that says what this machine is, and what ``auto`` makes of it: ``info``."""

from __future__ import annotations

import click

from gs_search.cli.options import Options, common, print_json, print_rich

__all__ = ["info"]


@click.command(short_help="Show versions, machine and what auto decides.")
@common
@click.pass_obj
def info(options: Options) -> None:
    """Show versions, processor, memory, GPUs, what auto decides, folders and optional parts: for bug reports."""
    from gs_search.monitor.info import info_document, render_info

    document = info_document()
    print_json(document) if options.as_json else print_rich(render_info(document))

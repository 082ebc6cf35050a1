"""The verb that serves a study to a browser: ``dashboard``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from gs_search.cli.options import ALLOW_HOST, FOLDER, Options, common, print_json

if TYPE_CHECKING:
    from gs_search.dashboard.server import DashboardAddress
    from gs_search.remote import Place

__all__ = ["dashboard"]


@click.command(short_help="Show a study in the browser, also while it runs.")
@FOLDER
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any.  [default: the first free one from 8080 on]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Anything but this machine itself needs the token in the printed address.",
)
@ALLOW_HOST
@click.option("--allow-edit", is_flag=True, help="Let notes be written and files be uploaded.")
@click.option("--open", "open_browser", is_flag=True, help="Open the address in a browser.")
@common
@click.pass_obj
def dashboard(
    options: Options,
    folder: Place,
    port: int | None,
    host: str,
    allow_hosts: tuple[str, ...],
    allow_edit: bool,
    open_browser: bool,
) -> None:
    """Serve Optuna's dashboard of a study: its trials with pictures and notes, its front and its figures.

    It follows a running search, reads only, and ends with Ctrl-C.
    """
    from gs_search.dashboard.server import serve
    from gs_search.remote.joining import following
    from gs_search.results.run_folder import RunFolder

    def announce(address: DashboardAddress) -> None:
        if options.as_json:
            print_json(
                {
                    "url": address.url,
                    "host": address.host,
                    "port": address.port,
                    "token": address.token,
                    "allow_edit": address.allow_edit,
                }
            )
            return
        click.echo(address.url)
        click.echo("notes can be written" if allow_edit else "read-only; --allow-edit lets notes be written", err=True)
        if address.token is not None:
            click.echo("whoever has this address can look: it is not encrypted on its way", err=True)
        click.echo("Ctrl-C ends it", err=True)

    found = RunFolder.find(folder, whole=True)
    # Not with --allow-edit: what is written here would be lost with the next copy.
    follows = found.mirror is not None and not allow_edit
    with following(lambda: found.refresh(whole=True)) if follows else nullcontext():
        serve(
            found,
            host=host,
            port=port,
            allow_hosts=allow_hosts,
            allow_edit=allow_edit,
            open_browser=open_browser,
            announce=announce,
        )

"""The verb that shows a student on a phone: ``phone``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gs_search.cli.options import ALLOW_HOST, Options, PlaceType, common, print_json

if TYPE_CHECKING:
    from gs_search.phone.server import PhoneAddress
    from gs_search.remote import Place

__all__ = ["phone"]


@click.command(short_help="Run an exported student in the browser of a phone.")
@click.argument("folder", type=PlaceType(), metavar="[RUN_FOLDER]", required=False)
@click.option("--trial", type=click.IntRange(0), help="The file of this trial.  [default: what was exported last]")
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="This exported file.")
@click.option("--float", "floats", is_flag=True, help="The file in floats, not the one in whole numbers.")
@click.option("--teacher", is_flag=True, help="Run the teacher beside it.")
@click.option("--lan", is_flag=True, help="Let phones of this network in, with the token in the printed address.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on, where --lan finds the wrong one.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any.  [default: the first free one from 8090 on]",
)
@ALLOW_HOST
@click.option("--open", "open_browser", is_flag=True, help="Open the address in a browser of this machine.")
@click.option("--fetch-runtime", is_flag=True, help="Fetch onnxruntime-web into the cache first; once is enough.")
@common
@click.pass_obj
def phone(
    options: Options,
    folder: Place | None,
    trial: int | None,
    file: Path | None,
    floats: bool,
    teacher: bool,
    lan: bool,
    host: str | None,
    port: int | None,
    allow_hosts: tuple[str, ...],
    open_browser: bool,
    fetch_runtime: bool,
) -> None:
    """Serve one page that runs an exported student on a photo, in the browser: its picture, milliseconds, megabytes.

    Photos stay on the phone. The page loads nothing from elsewhere; what runs the files comes from npm's registry,
    once, by --fetch-runtime. Ctrl-C ends it.
    """
    from gs_search.errors import BadInput
    from gs_search.phone import runtime

    if folder is None and not fetch_runtime:
        raise BadInput("phone: which run folder? Give it, or --fetch-runtime alone to fill the cache")
    if fetch_runtime:
        found = runtime.fetch_runtime(lambda line: click.echo(line, err=True))
        if folder is None:
            told = {"package": runtime.PACKAGE, "version": found.version, "folder": str(found.folder)}
            print_json(told) if options.as_json else click.echo(f"{runtime.PACKAGE} {found.version}: {found.folder}")
            return
        click.echo(f"{runtime.PACKAGE} {found.version}: {found.folder}", err=True)
    assert folder is not None

    from gs_search.phone.server import serve
    from gs_search.results.run_folder import RunFolder

    def announce(address: PhoneAddress) -> None:
        _announce(address, options)

    serve(
        RunFolder.find(folder, whole=True),
        trial=trial,
        file=file,
        floats=floats,
        teacher=teacher,
        lan=lan,
        host=host,
        port=port,
        allow_hosts=allow_hosts,
        open_browser=open_browser,
        announce=announce,
        log=lambda line: click.echo(line, err=True),
    )


def _announce(address: PhoneAddress, options: Options) -> None:
    models = [model for model in (address.student, address.teacher) if model is not None]
    if options.as_json:
        told = {"url": address.url, "host": address.host, "port": address.port, "token": address.token}
        files = dict(zip(("student", "teacher"), (str(model.file) for model in models), strict=False))
        print_json(told | {"teacher": None} | files)
        return
    from gs_search.phone.qr import qr_code

    click.echo(address.url)
    for model in models:
        click.echo(f"{model.label}: {model.file.name}, {model.mb:.3g} MB", err=True)
    if address.token is None:
        click.echo("for this machine alone; --lan lets phones in", err=True)
    else:
        code = qr_code(address.url, colours=sys.stderr.isatty())
        click.echo(code or "pip install 'gs-search[phone]' prints the address as a QR code", err=True)
        click.echo("whoever has this address can look: it is not encrypted on its way", err=True)
    click.echo("Ctrl-C ends it", err=True)

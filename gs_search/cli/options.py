"""What all verbs have in common: the options that each takes, and how results and errors are printed.

Results go to standard output (one JSON document with ``--json``), everything else to standard error. Exit
codes: 0 fine, 2 bad input, 3 nothing feasible, 130 interrupted, 1 anything else.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gs_search.errors import GsSearchError
from gs_search.remote import Place, is_remote

__all__ = [
    "ALLOW_HOST", "FOLDER", "INTERRUPTED", "STUDY", "Options", "PlaceType", "common", "print_error", "print_json",
    "print_rich",
]  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130


@dataclasses.dataclass
class Options:
    """Options that every verb takes, wherever on the line they stand."""

    as_json: bool = False
    debug: bool = False


STUDY = click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")


class PlaceType(click.ParamType):
    """A run folder: a path, or the URI of a folder in an object store, to which goes back what the verb has changed."""

    name = "run folder"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Place:
        """Return a Path, or the URI as it should be written."""
        if not is_remote(value):
            return Path(value)
        from gs_search.remote.joining import send_back
        from gs_search.remote.location import checked

        if context is not None:
            context.call_on_close(send_back)
        return checked(value)


FOLDER = click.argument("folder", type=PlaceType(), metavar="RUN_FOLDER")

ALLOW_HOST = click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this host name too, such as a proxy's on this machine; repeatable. A token needs no such name.",
)


def common(command: Command) -> Command:
    """Give a verb ``--json`` and ``--debug``."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.find_object(Options), "debug" if parameter.name == "debug" else "as_json", True)

    options: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": remember, "is_eager": True}
    command = click.option("--debug", help="Show the traceback of an error.", **options)(command)
    return click.option("--json", help="Print one JSON document.", **options)(command)


def print_json(document: Any) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(document, indent=1, allow_nan=False))


def print_rich(content: Any) -> None:
    """Print a result for people."""
    from rich.console import Console

    # A file or a pipe has no width; the tables have at most this one.
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(content)


def print_error(error: BaseException, options: Options, exit_code: int) -> None:
    """Print an error: a line or several, and the traceback with ``--debug``."""
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
        print_json({"ok": False, "exit_code": exit_code, "kind": kind, "problems": lines, "details": details})
    for line in lines:
        # Lines that begin with file:line stay as they are, so that an editor can follow them.
        click.echo(line if details else f"error: {line}", err=True)

"""The command line. What a verb needs is imported when it runs, so that ``--help`` and ``check`` answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from gs_search import __version__
from gs_search.cli.check import check
from gs_search.cli.dashboard import dashboard
from gs_search.cli.enqueue import enqueue
from gs_search.cli.export import export
from gs_search.cli.front import front
from gs_search.cli.info import info
from gs_search.cli.init import init
from gs_search.cli.inspect import inspect
from gs_search.cli.options import INTERRUPTED, Options, print_error
from gs_search.cli.phone import phone
from gs_search.cli.pick import pick
from gs_search.cli.rebuild import rebuild
from gs_search.cli.report import report
from gs_search.cli.retrain import retrain
from gs_search.cli.run import run
from gs_search.cli.status import status
from gs_search.cli.submit import submit
from gs_search.errors import GsSearchError

__all__ = ["cli", "main"]

VERBS = (
    inspect,
    init,
    check,
    run,
    submit,
    enqueue,
    status,
    front,
    pick,
    retrain,
    export,
    phone,
    report,
    dashboard,
    rebuild,
    info,
)
"""In the order in which people need them, and in which ``--help`` lists them."""


class _InOrder(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gs-search")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def cli(options: Options, debug: bool) -> None:
    """Shrink image-to-image GANs: search how far a generator can be slimmed.

    A study file says what to search; `run` leaves its results in a run folder, which the other verbs take.
    """
    options.debug |= debug


for _verb in VERBS:
    cli.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = Options()
    try:
        return cli.main(arguments, prog_name="gs-search", standalone_mode=False, obj=options) or 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; Python must not complain at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except GsSearchError as error:
        print_error(error, options, error.exit_code)
        return error.exit_code
    except Exception as error:
        print_error(error, options, 1)
        return 1

"""The verb that takes one student of a front: ``pick``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gs_search.cli.options import FOLDER, Options, common, print_json, print_rich
from gs_search.remote import Place

__all__ = ["pick", "wishes"]

Command = TypeVar("Command", bound=Callable[..., Any])

ABOVE_0 = click.FloatRange(0, min_open=True)


def _fid(context: click.Context, parameter: click.Parameter, value: str | None) -> float | str | None:
    from gs_search.study.constraints import fid_above_teacher

    if value is None or fid_above_teacher(value) is not None:
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor like teacher+10") from None


def _weights(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in (value or "").split(",") if value else []:
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        try:
            number = float(weight)
        except ValueError:
            raise click.BadParameter(f"{part.strip()!r} is not like fid=2") from None
        if name in weights:
            raise click.BadParameter(f"{name} is there twice")
        weights[name] = number
    return weights


WISHES = (
    click.option("--max-gflops", type=ABOVE_0, help="Best FID with at most so many GFLOPs."),
    click.option("--max-mb", type=ABOVE_0, help="Best FID with at most so many MB."),
    click.option("--max-latency-ms", type=ABOVE_0, help="Best FID with at most so many milliseconds a picture."),
    click.option("--max-fid", callback=_fid, metavar="FID", help="Cheapest with at most this FID: 60, or teacher+10."),
    click.option(
        "--weights",
        callback=_weights,
        metavar="NAME=W,...",
        help="Balanced by weights, as in fid=2,gflops=1,size_mb=1.",
    ),
    click.option("--trial", type=click.IntRange(0), help="This trial, whatever the figures say."),
)


def wishes(command: Command) -> Command:
    """Give a verb the options that choose one trial, by the names of ``pick.Wish``."""
    for option in reversed(WISHES):
        command = option(command)
    return command


@click.command(short_help="Take one student of the front, and say why.")
@FOLDER
@wishes
@click.option("--save", is_flag=True, help="Record the choice in the run folder, as pick.json.")
@common
@click.pass_obj
def pick(options: Options, folder: Place, save: bool, **wish: Any) -> None:
    """Take one student of the front, and say why: the most balanced one, unless options say otherwise.

    Limits hold together: the best FID inside all of them. --max-fid alone takes the cheapest student that is good
    enough: the fewest GFLOPs, and of equal ones the fewest MB.
    """
    from gs_search.results.pick import Wish, pick_document, save_pick
    from gs_search.results.run_folder import RunFolder
    from gs_search.terminal.pick import pick_table

    found = RunFolder.find(folder)
    document = pick_document(found, Wish(**wish))
    path = save_pick(found, document) if save else None
    print_json(document) if options.as_json else print_rich(pick_table(document))
    if path is not None:
        click.echo(f"recorded in {path}", err=True)

"""The verb that hands a study to a cluster: ``submit``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from gs_search.cli.options import STUDY, Options, common, print_json
from gs_search.errors import GsSearchError

__all__ = ["submit"]


@click.command(short_help="Hand a study to a Ray cluster, as a job.")
@STUDY
@click.option(
    "--out", required=True, metavar="DIR|URI", help="Run folder: an absolute path that all nodes share, or s3://…"
)
@click.option("--address", metavar="http://HEAD:8265", help="The cluster.  [default: RAY_API_SERVER_ADDRESS]")
@click.option("--trials", type=click.IntRange(1), help="Finished trials in all, instead of the study's.")
@click.option("--workers", type=click.IntRange(1, 4096), help="Trials at once, instead of the study's.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Start no trial after so much time.")
@click.option("--insecure", is_flag=True, help="Take a Ray cluster that lets everyone in who reaches it.")
@click.option("--detach", is_flag=True, help="Return at once, and do not follow the log.")
@common
@click.pass_obj
def submit(
    options: Options,
    study: Path,
    out: str,
    address: str | None,
    trials: int | None,
    workers: int | None,
    hours: float | None,
    insecure: bool,
    detach: bool,
) -> None:
    """Hand a study to a Ray cluster as a job of Ray's, and follow its log; Ctrl-C leaves, and the job goes on.

    The package, the study, its search space and the code of a network of your own travel. Pictures and checkpoints do
    not: their paths must be there on all nodes. So must the packages that gs-search needs, in the versions of this
    machine.
    """
    from gs_search.engine.ray import follow
    from gs_search.engine.ray import submit as hand_over

    said = {"--trials": trials, "--workers": workers, "--hours": hours}
    passed = [text for name, value in said.items() if value is not None for text in (name, str(value))]
    submission = hand_over(study, address=address, out=out, options=[*passed, *(["--insecure"] if insecure else [])])
    told = dataclasses.asdict(submission)
    where = f"--address {submission.address}"
    click.echo(f"{submission.job}: submitted; its results come to {out}", err=True)
    for verb in ("logs --follow", "status", "stop"):
        click.echo(f"  ray job {verb} {submission.job} {where}", err=True)
    if detach:
        if options.as_json:
            print_json({"ok": True, **told})
        else:
            click.echo(submission.job)
        return
    ended = follow(submission, lambda text: click.echo(text, nl=False, err=True))
    if ended != "SUCCEEDED":
        raise GsSearchError(f"job {submission.job} ended as {ended}; its log: ray job logs {submission.job} {where}")
    if options.as_json:
        print_json({"ok": True, **told, "status": ended})
    click.echo(f"{submission.job}: done; gs-search status {out}", err=True)

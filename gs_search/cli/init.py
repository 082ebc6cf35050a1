"""The verb that begins: ``init`` writes a new study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gs_search.cli.options import Options, common, print_json

__all__ = ["init"]

ARCHITECTURES = ("auto", "cyclegan_resnet", "cartoongan", "pix2pix_unet", "animeganv2")
PLACE = click.Path(path_type=Path)


@click.command(short_help="Write a new study, by asking or from options.")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--checkpoint", type=PLACE, metavar="FILE", help="The trained generator: .pth, .pt or .safetensors.")
@click.option("--architecture", type=click.Choice(ARCHITECTURES), help="What it is, if the file does not tell.")
@click.option("--key", metavar="KEY", help="Which generator, if the file holds several; `inspect` names them.")
@click.option("--photos", type=PLACE, metavar="DIR", help="Photos for it to translate.")
@click.option("--source", type=PLACE, metavar="DIR", help="Pictures to translate, beside --target.")
@click.option("--target", type=PLACE, metavar="DIR", help="Pictures of what they are to look like; no pairs.")
@click.option("--image-px", type=click.IntRange(32, 2048), help="Side of the pictures in trials and measures.")
@click.option("--trials", type=click.IntRange(1, 1_000_000), help="Finished trials in all.")
@click.option("--hours", type=click.FloatRange(0, 10_000, min_open=True), help="Start no trial after so much time.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where trials compute.")
@click.option("--out", type=PLACE, default=Path(), metavar="DIR", help="Write below this folder.  [default: here]")
@click.option("--cluster", type=PLACE, metavar="STUDY.yaml", help="Write files that start a cluster for this study.")
@click.option("--yes", is_flag=True, help="Ask nothing; what is not given gets its default.")
@click.option("--force", is_flag=True, help="Replace a study of the same name.")
@common
@click.pass_obj
def init(
    options: Options, name: str | None, out: Path, cluster: Path | None, yes: bool, force: bool, **said: Any
) -> None:
    """Write a new study: studies/NAME.yaml and search_spaces/NAME.yaml, with comments, ready to run.

    On a terminal it asks for what the options leave open. What it writes has passed `gs-search check`; where a file
    or a folder cannot be used it says why, and writes nothing. Without any generator or pictures it is a study on
    drawn data.

    With --cluster it takes a study that is there, and writes STUDY-cluster/: a Ray cluster for `ray up`, a RayJob for
    KubeRay, a script for Slurm, to be completed where they say CHANGE.
    """
    if cluster is not None:
        if name is not None or any(value is not None for value in said.values()):
            raise click.UsageError("--cluster takes a study that is there: no name, and no option of a new one")
        _write_cluster_files(options, cluster, out, force=force)
        return
    from gs_search.study.wizard import Wishes, ask, make_plan, write_study

    wishes = Wishes(name=name, **said)
    if sys.stdin.isatty() and not yes:
        wishes = ask(wishes, out, _prompt, lambda line: click.echo(line, err=True), force=force)
    written = write_study(make_plan(wishes, out), out, force=force)
    for note in written.notes:
        click.echo(f"note: {note}", err=True)
    config = written.config
    if options.as_json:
        document = {"ok": True, "study": str(written.study), "space": str(written.space), "notes": list(written.notes)}
        print_json({**document, "resolved": config.to_resolved()})
        return
    click.echo(
        f"{written.study} and {written.space}: written, and gs-search check finds no mistake\n"
        f"  {config.trials} trials at {config.image_px} px; data {config.data.kind}, teacher {config.teacher.kind}\n"
        f"next: gs-search check {written.study} --forecast; gs-search run {written.study}"
    )


def _write_cluster_files(options: Options, study: Path, out: Path, *, force: bool) -> None:
    from gs_search.engine.ray.manifests import FILES, write_manifests

    written = write_manifests(study, out, force=force)
    if options.as_json:
        print_json({"ok": True, "files": [str(path) for path in written]})
        return
    click.echo(f"{written[0].parent}: {', '.join(FILES)} written; complete them where they say CHANGE")


def _prompt(question: str, default: str) -> str:
    answer: str = click.prompt(question, default=default, show_default=bool(default), err=True)
    return answer

"""The verb ``inspect``: what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gs_search.cli.options import Options, common, print_json

__all__ = ["inspect"]


@click.command(short_help="Say what a checkpoint holds, and what a study has to say.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--key", metavar="KEY", help="Only this one of the generators in it.")
@common
@click.pass_obj
def inspect(options: Options, file: Path, key: str | None) -> None:
    """Say what a checkpoint holds: architecture, layers, multiply-adds, norms, what pictures it takes, and the lines
    that a study needs for it.

    Nothing of the file is run. Where it is no checkpoint, or of no known layout, it says what it is, or which layout
    comes nearest and where it differs first. --json lists every layer.
    """
    from gs_search.networks import inspect_file

    document = inspect_file(file, key)
    if options.as_json:
        print_json(document)
        return
    generators = document["generators"]
    count = f"{len(generators)} generators; teacher.key chooses" if len(generators) > 1 else "a generator"
    click.echo(f"{file}: {document['bytes'] / 1e6:.2f} MB, {count}")
    for generator in generators:
        click.echo(_told(generator))


def _told(generator: dict[str, Any]) -> str:
    """One generator in a few lines, then the lines for a study."""
    described, convention = generator["architecture"], generator["convention"]
    what = "halvings" if described["name"] == "pix2pix_unet" else "residual blocks"
    size = f"{described['width']} channels, {described['blocks']} {what}"
    scales = "with" if generator["affine"] else "without"
    px = generator["image_px"]
    channels = "grey" if convention["channels_in"] == 1 else convention["order"]
    lines = [
        f"  {generator['key'] or 'generator'}: {described['name']}, {size}",
        f"    layers     {len(generator['layers'])} convolutions, {generator['parameters']:,} parameters "
        f"({', '.join(generator['dtypes'])})",
        f"    cost       {generator['multiply_adds'] / 1e9:.3f} G multiply-adds in convolutions at {px} px",
        f"    norms      {generator['norm']}; {scales} scales and shifts",
        f"    pictures   {channels}, in [-1, 1], sides a multiple of {convention['multiple']}",
        *(f"    note       {note}" for note in generator["notes"]),
        "",
        *(f"    {line}" for line in generator["study"].splitlines()),
    ]
    return "\n".join(lines)

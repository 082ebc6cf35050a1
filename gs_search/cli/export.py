"""The verb that hands over files for devices: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gs_search.cli.options import FOLDER, Options, common, print_json, print_rich
from gs_search.remote import Place

__all__ = ["export"]


def _formats(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


def _size(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "free":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number of pixels nor free") from None


@click.command(short_help="Write a student as ONNX, in whole numbers, and prove it.")
@FOLDER
@click.option("--trial", type=click.IntRange(0), help="The student of this trial.")
@click.option("--retrained", type=click.IntRange(0), help="The retrained student of this trial.")
@click.option("--saved", is_flag=True, help="What `pick --save` recorded, retrained if it was; so without an option.")
@click.option(
    "--format",
    "formats",
    default="onnx,onnx-float",
    show_default=True,
    callback=_formats,
    metavar="NAME,...",
    help="onnx (whole numbers), onnx-float, packed, executorch (whole numbers), executorch-float, coreml.",
)
@click.option(
    "--size",
    default="free",
    show_default=True,
    callback=_size,
    metavar="PX|free",
    help="Sides of the pictures; files of ExecuTorch and Core ML take the study's instead of free ones.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder [default: exports/]."
)
@click.option(
    "--vnni", is_flag=True, help="Signed weights throughout: faster with VNNI, wrong on other x86 processors."
)
@click.option("--licence", metavar="TEXT", help="Licence of the teacher, to be written into the files.")
@common
@click.pass_context
def export(
    context: click.Context,
    folder: Place,
    trial: int | None,
    retrained: int | None,
    saved: bool,
    size: int | None,
    formats: tuple[str, ...],
    out: Path | None,
    licence: str | None,
    vnni: bool,
) -> None:
    """Write a student's files, prove that they are the student, and measure them: FID, bytes, milliseconds, memory.

    ExecuTorch's files need the extra "mobile", Core ML's the extra "coreml"; the latter is converted, not run.
    Every convolution of an integer file is run alone and compared with the student's layer, code for code. A file
    that is not what it says is not left behind, and the exit code is 1.
    """
    from gs_search.export.student import find_student
    from gs_search.results.run_folder import RunFolder

    options: Options = context.obj
    found = RunFolder.find(folder, whole=True)
    chosen = find_student(found, trial=trial, retrained=retrained, saved=saved)

    from gs_search.export.onnx.float_graph import import_onnx

    import_onnx()
    from gs_search.export.export import export_student
    from gs_search.terminal.export import export_table

    click.echo(f"exporting {chosen.label}", err=True)
    document: dict[str, Any] = export_student(
        found,
        chosen,
        formats,
        image_px=size,
        out=out,
        licence=licence,
        vnni=vnni,
        log=lambda line: click.echo(f"  {line}", err=True),
    )
    place = str(out or found.exports)
    print_json(document) if options.as_json else print_rich(export_table(document, place))
    if not document["ok"]:
        for entry in document["files"]:
            for problem in entry["problems"]:
                click.echo(f"error: {entry['format']}: {problem}", err=True)
        context.exit(1)

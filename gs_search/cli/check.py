"""``gs-search check``: every mistake in a study, and what it will take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gs_search.cli.options import STUDY, Options, common, print_json, print_rich

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["check"]


@click.command(short_help="Find every mistake in a study.")
@STUDY
@click.option("--forecast", is_flag=True, help="Time some training steps, and say what the study will take.")
@click.option("--samples", is_flag=True, help="Write what the teacher paints to <study>_teacher.png, and judge it.")
@common
@click.pass_obj
def check(options: Options, study: Path, forecast: bool, samples: bool) -> None:
    """Find every mistake in a study, and in what it names, before anything runs.

    --samples has the teacher paint six of the photos (first row: the photos, second: what it paints), and warns where
    colours look swapped or the range of the values is off.
    """
    from gs_search.study.config import load_study
    from gs_search.study.preflight import check_inputs, teacher_notes
    from gs_search.study.views import FEATURE_BYTES, picture_bytes, usual_views

    config = load_study(study)
    tallies = check_inputs(config)
    notes = teacher_notes(config)
    frozen = _teacher(config, notes, samples) if samples or config.teacher.kind in ("checkpoint", "module") else None
    views = usual_views(config, tallies[0].taken["train"] if tallies else config.data.train)
    expected = _forecast(config) if forecast else None
    if options.as_json:
        document = {"ok": True, "study": config.study, "problems": [], "notes": notes}
        document["pictures"] = [tally.to_json() for tally in tallies]
        document["views"] = {who: asdict(count) for who, count in views.items()}
        document |= {"frozen": frozen, "resolved": config.to_resolved()}
        print_json(document if expected is None else {**document, "forecast": expected})
        return
    space = config.space
    trials = f"{config.trials} trials at {config.image_px} px, {config.workers} workers"
    varied = f"{len(space.parameters)} settings vary, {len(space.start_points)} points are tried first"
    click.echo(f"{study}: fine\n  {trials}; {varied}\n  data {config.data.kind}, teacher {config.teacher.kind}")
    for tally in tallies:
        click.echo(f"  {tally.line()}")
    for who, count in views.items():
        megabytes = count.views * picture_bytes(config.image_px) / 1e6
        features = f", beside up to {FEATURE_BYTES / 1e6:.0f} MB of features" if who == "trials" else ""
        click.echo(f"  {who}: {count}; {megabytes:.0f} MB of disk{features}")
    for note in [*(line for tally in tallies for line in tally.notes()), *notes]:
        click.echo(f"note: {note}", err=True)
    if expected is not None:
        from gs_search.forecast.forecast import render_forecast

        print_rich(render_forecast(expected))


def _teacher(config: StudyConfig, notes: list[str], samples: bool) -> dict[str, Any] | None:
    """What of the teacher cannot be slimmed, and what looks wrong in its pictures; lines of it go to ``notes``."""
    from gs_search.data import open_data
    from gs_search.trial.samples import first_pictures, range_warnings, teacher_samples
    from gs_search.trial.teacher import frozen_json, frozen_lines, given_generator, slimmable_teacher

    if config.teacher.kind == "train":
        notes.append("teacher: it is trained when the study begins, and has no pictures yet")
        return None
    generator, _ = given_generator(config)
    found: list[str] = []
    if samples or config.teacher.kind == "module":
        source = open_data(config.data, config.image_px, config.seed).source("val")
        if samples:
            painted, path = teacher_samples(config, generator, source), Path(f"{config.study}_teacher.png")
            painted.write(path)
            found += painted.warnings
            rows = "photos, and what the teacher paints of them"
            rows += "; third row: with red and blue exchanged" if painted.exchanged is not None else ""
            notes.append(f"teacher: {path} has {rows}")
        else:
            found += range_warnings(config, first_pictures(source), generator)
    notes += [f"warning, teacher: {line}" for line in found]
    teacher = slimmable_teacher(config, generator)
    notes += [f"teacher: {line}" for line in frozen_lines(teacher)]
    return frozen_json(teacher)


def _forecast(config: StudyConfig) -> dict[str, Any]:
    from gs_search.forecast.forecast import forecast

    return forecast(config, lambda line: click.echo(line, err=True))

"""The verb that trains in full: ``retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gs_search.cli.options import FOLDER, INTERRUPTED, Options, common, print_json, print_rich
from gs_search.cli.pick import wishes
from gs_search.errors import BadInput

if TYPE_CHECKING:
    from gs_search.remote import Place
    from gs_search.results.record import FullRecord, TrialRecord
    from gs_search.results.run_folder import RunFolder
    from gs_search.terminal.retrain import Display

__all__ = ["retrain"]


@click.command(short_help="Train a student of the front in full.")
@FOLDER
@wishes
@click.option("--saved", is_flag=True, help="The trial that `pick --save` has recorded.")
@click.option("--front", type=click.IntRange(1), metavar="K", help="K members of the front, the knee first.")
@click.option("--steps", type=click.IntRange(1, 10_000_000), help="Training steps, instead of the study's.")
@click.option("--epochs", type=click.FloatRange(0, 1e6, min_open=True), help="The same, in passes over the pictures.")
@click.option("--batch-size", type=click.IntRange(1, 65536), help="Pictures a step, of all workers together.")
@click.option("--num-workers", type=click.IntRange(1, 1024), help="Processes that train together, one a core or GPU.")
@click.option("--force", is_flag=True, help="Begin anew, in place of what is there.")
@common
@click.pass_obj
def retrain(
    options: Options,
    folder: Place,
    saved: bool,
    front: int | None,
    steps: int | None,
    epochs: float | None,
    batch_size: int | None,
    num_workers: int | None,
    force: bool,
    **wish: Any,
) -> None:
    """Train a student of the front in full: from the teacher, for many more steps, and measure it on pictures that
    nothing has seen.

    Which one is chosen as by `pick`: the most balanced one, unless options say otherwise. Ctrl-C leaves a checkpoint,
    and the same command goes on; what is finished is shown again. With --front several are trained, one after the
    other, to see whether short trials foretell full ones.
    """
    from gs_search.results.pick import Wish
    from gs_search.results.run_folder import RunFolder
    from gs_search.retrain.schedule import Asked
    from gs_search.retrain.selection import check_teacher, chosen, picked, spread
    from gs_search.terminal.retrain import Display

    asked = Asked(steps=steps, epochs=epochs, batch_size=batch_size, workers=num_workers)
    found, wanted = RunFolder.find(folder, whole=True), Wish(**wish)
    check_teacher(found)
    if front is not None:
        if saved or wanted != Wish():
            raise BadInput("--front takes members of the front by itself: give it alone, or the other options")
        trials = spread(found, front)
    else:
        trials = [chosen(found, wanted, saved=saved)]
        recorded = picked(found) if wanted == Wish() and not saved else None
        if recorded not in (None, trials[0].number):
            click.echo(f"note: trial {recorded} is recorded as the pick; --saved trains that one", err=True)
    with Display() as display:
        records = [_one(found, trial, asked, display, force) for trial in trials]
    _print(options, found, records)


def _one(folder: RunFolder, trial: TrialRecord, asked: Any, display: Display, force: bool) -> FullRecord:
    from gs_search.retrain.retrain import Interrupted
    from gs_search.retrain.retrain import retrain as train
    from gs_search.system.signals import interruption

    display.note(f"trial {trial.number}; results in {folder.retrained(trial.number)}")
    with interruption(display.note, "stopping after this step") as stop:
        try:
            return train(folder, trial, asked, stop=stop, note=display.note, on_progress=display.progress, force=force)
        except Interrupted as stopped:
            display.close()
            again = f"gs-search retrain {folder} --trial {trial.number}"
            click.echo(f"{stopped}; go on with: {again}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        finally:
            display.close()


def _print(options: Options, folder: RunFolder, records: list[FullRecord]) -> None:
    from gs_search.retrain.summary import write_summary
    from gs_search.terminal.retrain import retrain_table, summary_lines

    summary = write_summary(folder, records[-1].schedule)
    assert summary is not None
    if options.as_json:
        print_json({"retrained": [record.to_json() for record in records], "summary": summary, "folder": str(folder)})
        return
    baselines = folder.measured()
    for record in records:
        print_rich(retrain_table(record, baselines))
    if len(summary["points"]) > 1:
        for line in summary_lines(summary):
            click.echo(line)

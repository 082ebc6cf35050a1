"""What stopping early would have saved a study that ran without: its rule, replayed on the trials in their order.

    python -m benchmarks.stopping RUN_FOLDER

The study has ``stopping: {rule: off, rungs: [...]}``, so that every trial went to its end and told of each rung. For
each margin and each set of rungs: who would have been left, what compute that is, and what hypervolume is left. What
the sampler would have proposed instead is not replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import click

from benchmarks.report import environment, number, table
from gs_search.results.front import finished_students
from gs_search.results.pareto import OBJECTIVES, front_indices, hypervolume, reference_point
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.stopping import Rungs, agreement

MARGINS = (0.1, 0.25, 0.5, 1.0)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    """Print the tables."""
    found = finished_students(RunFolder.find(folder))
    trials, corner = found.complete, reference_point(found.baselines)
    ranks = ", ".join(f"{step} steps: {rank:.2f}" for step, (rank, _) in agreement(trials).items())
    click.echo(environment(trials=len(trials), seconds=round(sum(t.seconds or 0.0 for t in trials))))
    click.echo(f"\nRank correlation of the distance at each rung with the final FID: {ranks}\n")
    steps = [rung.step for rung in trials[0].rungs]
    rows = [
        _replayed(trials, corner, list(upto), margin)
        for upto in accumulate(([step] for step in steps), lambda a, b: [*a, *b])
        for margin in MARGINS
    ]
    titles = ["rungs", "margin, dB", "left", "of these on the front", "compute", "hypervolume kept"]
    click.echo(table(titles, rows))


def _replayed(trials: Sequence[TrialRecord], corner: Sequence[float], steps: list[int], margin: float) -> list[str]:
    rungs, spent, left = Rungs("pareto", margin), 0.0, list[int]()
    for trial in trials:
        told = (rung for rung in trial.rungs if rung.step in steps)
        cut = next((rung for rung in told if rungs.judge(trial.number, rung) is not None), None)
        spent += (trial.seconds or 0.0) if cut is None else cut.seconds
        left += [] if cut is None else [trial.number]
    points = {trial.number: [trial.values[name] for name in OBJECTIVES] for trial in trials}
    front = {list(points)[index] for index in front_indices(list(points.values()))}
    whole = hypervolume(list(points.values()), corner)
    kept = hypervolume([point for key, point in points.items() if key not in left], corner)
    return [
        ", ".join(map(str, steps)),
        f"{margin:g}",
        str(len(left)),
        str(len(front & set(left))),
        f"{100 * spent / sum(trial.seconds or 0.0 for trial in trials):.0f} %",
        f"{number(100 * kept / whole, 1)} %",
    ]


if __name__ == "__main__":
    main()

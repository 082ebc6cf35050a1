"""How fast searches find the front: samplers and stopping, replayed on a table of real trials with a virtual clock.

    OMP_NUM_THREADS=1 python -m benchmarks.search [--quick]

``benchmarks/data/quickstart_trials.jsonl`` (made by ``benchmarks.search_table``) is learned, and the study's own
searcher, database, samplers and rungs run on what was learned, without Ray. Hypervolume of the finished students, noise
taken off, against the processor seconds of the workers; twenty seeds, also in a space without ``target_gflops_ratio``.
With five seeds: margins of the stopping rule, ideas that were tried, eight workers, a rougher truth, and the table's
own points without any model. An hour on two cores; ``--quick`` some ten; a stopped run continues.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.report import environment, publish
from benchmarks.rows import Case, Row, Rows
from benchmarks.search_policies import IDEAS, POLICIES, RANDOM, STOPS, WORKERS, Policy, set_up
from benchmarks.search_report import SHARES, comparison, plot, quality
from benchmarks.search_table import TABLE, WEIGHTS, read, study_config

BASELINES = TABLE.with_name("quickstart_baselines.json")

TRIALS = 120
"""The whole budget: processor seconds of so many trials of the table."""

EVERY = {**POLICIES, **STOPS, **IDEAS, **WORKERS}

CHECKED = (RANDOM, "random", "random, stopping", "TPE", "TPE, stopping", "surrogate", "surrogate, stopping")
"""Policies in the other worlds."""

BLIND = (RANDOM, "TPE, no start", "surrogate, no start")
"""Policies in a space without ``target_gflops_ratio``, whose start points do not apply there."""

WORLDS = ("learned", "rugged", "pool", "weights")

SLOW = "gp"
"""Sampler of which fewer seeds are run: it takes seconds to ask."""

FEW = 5
"""Seeds of all that only tells whether the main table would look different."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/search]")
@click.option("--table", "path", type=click.Path(dir_okay=False, path_type=Path), default=TABLE, help="Another table.")
@click.option("--processes", default=2, show_default=True)
@click.option("--quick", is_flag=True, help="Fewer seeds and policies.")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
@click.option("--report-only", is_flag=True, help="Tables of what is there so far.")
def main(out: Path | None, path: Path, processes: int, quick: bool, tiny: bool, report_only: bool) -> None:
    name = "search-tiny" if tiny else "search-quick" if quick else "search"
    folder = out or Path("runs/benchmarks") / name
    if not path.is_file():
        raise click.ClickException(f"{path} is not there: python -m benchmarks.search_table --keep makes it")
    table = table_of(path)
    trials = 8 if tiny else TRIALS
    rows = Rows(folder, {"table": table.digest(), "weights": _digest(WEIGHTS), "trials": trials})
    ask = cases(name, weights=WEIGHTS.is_file())
    if not report_only:
        rows.measure(ask, functools.partial(measure, path, trials), processes=processes)
    found = rows.of(ask)
    told = environment(
        points=len(table.points), trials_in_the_whole_budget=trials, seconds_of_a_trial=f"{_seconds(table):.1f}"
    )
    worlds = {world: [row for row in found if row["world"] == world] for world in WORLDS}
    publish(
        folder,
        "Search",
        told,
        quality(learned(path, rugged=False)),
        "Samplers and stopping:",
        comparison(worlds["learned"], POLICIES, RANDOM),
        "Margins of the stopping rule, all rungs:",
        comparison(worlds["learned"], {RANDOM: POLICIES[RANDOM], **STOPS}, RANDOM),
        "Ideas:",
        comparison(worlds["learned"], {RANDOM: POLICIES[RANDOM], **IDEAS}, RANDOM),
        "Eight workers:",
        comparison(worlds["learned"], WORKERS, f"{RANDOM}, 8 workers"),
        "A rougher truth (what was learned, and at every point what it got wrong about one of the table's):",
        comparison(worlds["rugged"], {name: POLICIES[name] for name in CHECKED}, RANDOM),
        "Nothing but the table's own points, and half of the seconds that all of them take:",
        comparison(worlds["pool"], {name: POLICIES[name] for name in CHECKED}, RANDOM),
        "A space with `sparsity_weight` in the place of `target_gflops_ratio`, against the usual one:",
        without_target(worlds),
    )
    plot(folder / "search.png", worlds)


def cases(name: str, *, weights: bool = False) -> list[Case]:
    """World, policy, seed; the most telling ones first."""
    seeds = {"search": 20, "search-quick": 4, "search-tiny": 1}[name]
    worlds: dict[str, list[str]] = {"learned": list(EVERY), "pool": list(CHECKED), "rugged": list(CHECKED)}
    if name == "search-quick":
        worlds = {"learned": [p for p in POLICIES if POLICIES[p].sampler != SLOW], "pool": list(CHECKED)}
    if name == "search-tiny":
        worlds = {"learned": [RANDOM, "TPE, stopping", "surrogate"], "pool": [RANDOM], "rugged": [RANDOM]}
    if weights:
        worlds["weights"] = list(BLIND)
    return [
        {"world": world, "policy": policy, "seed": seed}
        for seed in range(seeds)
        for world, policies in worlds.items()
        for policy in policies
        if seed < FEW or not (EVERY[policy].sampler == SLOW or policy not in POLICIES or world in ("pool", "rugged"))
    ]


def measure(path: Path, trials: int, case: Case) -> dict[str, Any]:
    """Simulate one search."""
    import torch

    from benchmarks.search_clock import simulate
    from benchmarks.search_pool import Pool, nearest_left

    torch.set_num_threads(1)
    policy = EVERY[case["policy"]]
    table = table_of(WEIGHTS if case["world"] == "weights" else path)
    world: Any = Pool(table) if case["world"] == "pool" else learned(
        WEIGHTS if case["world"] == "weights" else path, rugged=case["world"] == "rugged"
    )  # fmt: skip
    # The same seconds in every space.
    budget = trials * _seconds(table_of(path)) if case["world"] != "pool" else len(table.points) * _seconds(table) / 2
    space = table.of_points() if case["world"] == "pool" else table.space
    database, rungs = set_up(policy, study_config(), space, case["seed"], table.reference)
    if case["world"] == "pool":
        nearest_left(database, table, case["seed"])
    start = time.process_time()
    history = simulate(
        world,
        database,
        rungs,
        steps=tuple(step for step in policy.rungs if step in table.steps),
        workers=policy.workers,
        seconds=policy.share * budget / policy.workers,
    )
    spent = time.process_time() - start
    marks = [(f.clock * policy.workers / budget, list(world.true(f.point).values())) for f in history.finished]
    return {
        "curve": curve(marks, table.reference, policy),
        "finished": len(history.finished),
        "started": history.started,
        "answered": history.answered,
        "stopped": {str(step): count for step, count in sorted(history.stopped.items())},
        "seconds": spent,
    }


def curve(
    marks: Sequence[tuple[float, Sequence[float]]], reference: Sequence[float], policy: Policy
) -> list[float | None]:
    """Hypervolume at each of ``SHARES``, in shares of the box; None beyond the policy's own budget.

    Args:
        marks: when trials ended, in shares of the budget, and their objectives.
    """
    from gs_search.results.hypervolume import Volume

    volume, found, waiting = Volume(reference), [], sorted(marks, key=lambda mark: mark[0])
    for share in SHARES:
        while waiting and waiting[0][0] <= share:
            volume.add(waiting.pop(0)[1])
        found.append(round(volume.value / math.prod(reference), 6) if share <= policy.share + 1e-9 else None)
    return found


@functools.cache
def table_of(path: Path) -> Any:
    """The table in a file."""
    from benchmarks.search_world import Table

    baselines = json.loads(BASELINES.read_text(encoding="utf-8"))
    return Table.of(read(path)[1], study_config().space, baselines)


@functools.cache
def learned(path: Path, *, rugged: bool) -> Any:
    """What was learned from the table in a file, once a process."""
    from benchmarks.search_world import World

    return World(table_of(path), rugged=rugged)


def without_target(worlds: Mapping[str, Sequence[Row]]) -> str:
    """The comparison of both spaces; or that there is nothing to compare."""
    if not worlds["weights"]:
        return f"Not measured: there is no {WEIGHTS.name}."
    ratio = [row for row in worlds["learned"] if row["policy"] in BLIND]
    weights = [{**row, "policy": f"{row['policy']}; sparsity_weight"} for row in worlds["weights"]]
    policies = {name: POLICIES[name] for name in BLIND}
    return comparison(
        [*ratio, *weights], {**policies, **{f"{name}; sparsity_weight": p for name, p in policies.items()}}, RANDOM
    )


def _seconds(table: Any) -> float:
    """Mean processor seconds of a trial of the table."""
    import numpy as np

    stretches = [k for k, (_, name) in enumerate(table.columns) if name == "seconds"]
    return float(np.nanmean(np.exp(table.values[..., stretches]).sum(axis=-1)))


def _digest(path: Path) -> str | None:
    return str(table_of(path).digest()) if path.is_file() else None


if __name__ == "__main__":
    main()

"""What the engine costs: trials that sleep, through ``gs_search`` and through Ray's own ``OptunaSearch``.

    OMP_NUM_THREADS=1 python -m benchmarks.engine [--quick]

Overhead of a trial and busy share of the workers, from the beginning of the first trial to the end of the last;
then how long it takes to ask for a point and to tell a result in a database of 100, 1,000 and 3,000 trials. The
space is the quickstart's, the sampler TPE with the same options, the database SQLite on the disk of ``--out``; Ray
is as quiet on both sides. "reused": ``OptunaSearch`` with ``reuse_actors``; without it, Ray's default, every trial
has a process of its own. Some twenty-five minutes; ``--quick`` ten; a stopped run continues.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.engine_trial import ORDERS, objectives, stock_trial
from benchmarks.report import environment, number, publish, table
from benchmarks.rows import Case, Row, Rows

STUDY = Path(__file__).resolve().parents[1] / "studies" / "quickstart.yaml"

OURS, DRAWN = "gs_search", "gs_search, random points"
REUSED, STOCK = "OptunaSearch, reused", "OptunaSearch"

ASKS = 10
"""Asks at each size; the first one reads the database and does not count."""

KNOWN = (100, 1000, 3000)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/engine]")
@click.option("--quick", is_flag=True, help="Fewer trials.")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
@click.option("--report-only", is_flag=True, help="Tables of what is there so far.")
def main(out: Path | None, quick: bool, tiny: bool, report_only: bool) -> None:
    name = "engine-tiny" if tiny else "engine-quick" if quick else "engine"
    folder = out or Path("runs/benchmarks") / name
    runs, asks = cases(name)
    rows = Rows(folder, {"tiny": tiny})
    if not report_only:
        # One at a time: what is measured is whether workers wait.
        rows.measure([*runs, *asks], functools.partial(measure, folder), processes=1)
    told = environment(trials="asleep", sampler="TPE (multivariate, group, constant liar)", database="SQLite")
    publish(folder, "Engine", told, runs_table(rows.of(runs)), asks_table(rows.of(asks)))


def cases(name: str) -> tuple[list[Case], list[Case]]:
    """Runs (system, seconds and number of trials, workers), and sizes of databases to ask."""
    counts = {
        "engine": {(1.0, 16): 1000, (0.1, 2): 300, (1.0, 2): 120, (60.0, 2): 4},
        "engine-quick": {(0.1, 2): 60, (1.0, 2): 40, (60.0, 2): 4, (1.0, 16): 150},
        "engine-tiny": {(0.1, 2): 4},
    }[name]
    runs: list[Case] = []
    for (seconds, workers), trials in counts.items():
        for system in (OURS, REUSED, STOCK):
            # Several seconds a trial: a tenth tells as much.
            fewer = max(2 * workers, trials // 10) if system == STOCK else trials
            runs.append({"system": system, "seconds": seconds, "workers": workers, "trials": fewer})
    # What is the engine's, and what the sampler's, whose time rises with the trials that are known.
    runs += [{**case, "system": DRAWN} for case in runs if case["system"] == OURS and case["workers"] == 16]
    known = KNOWN[:1] if name == "engine-tiny" else KNOWN
    return runs, [{"system": system, "known": size} for size in known for system in (OURS, REUSED)]


def measure(out: Path, case: Case) -> dict[str, Any]:
    """One run, or the asks at one size."""
    place = Path(tempfile.mkdtemp(prefix="work-", dir=out)).resolve()
    try:
        if "known" in case:
            return (_ask_ours if case["system"] == OURS else _ask_stock)(place, case["known"])
        times = place / "times.jsonl"
        os.environ[ORDERS] = json.dumps({"seconds": case["seconds"], "times": str(times)})
        start = time.monotonic()
        (_run_ours if case["system"] in (OURS, DRAWN) else _run_stock)(place, case)
        whole = time.monotonic() - start
        marks = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
        spans = [(begun, ended) for begun, ended, _ in marks]
        processes = len({process for _, _, process in marks})
        return {**usage(spans, case["workers"]), "processes": processes, "run_seconds": whole}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def usage(spans: Sequence[tuple[float, float]], workers: int) -> dict[str, float]:
    """What trials, each from a beginning to an end, leave of the time of their workers.

    Returns:
        ``finished`` trials, ``overhead`` in worker seconds a trial, and ``busy``, 0..1; ``steady`` is the busy share
        between the time when as many trials have begun as there are workers and the beginning of the last one.
    """
    starts = sorted(start for start, _ in spans)
    available = workers * (max(end for _, end in spans) - starts[0])
    used = sum(end - start for start, end in spans)
    first, last = starts[min(workers, len(spans)) - 1], starts[-1]
    inside = sum(max(0.0, min(end, last) - max(start, first)) for start, end in spans)
    steady = inside / (workers * (last - first)) if last > first else math.nan
    return {
        "finished": len(spans), "overhead": (available - used) / len(spans), "busy": used / available, "steady": steady,
    }  # fmt: skip


def _study(place: Path, trials: int, workers: int, sampler: str = "tpe") -> tuple[Any, Any]:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import load_study

    changes = {"trials": trials, "workers": workers, "device": "cpu", "sampler": sampler}
    config = load_study(STUDY).model_copy(update=changes)
    return config, RunFolder(place / "run")


def _run_ours(place: Path, case: Case) -> None:
    from gs_search.engine.console import Progress
    from gs_search.engine.runner import run_study

    sampler = "random" if case["system"] == DRAWN else "tpe"
    config, folder = _study(place, case["trials"], case["workers"], sampler)
    run_study(
        config,
        folder,
        progress=Progress(quiet=True),
        trial_function="benchmarks.engine_trial:trial",
        prepare_function="benchmarks.engine_trial:prepare",
    )


def _run_stock(place: Path, case: Case) -> None:
    from gs_search.engine.ray.local import local_ray, scratch_folder

    config, _ = _study(place, case["trials"], case["workers"])
    with scratch_folder() as scratch, local_ray(scratch, workers=case["workers"], device="cpu"):
        from ray import tune

        tune.run(
            stock_trial,
            name="trials",
            search_alg=_stock_search(place, config.space),
            num_samples=case["trials"],
            max_concurrent_trials=case["workers"],
            resources_per_trial={"cpu": 1.0},
            reuse_actors=case["system"] == REUSED,
            storage_path=str(scratch / "tune"),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            raise_on_failed_trial=False,
            verbose=0,
        )


def _stock_search(place: Path, space: Any) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    from gs_search.results.pareto import OBJECTIVES
    from gs_search.search.storage import quiet

    # It takes the sampler's seconds for those of the space.
    warnings.filterwarnings("ignore", message="Define-by-run function")
    with quiet():
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=0)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{place / 'stock.db'}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        return OptunaSearch(
            functools.partial(_propose, space),
            metric=list(OBJECTIVES),
            mode=["min"] * len(OBJECTIVES),
            sampler=sampler,
            storage=storage,
            study_name="engine",
        )


def _propose(space: Any, trial: Any) -> None:
    """A define-by-run space, at the top of a module because ``OptunaSearch`` pickles it."""
    space.suggest(trial)


def _ask_ours(place: Path, known: int) -> dict[str, float]:
    from gs_search.results.record import TrialRecord
    from gs_search.search.study_database import open_database

    config, folder = _study(place, 1_000_000, 2)
    folder.create(config)
    database = open_database(folder, config)
    _fill(database.study, config.space, known, attributes=True)
    database = open_database(folder, config)
    tell: list[tuple[Any, dict[str, Any]]] = []

    def ask() -> None:
        asked = database.ask()
        record = {"state": "COMPLETE", "point": asked.point, "key": asked.key, "seed": asked.seed, **_figures()}
        record |= {"study": config.study, "number": asked.number, "objectives": objectives(asked.point)}
        tell.append((asked, record))

    return _median_ms(ask, lambda k: database.tell(TrialRecord.from_json(tell[k][1])))


def _ask_stock(place: Path, known: int) -> dict[str, float]:
    config, _ = _study(place, 1_000_000, 2)
    _fill(_stock_search(place, config.space)._ot_study, config.space, known, attributes=False)
    search = _stock_search(place, config.space)
    points: list[Mapping[str, Any]] = []

    def ask() -> None:
        points.append(search.suggest(f"trial-{len(points)}"))

    return _median_ms(ask, lambda k: search.on_trial_complete(f"trial-{k}", objectives(points[k])))


def _median_ms(ask: Callable[[], None], tell: Callable[[int], None]) -> dict[str, float]:
    """Medians of ``ASKS`` asks and as many tells, told in turns."""
    asks, tells = [], []
    for k in range(1 + ASKS):
        start = time.perf_counter()
        ask()
        middle = time.perf_counter()
        tell(k)
        asks.append(middle - start)
        tells.append(time.perf_counter() - middle)
    return {"ask_ms": 1e3 * statistics.median(asks[1:]), "tell_ms": 1e3 * statistics.median(tells[1:])}


def _figures() -> dict[str, float]:
    """Figures of a result that the database keeps beside the objectives."""
    whole = {"steps": 250, "params": 10_000, "macs_paper": 1_000_000}
    return {**whole, "kid": 0.1, "psnr_to_teacher": 25.0, "latency_ms": 1.0, "seconds": 16.0, "peak_memory_mb": 1400.0}


def _fill(study: Any, space: Any, count: int, *, attributes: bool) -> None:
    """Put random trials into the database, as ended ones."""
    import optuna

    from gs_search.search.storage import quiet

    with quiet():
        random = optuna.create_study(directions=study.directions, sampler=optuna.samplers.RandomSampler(seed=0))
        random.optimize(lambda trial: tuple(objectives(space.suggest(trial)).values()), n_trials=count)
        trials = random.get_trials(deepcopy=False)
        for trial in trials if attributes else ():
            trial.user_attrs = {"key": space.key(trial.params), "seed": trial.number, **_figures()}
        study.add_trials(trials)


def runs_table(rows: Sequence[Row]) -> str:
    """One row a run."""
    return table(
        [
            "trials of", "workers", "system", "trials", "processes", "overhead a trial, s", "workers busy, %",
            "busy once all have begun, %", "whole run, s",
        ],
        [
            [
                f"{row['seconds']:g} s", row["workers"], row["system"], f"{row['finished']} of {row['trials']}",
                row["processes"], number(row["overhead"]), number(100 * row["busy"], 1),
                number(100 * row["steady"], 1), number(row["run_seconds"], 0),
            ]
            for row in rows
        ],
    )  # fmt: skip


def asks_table(rows: Sequence[Row]) -> str:
    """One row a size and system."""
    cells = [
        [row["known"], row["system"].partition(",")[0], number(row["ask_ms"], 0), number(row["tell_ms"], 0)]
        for row in rows
    ]
    return table(["trials in the database", "system", "ask, ms", "tell, ms"], cells)


if __name__ == "__main__":
    main()

"""The table of real trials behind ``benchmarks.search``: points of the quickstart's space, trained.

    OMP_NUM_THREADS=1 python -m benchmarks.search_table [--points 160] [--weights] [--keep]

Each point of a Sobol sequence over ``search_spaces/quickstart.yaml``, its ladder of start points first, is trained
with two seeds, in the study of ``studies/quickstart.yaml`` as it was when the table was begun (``SETTINGS``: 250 steps
with a discriminator, in bfloat16), with rungs at 0, 50 and 125 of them: at each of them what a trial tells there, and
at the end the objectives, with the processor seconds so far (one thread; other work on the machine lengthens the wall
time only). Half a minute a row; a stopped run continues, also with more points.
``--keep`` puts the rows into ``benchmarks/data/quickstart_trials.jsonl``, which is committed and read by
``benchmarks.search``. ``--weights`` is a table of its own, ``quickstart_weights.jsonl``: the same space with the
paper's ``sparsity_weight`` in the place of ``target_gflops_ratio``, without start points, which name the latter.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.report import environment
from benchmarks.rows import Case, Rows

ROOT = Path(__file__).resolve().parents[1]

STUDY = ROOT / "studies" / "quickstart.yaml"

TABLE = ROOT / "benchmarks" / "data" / "quickstart_trials.jsonl"

WEIGHTS = TABLE.with_name("quickstart_weights.jsonl")

SHRINK_BUDGETS = (0.05, 0.9)
"""``sparsity_weight``: from nearly nothing to nearly everything."""

RUNGS = (50, 125)

SETTINGS = {"steps": 250, "adversarial_weight": 1.0, "precision": "bf16"}

SEEDS = 2


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/search_table]")
@click.option("--points", default=160, show_default=True, help="Points in all, start points included.")
@click.option("--processes", default=2, show_default=True, help="Rows at a time.")
@click.option("--weights", is_flag=True, help="The space with sparsity_weight.")
@click.option("--keep", is_flag=True, help="Write the committed table.")
def main(out: Path | None, points: int, processes: int, weights: bool, keep: bool) -> None:
    folder = out or Path("runs/benchmarks/search_weights" if weights else "runs/benchmarks/search_table")
    budgets = {"shrink budgets": SHRINK_BUDGETS} if weights else {}
    rows = Rows(folder, {"study": STUDY.name, "rungs": RUNGS, **budgets})
    ask = cases(points)
    prepare(folder)
    rows.measure(ask, functools.partial(measure, folder, space(weights=weights)), processes=processes)
    if keep:
        told = environment(study="quickstart", rungs=RUNGS, seeds=SEEDS)
        write(WEIGHTS if weights else TABLE, rows.of(ask), told)


def cases(points: int) -> list[Case]:
    """Both seeds of a point before the next point, so that a stopped run leaves whole points."""
    return [{"point": index, "seed": seed} for index in range(points) for seed in range(SEEDS)]


def space(*, weights: bool) -> Any:
    """The quickstart's space; or the one in which nobody can say where a student lands."""
    from gs_search.study.space import Parameter, SearchSpace

    found = study_config().space
    if not weights:
        return found
    low, high = SHRINK_BUDGETS
    budget = Parameter(name="sparsity_weight", kind="float", low=low, high=high, log=False)
    rest = tuple(parameter for parameter in found.parameters if parameter.name != "target_gflops_ratio")
    return SearchSpace(parameters=(budget, *rest), constants=found.constants, start_points=())


def points_of(space: Any, count: int) -> list[dict[str, Any]]:
    """The start points but for the first, the paper's, which is younger than the table; then a Sobol sequence."""
    import optuna

    from gs_search.search.samplers import make_sampler
    from gs_search.search.storage import quiet

    names = [parameter.name for parameter in space.parameters]
    found = [dict(point) for point in space.start_points[1:][:count]]
    with quiet():
        study = optuna.create_study()
        for turn in range(count - len(found)):
            study.sampler = make_sampler("qmc", turn=turn, turn_seed=0, study_seed=0, parameters=names)
            found.append(space.suggest(study.ask()))
    return found


def study_config() -> Any:
    """The quickstart's study with rungs on the way."""
    from gs_search.study.config import load_study

    config = load_study(STUDY)
    stopping = config.stopping.model_copy(update={"rungs": RUNGS})
    settings = {**config.settings, **SETTINGS}
    return config.model_copy(update={"stopping": stopping, "device": "cpu", "settings": settings})


def prepare(folder: Path) -> None:
    """Make the run folder that rows share: teacher, reference statistics, lessons."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.run import prepare as prepare_study

    run = RunFolder(folder / "run")
    run.create(study_config())
    prepare_study(study_config(), run, lambda line: click.echo(line, err=True))


def measure(folder: Path, space: Any, case: Case) -> dict[str, Any]:
    """Train one point with one seed."""
    from gs_search.errors import TrialFailed
    from gs_search.results.run_folder import RunFolder
    from gs_search.trial.assets import TrialAssets
    from gs_search.trial.run import trial_in_rungs

    config, run = study_config(), RunFolder(folder / "run")
    point = points_of(space, case["point"] + 1)[-1]
    number = SEEDS * case["point"] + case["seed"]
    TrialAssets.of(run, config)  # once a process
    start, rungs = time.process_time(), []
    trial = trial_in_rungs(point, config, run, number=number, seed=case["seed"])
    try:
        while True:
            told = next(trial)
            rungs.append({**told.to_json(), "seconds": time.process_time() - start})
    except StopIteration as end:
        record = end.value.to_json()
    except TrialFailed as failure:
        return {"parameters": point, "rungs": rungs, "failed": failure.cause, "seconds": time.process_time() - start}
    kept = {name: record[name] for name in ("objectives", "kid", "psnr_to_teacher", "params", "peak_memory_mb")}
    return {"parameters": point, "rungs": rungs, **kept, "seconds": time.process_time() - start}


def write(path: Path, rows: Sequence[Mapping[str, Any]], told: str) -> None:
    """The rows, after one line that says where they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"measured": told, "rungs": [0, *RUNGS]}), *(json.dumps(_short(row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path = TABLE) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Heading and rows of the table."""
    heading, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return heading, rows


def _short(value: Any) -> Any:
    """With six digits a number, which is more than two seeds agree on."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _short(item) for name, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()

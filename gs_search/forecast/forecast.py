"""What a study will cost on this machine. Neither Ray nor torch is imported here.

``probe`` measures a miniature of the study in processes of one thread, as workers are, and ``costs`` makes seconds
of the whole study of that. A forecast holds for a processor core (or GPU) without other work.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gs_search.engine.preparation import Preparation
from gs_search.engine.ray.local import plan_workers, scratch_folder, worker_environment
from gs_search.forecast.costs import Costs, preparation_bytes, preparation_seconds, size_of
from gs_search.results.run_folder import RunFolder
from gs_search.study.settings import Point, settings_from_point
from gs_search.system.files import read_json, write_json
from gs_search.system.machine import cores

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gs_search.study.config import StudyConfig

__all__ = ["extrapolate", "forecast", "render_forecast", "typical_points"]

DRAWS = 200
"""Random points of the space that stand for what a sampler proposes."""

DATABASE_BYTES, DATABASE_BYTES_A_TRIAL = 140_000, 5_000


def forecast(config: StudyConfig, note: Callable[[str], None]) -> dict[str, Any]:
    """Probe the study in a temporary folder, and say what all of it will take.

    Args:
        note: gets a line at each step of the probing.

    Returns:
        a plain document, see ``extrapolate``.

    Raises:
        BadInput: what the study names cannot be used.
        GsSearchError: no probing trial came to an end.
    """
    start = time.monotonic()
    points = [*config.space.start_points, *typical_points(config)]
    with scratch_folder() as scratch, worker_environment(config.device):
        folder = RunFolder(scratch / "study")
        folder.create(config)
        write_json(folder.path / "points.json", {"points": _extremes(config, points)})
        for function in ("measure_preparation", "measure_trials"):
            named = f"gs_search.forecast.probe:{function}"
            process = Preparation(folder.path, named, retrain=False, note=note, purpose="probing the study")
            try:
                process.wait(lambda: False)
            finally:
                process.close()
        prepared, tried = (read_json(folder.path / f"{name}.json") for name in ("preparation", "trials"))
    return {**extrapolate(config, prepared, tried), "probe_seconds": round(time.monotonic() - start, 1)}


class _Dice:
    """Draws a point from a space, as Optuna's random sampler would."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            return min(max(math.exp(self._random.uniform(math.log(low), math.log(high))), low), high)
        value = self._random.uniform(low, high)
        return value if step is None else min(low + step * round((value - low) / step), high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return round(self.suggest_float(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._random.choice(choices)


def typical_points(config: StudyConfig) -> list[dict[str, Any]]:
    """Points as a sampler may propose them, the same at every call."""
    dice = _Dice(config.seed)
    return [config.space.suggest(dice) for _ in range(DRAWS)]


def _extremes(config: StudyConfig, points: Sequence[Point]) -> list[Point]:
    """The smallest, the largest and the middle student, each once."""
    ordered = sorted(points, key=lambda point: size_of(settings_from_point(point, config.settings)))
    chosen = [ordered[0], ordered[-1], ordered[len(ordered) // 2]]
    return [point for index, point in enumerate(chosen) if point not in chosen[:index]]


def extrapolate(config: StudyConfig, prepared: Mapping[str, Any], tried: Mapping[str, Any]) -> dict[str, Any]:
    """From what the probe measured to the whole study.

    Args:
        prepared, tried: what ``probe.measure_preparation`` and ``probe.measure_trials`` wrote.

    Returns:
        seconds of a processor core (of the clock on a GPU), megabytes of 10^6 bytes, ``hours`` of the clock for all
        trials. ``memory_mb`` is main memory, with the teacher's answers, which workers share, counted in each.
    """
    plan = plan_workers(config.workers, config.device, tried["gpus"])
    at_once = min(plan.workers, config.trials, cores() if plan.device == "cpu" else plan.workers)
    costs = Costs(config, tried["trials"], prepared["wanted"]["val"])
    # Start points come first; the rest is as random points are.
    first = [costs.seconds(point) for point in config.space.start_points][: config.trials]
    drawn = [costs.seconds(point) for point in typical_points(config)]
    rest = config.trials - len(first)
    usual = statistics.fmean(drawn)
    every = [*first, *(drawn[k % len(drawn)] for k in range(min(rest, DRAWS)))]
    preparation = preparation_seconds(config, prepared, costs)
    ahead = preparation + tried["start_seconds"] * min(plan.workers, config.trials) / at_once
    total = ahead + (sum(first) + rest * usual) / at_once
    few, wanted = prepared["few"], prepared["wanted"]
    lessons = sum(
        prepared["bytes"][name] * (wanted[count] / few[count] - 1)
        for name, count in (("lessons", "views"), ("features", "featured"))
    )
    memory = tried["peak_memory_mb"] + lessons / 1e6
    disk = preparation_bytes(prepared) + DATABASE_BYTES
    disk += config.trials * (statistics.fmean(row["bytes"] for row in tried["trials"]) + DATABASE_BYTES_A_TRIAL)
    in_time = None
    if config.hours is not None:
        in_time = min(config.trials, max(0, int((3600 * config.hours - ahead) * at_once / statistics.fmean(every))))
    return {
        "schema": 1,
        "device": plan.device,
        "trials": config.trials,
        "workers": plan.workers,
        "at_once": at_once,
        "preparation_seconds": round(preparation, 1),
        "start_seconds": round(tried["start_seconds"], 1),
        "trial_seconds": {
            "median": round(statistics.median(every), 1),
            "low": round(min(every), 1),
            "high": round(max(every), 1),
        },
        "hours": round(total / 3600, 3),
        "trials_in_time": in_time,
        "stopping": config.stopping.rule,
        "memory_mb": round(memory, 1),
        "disk_mb": round(disk / 1e6, 1),
        "probes": [_probe(config, row["point"], costs) for row in tried["trials"]],
        "problems": tried["problems"],
    }


def _probe(config: StudyConfig, point: Point, costs: Costs) -> dict[str, Any]:
    """What the forecast of a point that was tried is made of."""
    settings = settings_from_point(point, config.settings)
    parts = {name: round(seconds, 2) for name, seconds in costs.parts(point).items()}
    return {"point": dict(point), "size": size_of(settings), "steps": settings.steps, **parts}


def render_forecast(document: Mapping[str, Any]) -> RenderableType:
    """Draw the document for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from gs_search.system.text import duration

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    spread = document["trial_seconds"]
    low, high = duration(spread["low"]), duration(spread["high"])
    table.add_row("preparation, once", duration(document["preparation_seconds"]))
    table.add_row("start of a worker", duration(document["start_seconds"]))
    table.add_row("a trial, the median", f"{duration(spread['median'])} (from {low} to {high})")
    for probe in document["probes"]:
        table.add_row(
            f"  at {probe['size']:.3g} of the teacher",
            f"{duration(probe['training'])} in {probe['steps']} steps, {duration(probe['fixed'])} for repair and "
            f"files, {duration(probe['pictures'])} for pictures",
        )
    table.add_row(
        f"all {document['trials']} trials, {document['at_once']} at once", f"about {duration(3600 * document['hours'])}"
    )
    if document["trials_in_time"] is not None:
        table.add_row("in the study's hours", f"about {document['trials_in_time']} trials")
    workers = document["workers"]
    table.add_row("memory of a worker", f"{document['memory_mb'] / 1e3:.1f} GB, {workers} of them")
    table.add_row("run folder", f"{document['disk_mb'] / 1e3:.2f} GB")
    if document["device"] == "cuda":
        unit = "seconds of a GPU without other work"
    else:
        unit = "processor seconds of one thread: the time that passes on a core without other work"
    lines = [f"{unit}; probed in {duration(document['probe_seconds'])}"]
    if document["stopping"] != "off":
        lines.append("every trial counts as trained to its end; those that are left at a rung take less")
    lines += [f"a probing trial failed: {problem}" for problem in document["problems"]]
    return Group(Text("forecast for this machine", style="bold"), table, *map(Text, lines))

"""Trials of four steps for ``benchmarks.kills``, as gs_search runs them and as a function of Ray Tune.

Each notes in a file when it begins and when it has been trained to its end, whichever process it is in. Two points are
no numbers at the end. Worker processes import this module, so it imports next to nothing; what a trial is to do comes
in an environment variable.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.engine_trial import objectives, prepare
from gs_search.results.record import Rung, TrialRecord

__all__ = ["NANS", "ORDERS", "STEPS", "key_of", "prepare", "read_marks", "stock_trial", "trial"]

ORDERS = "GS_SEARCH_BENCHMARK_KILLS"
"""Environment variable: JSON of ``marks``, the file, ``seconds`` of a trial, and ``names`` of the parameters."""

STEPS = 4

NANS = (5, 15)
"""Which points, in the order in which they begin, end without a number."""


def key_of(point: Mapping[str, Any], names: list[str]) -> str:
    """A point's values, as text; 10 and 10.0 are the same."""
    return json.dumps([None if point.get(name) is None else float(point[name]) for name in names])


def read_marks(path: Path) -> list[tuple[str, str, int]]:
    """What was begun or ended (``begin``, ``end``), of which point, in which process, in the order of time."""
    if not path.exists():
        return []
    return [(what, key, pid) for what, key, pid in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def _mark(orders: Mapping[str, Any], what: str, key: str) -> int:
    """Add a mark; return how many other points began before this one."""
    with Path(orders["marks"]).open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps([what, key, os.getpid()]) + "\n")
        file.flush()
        file.seek(0)
        begun = list(dict.fromkeys(json.loads(line)[1] for line in file.read().splitlines()))
    return begun.index(key)


def _values(point: Mapping[str, Any], step: int, place: int) -> dict[str, float]:
    """Objectives after a step; only the last ones are those of the point."""
    values = objectives(point)
    if step == STEPS and place in NANS:
        return {**values, "fid": math.nan}
    return {**values, "fid": values["fid"] * (2 - step / STEPS)}


def trial(
    point: Mapping[str, Any], config: Any, folder: Any, *, number: int, seed: int, on_progress: Any
) -> Generator[Rung, None, TrialRecord]:
    """Sleep, with a rung after the first step."""
    orders = json.loads(os.environ[ORDERS])
    key = key_of(point, orders["names"])
    place, start = _mark(orders, "begin", key), time.monotonic()
    for step in range(1, STEPS + 1):
        time.sleep(orders["seconds"] / STEPS)
        values = _values(point, step, place)
        if step == 1:
            costs = {name: values[name] for name in ("gflops", "size_mb")}
            seconds = time.monotonic() - start
            yield Rung(step=0, psnr_to_teacher=40 - values["fid"] / 10, **costs, seconds=seconds)
    _mark(orders, "end", key)
    return TrialRecord.from_json(
        {
            "schema": 1, "study": config.study, "number": number, "state": "COMPLETE", "cause": None,
            "message": None, "point": dict(point), "key": config.space.key(point), "seed": seed,
            "seconds": time.monotonic() - start, "objectives": values,
        }
    )  # fmt: skip


def stock_trial(config: Mapping[str, Any]) -> None:
    """The same as a trainable function of Ray Tune, whose scheduler hears of every step."""
    from ray import tune

    orders = json.loads(os.environ[ORDERS])
    key = key_of(config, orders["names"])
    place = _mark(orders, "begin", key)
    for step in range(1, STEPS + 1):
        time.sleep(orders["seconds"] / STEPS)
        if step == STEPS:
            _mark(orders, "end", key)
        tune.report(_values(config, step, place))

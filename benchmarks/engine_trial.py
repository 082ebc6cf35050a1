"""Trials that sleep, for ``benchmarks.engine``: as gs_search runs them, and as a function of Ray Tune.

Worker processes import this module, so it imports next to nothing. What a trial is to do comes in an environment
variable, which they inherit.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gs_search.results.record import TrialRecord
from gs_search.system.files import write_json

__all__ = ["ORDERS", "objectives", "prepare", "stock_trial", "trial"]

ORDERS = "GS_SEARCH_BENCHMARK_ENGINE"
"""Environment variable: JSON of ``seconds`` to sleep and ``times``, a file that gets begin, end and process of each."""

BEST = {"sparsity_multiplier.body": 1.0, "distill_weight": 10.0, "feature_weight": 5.0}

BASELINES = {
    "input": {"fid": 300.0},
    "teacher": {"fid": 50.0, "gflops": 1.0, "size_mb": 1.0},
    "noise": {"fid_std": 1.0, "method": "none"},
    "protocol": {"id": "asleep", "image_px": 64, "reference_kind": "target", "pictures": 0, "data": {}},
}


def prepare(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """Write the anchors, as if there were a teacher."""
    write_json(folder.baselines, BASELINES)


def objectives(point: Mapping[str, Any]) -> dict[str, float]:
    """A trade-off between the three; what does not cost anything has a best value, so that most points are beaten.

    The size of the front matters, because TPE computes hypervolumes of it.
    """
    share, bits = float(point["target_gflops_ratio"]), int(point["weight_bits.body"])
    misses = [abs(math.log(point[name] / best)) for name, best in BEST.items()]
    return {"fid": 60 / share**0.4 + 40 / bits + 20 * sum(misses), "gflops": share, "size_mb": share * bits / 32}


def trial(
    point: Mapping[str, Any], config: Any, folder: Any, *, number: int, seed: int, on_progress: Any
) -> TrialRecord:
    """Sleep; what it leaves has as many figures as a real result."""
    seconds = _sleep()
    return TrialRecord.from_json(
        {
            "schema": 1, "study": config.study, "number": number, "state": "COMPLETE", "cause": None,
            "message": None, "point": dict(point), "key": config.space.key(point), "seed": seed, "seconds": seconds,
            "objectives": objectives(point), "protocol": "asleep", "kid": 0.1, "psnr_to_teacher": 25.0,
            "params": 10_000, "macs_paper": 1_000_000, "latency_ms": 1.0, "steps": 250, "peak_memory_mb": 100.0,
        }
    )  # fmt: skip


def stock_trial(config: Mapping[str, Any]) -> None:
    """The same as a trainable function of Ray Tune."""
    from ray import tune

    _sleep()
    tune.report(objectives(config))


def _sleep() -> float:
    orders = json.loads(os.environ[ORDERS])
    start = time.time()
    time.sleep(orders["seconds"])
    end = time.time()
    # One short write to a file opened for appending is whole, whoever else writes.
    with Path(orders["times"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps([start, end, os.getpid()]) + "\n")
    return end - start

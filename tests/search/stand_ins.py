"""Cheap trials for tests of the engine: an analytic front instead of a training, and every kind of ending."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from gs_search.errors import TrialFailed

REFERENCE = {"input": {"fid": 300.0}, "teacher": {"fid": 50.0, "gflops": 1.0, "size_mb": 1.0}}


class Result:
    """What the engine needs of a ``TrialResult``."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    def to_json(self) -> dict[str, Any]:
        return self.record


def prepare(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """Write baselines, and count the calls in ``teacher/calls``."""
    log("preparing")
    folder.write_json(folder.baselines, REFERENCE)
    with (folder.teacher / "calls").open("a") as calls:
        calls.write("again\n" if retrain_teacher else "once\n")


def prepare_badly(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    from gs_search.errors import DataError

    raise DataError("photos/1.png: cannot be read; remove it")


def objectives(point: Any, seed: int) -> dict[str, float]:
    """FID against GFLOPs is a trade-off; more bits cost bytes; the seed adds a little."""
    share, bits = float(point["target_gflops_ratio"]), int(point.get("weight_bits", 8))
    noise = (seed % 1000) / 1e6
    return {"fid": 60 / share**0.4 + 40 / bits + noise, "gflops": share, "size_mb": share * bits / 32}


def trial(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> Result:
    """A trial that takes ``distill_weight`` milliseconds and ends well."""
    time.sleep(float(point.get("distill_weight", 0.0)) / 1000)
    record = {
        "schema": 1, "study": config.study, "number": number, "state": "COMPLETE", "cause": None,
        "message": None, "point": dict(point), "key": config.space.key(point), "seed": seed, "seconds": 0.01,
        "kid": 0.5, "objectives": objectives(point, seed), "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"), "storage": os.environ.get("GS_SEARCH_STORAGE"),
    }  # fmt: skip
    folder.write_json(folder.trial(number) / "result.json", record)
    return Result(record)


def in_rungs(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> Any:
    """A trial that pauses once; ``sparsity_multiplier`` takes decibels off and changes no cost."""
    values = objectives(point, seed)
    psnr = 30 - values["fid"] / 10 - 3 * float(point.get("sparsity_multiplier", 0.0))
    costs = {name: values[name] for name in ("gflops", "size_mb")}
    report = {"step": 0, "psnr_to_teacher": psnr, **costs, "seconds": 0.001}
    yield report
    result = trial(point, config, folder, number=number, seed=seed)
    result.record["rungs"] = [report]
    folder.write_json(folder.trial(number) / "result.json", result.record)
    return result


def slow(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> Result:
    """Ten seconds, with progress."""
    for step in range(100):
        on_progress({"step": step, "steps": 100})
        time.sleep(0.1)
    return trial(point, config, folder, number=number, seed=seed)


def by_activation_bits(
    point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None
) -> Result:
    """An ending for each of the choices of ``activation_bits``."""
    bits = point["activation_bits"]
    if bits == 8:
        return trial(point, config, folder, number=number, seed=seed)
    if bits == 2:
        record = trial(point, config, folder, number=number, seed=seed).record
        return Result({**record, "objectives": {**record["objectives"], "fid": math.nan}})
    if bits == 3:
        raise RuntimeError("something in the network broke")
    if bits == 4:
        raise TrialFailed("collapse", "all channels were pruned")
    if bits == 5:
        raise MemoryError
    if bits == 6 and first_time(folder.path / "died", number):
        os.kill(os.getpid(), signal.SIGKILL)
    if bits == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return trial(point, config, folder, number=number, seed=seed)


def nan(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> Result:
    """Never ends well."""
    raise TrialFailed("nan", "the loss is nan at step 3")


def first_time(folder: Path, number: int) -> bool:
    """Whether this is the first call for ``number``, over all processes."""
    folder.mkdir(exist_ok=True)
    mark = folder / str(number)
    if mark.exists():
        return False
    mark.touch()
    return True


def absent_result(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> Result:
    """Raises, saying whether ``result.json`` is there."""
    there = (folder.trial(number) / "result.json").exists()
    raise RuntimeError("a result of before" if there else "no result of before")


def reads_its_progress(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> Result:
    """Raises with what ``progress.json`` says."""
    on_progress({"step": 40, "steps": 100})
    state = folder.read_json(folder.trial(number) / "progress.json") if _exists(folder, number) else None
    if state is None:
        raise FileNotFoundError("no progress yet")
    raise RuntimeError(f"step {state['step']} of {state['steps']}")


def _exists(folder: Any, number: int) -> bool:
    return bool((folder.trial(number) / "progress.json").exists())


def prepare_for_ever(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """Never ends by itself."""
    while True:
        time.sleep(0.1)

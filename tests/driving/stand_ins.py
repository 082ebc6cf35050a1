"""Cheap trials for tests of the engine: an analytic front instead of a training, and every kind of ending."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gs_search.errors import TrialFailed
from gs_search.results.record import Rung, TrialRecord, write_record
from gs_search.system.files import read_json, write_json

PROTOCOL = {
    "id": "stand-in", "generator_split": "val", "pictures": 1, "reference": "none", "reference_pictures": 1,
    "image_px": 32, "resize": "none", "features": "none", "weights_sha256": "0", "reference_kind": "target", "data": {},
}  # fmt: skip
REFERENCE = {
    "input": {"fid": 300.0, "kid": 0.5, "psnr_to_teacher": 10.0},
    "teacher": {"fid": 50.0, "kid": 0.1, "gflops": 1.0, "size_mb": 1.0, "params": 1, "macs_paper": 1},
    "noise": {"fid_std": 1.0, "method": "none"},
    "protocol": PROTOCOL,
}


def prepare(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """Write baselines, and count the calls in ``teacher/calls``."""
    log("preparing")
    write_json(folder.baselines, REFERENCE)
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


def trial(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> TrialRecord:
    """A trial that takes ``distill_weight`` milliseconds and ends well."""
    time.sleep(float(point.get("distill_weight", 0.0)) / 1000)
    record = good_record(point, config, number, seed)
    write_json(folder.trial(number) / "result.json", record)
    return TrialRecord.from_json(record)


def good_record(point: Any, config: Any, number: int, seed: int) -> dict[str, Any]:
    """``result.json`` of a complete trial."""
    return {
        "schema": 1, "study": config.study, "number": number, "state": "COMPLETE", "cause": None,
        "message": None, "point": dict(point), "key": config.space.key(point), "seed": seed, "seconds": 0.01,
        "protocol": PROTOCOL["id"], "kid": 0.5, "objectives": objectives(point, seed), "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"), "storage": os.environ.get("GS_SEARCH_STORAGE"),
    }  # fmt: skip


def in_rungs(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> Any:
    """A trial that pauses once; ``sparsity_multiplier`` takes decibels off and changes no cost."""
    values = objectives(point, seed)
    psnr = 30 - values["fid"] / 10 - 3 * float(point.get("sparsity_multiplier", 0.0))
    costs = {name: values[name] for name in ("gflops", "size_mb")}
    report = Rung(step=0, psnr_to_teacher=psnr, **costs, seconds=0.001)
    yield report
    result = trial(point, config, folder, number=number, seed=seed).but(rungs=(report,))
    write_record(folder.trial(number) / "result.json", result)
    return result


RUNGS = (0, 2)
STEPS = 4


def resumable(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> Any:
    """Four steps in ``distill_weight`` milliseconds, a checkpoint after each, two rungs; goes on from its checkpoint.

    What it told at rungs that it had passed it tells again then. ``marks.txt`` of the run folder gets a line for each
    begin and end of it, whichever process it is in, so that one can count what was done how often.
    """
    key = config.space.key(point)
    checkpoint = folder.checkpoint(key, seed)
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"done": 0, "rungs": []}
    mark(folder, "begin", number, key, state["done"])
    try:
        yield from map(Rung.from_json, state["rungs"])
        while state["done"] < STEPS:
            if state["done"] in RUNGS[len(state["rungs"]) :]:
                state["rungs"].append(look(point, seed, state["done"]))
                write_json(checkpoint, state)
                yield Rung.from_json(state["rungs"][-1])
            time.sleep(float(point.get("distill_weight", 0.0)) / 1000 / STEPS)
            state["done"] += 1
            write_json(checkpoint, state)
    except GeneratorExit:  # left at a rung
        checkpoint.unlink(missing_ok=True)
        raise
    result = TrialRecord.from_json({**good_record(point, config, number, seed), "rungs": state["rungs"]})
    write_record(folder.trial(number) / "result.json", result)
    mark(folder, "end", number, key, state["done"])
    checkpoint.unlink(missing_ok=True)
    return result


def look(point: Any, seed: int, step: int) -> dict[str, Any]:
    """What ``resumable`` tells at a rung: distances grow with training, so that some are left at the second only."""
    values = objectives(point, seed)
    behind = values["fid"] / 10 + 3 * float(point.get("sparsity_multiplier", 0.0))
    costs = {name: values[name] for name in ("gflops", "size_mb")}
    return {"step": step, "psnr_to_teacher": 30 - behind * (0.3 + 0.2 * step), **costs, "seconds": 0.001}


def mark(folder: Any, what: str, number: int, key: str, step: int) -> None:
    """Add a line to ``marks.txt``; one short write to a file that is open for appending is whole."""
    with (folder.path / "marks.txt").open("a") as marks:
        marks.write(json.dumps([what, number, key, step, os.getpid()]) + "\n")


def slow(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> TrialRecord:
    """Ten seconds, with progress."""
    for step in range(100):
        on_progress({"step": step, "steps": 100})
        time.sleep(0.1)
    return trial(point, config, folder, number=number, seed=seed)


def by_activation_bits(
    point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None
) -> TrialRecord:
    """An ending for each of the choices of ``activation_bits``."""
    bits = point["activation_bits"]
    if bits == 8:
        return trial(point, config, folder, number=number, seed=seed)
    if bits == 2:
        record = trial(point, config, folder, number=number, seed=seed)
        return record.but(objectives={**record.values, "fid": math.nan})
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


def nan(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> TrialRecord:
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


def absent_result(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> TrialRecord:
    """Raises, saying whether ``result.json`` is there."""
    there = (folder.trial(number) / "result.json").exists()
    raise RuntimeError("a result of before" if there else "no result of before")


def reads_its_progress(
    point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any
) -> TrialRecord:
    """Raises with what ``progress.json`` says."""
    on_progress({"step": 40, "steps": 100})
    state = read_json(folder.trial(number) / "progress.json") if _exists(folder, number) else None
    if state is None:
        raise FileNotFoundError("no progress yet")
    raise RuntimeError(f"step {state['step']} of {state['steps']}")


def _exists(folder: Any, number: int) -> bool:
    return bool((folder.trial(number) / "progress.json").exists())


def prepare_for_ever(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """Never ends by itself."""
    while True:
        time.sleep(0.1)


def hangs(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> TrialRecord:
    """Says that it begins, and never another word; not even signals that Python handles are answered."""
    (folder.trial(number) / "log.txt").write_text("trained up to here\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def prepare_slowly(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    """As ``prepare``, in three seconds."""
    time.sleep(3)
    prepare(config, folder, log, retrain_teacher=retrain_teacher)


class Stubborn(BaseException):
    """No ``Exception``."""


class Unprintable(Exception):
    """Nobody can say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exception):
    """It cannot be sent to another process."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


RAISES: dict[str, Callable[[], BaseException]] = {
    "error": lambda: RuntimeError("something broke"),
    "lines": lambda: RuntimeError("\n".join(f"line {index}" for index in range(1000))),
    "huge": lambda: RuntimeError("x" * 5_000_000),
    "unpicklable": Unpicklable,
    "stop": lambda: StopIteration("no more"),
    "disk": lambda: OSError(28, "No space left on device"),
    "unprintable": Unprintable,
    "surrogate": lambda: RuntimeError("photos/\udcff.png"),
    "exit": lambda: SystemExit("no more"),
    "ctrl-c": KeyboardInterrupt,
    "base": lambda: Stubborn("no Exception"),
}
PLACES = ("begin", "rung", "end", "progress", "close")


def raises(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> Any:
    """Raises ``distill_weight`` of ``RAISES`` at ``activation_bits`` of ``PLACES``, both counted from 2; else is well.

    At ``close`` it is worse than any other, so that it is left there.
    """
    how, where = int(point["distill_weight"]) - 2, PLACES[int(point["activation_bits"]) - 2]
    error = list(RAISES.values())[how] if how >= 0 else None
    if error and where == "begin":
        raise error()
    report = Rung(step=0, psnr_to_teacher=20.0, gflops=1.0, size_mb=1.0, seconds=0.001)
    try:
        yield report.but(psnr_to_teacher=5.0) if error and where == "close" else report
    except GeneratorExit:
        if error:
            raise error() from None
        raise
    if error and where == "rung":
        raise error()
    if error and where == "progress":
        on_progress({"step": error, "steps": 4})  # which no JSON can say
    result = trial({**point, "distill_weight": 0}, config, folder, number=number, seed=seed)
    if error and where == "end":
        raise error()
    return result.but(point=dict(point), key=config.space.key(point))


def returns_nothing(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> None:
    """No result, and nothing raised."""


def returns_a_part(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any) -> TrialRecord:
    """A record without a state."""
    return TrialRecord.from_json({"number": number})


def returns_what_json_cannot_say(
    point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any
) -> TrialRecord:
    return TrialRecord.from_json({**good_record(point, config, number, seed), "curve": {1, 2, 3}})


def prepare_exits(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    sys.exit("no licence for this")


def prepare_interrupted(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    raise KeyboardInterrupt


def prepare_stubbornly(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    raise Stubborn("no Exception")


def prepare_at_length(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    raise RAISES["lines"]()


def prepare_hugely(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    raise RAISES["huge"]()


def prepare_unprintably(config: Any, folder: Any, log: Any, *, retrain_teacher: bool = False) -> None:
    raise Unprintable


def terminated(point: Any, config: Any, folder: Any, *, number: int, seed: int, on_progress: Any = None) -> TrialRecord:
    """Ends as after a SIGTERM, that Ray passes on like this."""
    end = SystemExit(1)
    vars(end)["ray_terminate_msg"] = "The process receives a SIGTERM."
    raise end

"""What worker processes do in tests. Apart from the tests, because each process imports it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gs_search.errors import BadInput, GsSearchError
from gs_search.results.repeats import place_of, seed_of
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json, write_text


def work(argument: str, job: dict[str, Any]) -> dict[str, Any]:
    """Stands in for a training: what a job does is in the job."""
    kind = job["kind"]
    if kind == "print":
        print("a library says something")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "leave":
        sys.stderr.write("warning\nMemoryError: no room\n")
        sys.stderr.flush()
        os._exit(3)
    if kind == "wrong":
        raise BadInput("device: no GPU here")
    if kind == "broken":
        raise RuntimeError("two\nlines")
    if kind == "own":
        raise GsSearchError("said on purpose")
    if kind == "write":
        write_slowly(Path(argument))
    return {"pid": os.getpid(), "argument": argument, "number": job.get("number")}


def write_slowly(folder: Path) -> None:
    """Begin a file of the run folder, and never end it."""
    genuine = os.fsync

    def wait(descriptor: int) -> None:
        (folder / "begun").touch()
        while True:
            time.sleep(0.02)

    os.fsync = wait
    try:
        write_text(folder / "half", "text")
    finally:
        os.fsync = genuine


def train(path: str, job: dict[str, Any]) -> dict[str, Any]:
    """Stands in for ``run_again``: the FID follows the seed; trial 0 fails for good, trial 1 for now."""
    folder, number, k = RunFolder(path), job["number"], job["k"]
    first = read_json(folder.trial(number) / "result.json")
    with (folder.path / "calls").open("a") as calls:
        calls.write(f"{number}/{k} ")
    if number == 1:
        raise RuntimeError("the disk was full")
    if number == 0:
        record = {**first, "state": "FAIL", "cause": "nan", "message": "the loss is nan"}
        write_json(place_of(folder, number, k) / "result.json", record)
        return {"state": "FAIL", "cause": "nan", "message": "the loss is nan"}
    write_repeat(folder, number, k, first["objectives"]["fid"] + k)
    return {"state": "COMPLETE", "fid": first["objectives"]["fid"] + k, "first": first["objectives"]["fid"]}


def write_repeat(folder: RunFolder, number: int, k: int, fid: float, **changes: Any) -> None:
    """A repetition as ``run_again`` leaves it."""
    first = read_json(folder.trial(number) / "result.json")
    place = place_of(folder, number, k)
    write_json(
        place / "result.json",
        {**first, "objectives": {**first["objectives"], "fid": fid}, "seed": seed_of(0, first["key"], k), **changes},
    )
    write_json(place / "subsets.json", {"schema": 1, "pictures": 50, "fid": [fid - 1, fid + 1, fid + 3]})

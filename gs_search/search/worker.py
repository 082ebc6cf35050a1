"""What runs in a worker process: trials, one after the other, each ending in a record.

A worker gets the path of the run folder and reads everything else there, once; Tune then hands it one trial
at a time. Whatever goes wrong inside a trial becomes a record with a cause. Only the death of the process is
left to Tune, which is therefore right to take every error it sees for one of the machine, and to try again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from gs_search.errors import TrialFailed
from gs_search.search.database import Asked, failure_record, objective_problem
from gs_search.search.preparation import function_named

if TYPE_CHECKING:
    from gs_search.config import StudyConfig
    from gs_search.runfolder import RunFolder

__all__ = ["TrialWorker", "run_one"]

HEARTBEAT_S = 1.0
"""Seconds between two writes of a trial's ``progress.json``."""


class TrialWorker(Trainable):
    """Tune's view of a trial: a step to each rung, and one that ends it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Read the study of the run folder; later trials of this process find it, and torch, in memory."""
        from gs_search.config import load_resolved
        from gs_search.runfolder import RunFolder

        self._folder = RunFolder(Path(config["folder"]))
        self._study = load_resolved(self._folder.resolved_yaml)
        self._asked = _asked(config)
        self._trial: Generator[dict[str, Any], None, dict[str, Any]] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._asked = _asked(new_config)
        self._leave()
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial as far as its next rung, or to its end; ``record`` is its ``result.json``."""
        if self._trial is None:
            self._trial = run_in_rungs(self.config["function"], self._asked, self._study, self._folder)
        # Both in a list, because Tune flattens nested dictionaries.
        try:
            return {"rung": [next(self._trial)], "done": False}
        except StopIteration as end:
            self._trial = None
            return {"record": [end.value], "done": True}

    def cleanup(self) -> None:
        """Forget a trial that was left at a rung."""
        self._leave()

    def _leave(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial is repeated whole."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def _asked(config: Mapping[str, Any]) -> Asked:
    return Asked(config["number"], dict(config["point"]), config["key"], config["seed"])


def run_one(function: str, asked: Asked, study: StudyConfig, folder: RunFolder) -> dict[str, Any]:
    """``run_in_rungs`` to the end."""
    trial = run_in_rungs(function, asked, study, folder)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            record: dict[str, Any] = end.value
            return record


def run_in_rungs(
    function: str, asked: Asked, study: StudyConfig, folder: RunFolder
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Run one trial to a record, which is on disk when this returns. Raises nothing that the trial causes.

    Args:
        function: ``module:name`` of a trial: a generator that pauses at rungs, or a plain function. Imported here, so
            that an import that fails is one of the trial's errors.
    """
    place = folder.trial(asked.number)
    place.mkdir(parents=True, exist_ok=True)
    result_path = place / "result.json"
    result_path.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        result = function_named(function)(
            asked.point,
            study,
            folder,
            number=asked.number,
            seed=asked.seed,
            on_progress=_heartbeat(folder, place),
        )
        if isinstance(result, Generator):
            result = yield from result
        record: dict[str, Any] = result.to_json()
        if problem := objective_problem(record):
            raise TrialFailed("nan", problem)
    except Exception as error:
        cause = _cause(error)
        if cause == "exception":
            with (place / "log.txt").open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
        message = str(error) if isinstance(error, TrialFailed) else f"{type(error).__name__}: {error}"
        record = failure_record(study.study, asked, cause, message, seconds=time.monotonic() - start)
        folder.write_json(result_path, record)
    else:
        if not result_path.exists():
            folder.write_json(result_path, record)
    finally:
        (place / "progress.json").unlink(missing_ok=True)
    return record


def _cause(error: Exception) -> str:
    if isinstance(error, TrialFailed):
        return error.cause
    # By name: torch has its own class for the GPU, and a plain RuntimeError for the CPU.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "out_of_memory" if named or "can't allocate memory" in str(error) else "exception"


def _heartbeat(folder: RunFolder, place: Path) -> Callable[[dict[str, Any]], None]:
    """Make the ``on_progress`` of a trial: it keeps ``progress.json`` fresh for ``status``."""
    start = last = time.monotonic()

    def beat(state: dict[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < HEARTBEAT_S:
            return
        last = now
        with suppress(OSError):  # a full disk shows where it matters, not in a progress note
            folder.write_json(place / "progress.json", {**state, "seconds": round(now - start, 1)})

    return beat

"""What runs in a worker process: trials, one after the other, each ending in a record.

A worker gets the path of the run folder and reads everything else there, once; Tune then hands it one trial
at a time. Whatever goes wrong inside a trial becomes a record with a cause. Only the death of the process is
left to Tune, which is therefore right to take every error it sees for one of the machine, and to try again.
"""

from __future__ import annotations

import faulthandler
import os
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import get_runtime_context
from ray.tune import Trainable

from gs_search.engine.preparation import function_named
from gs_search.engine.ray.nodes import machine, unfit
from gs_search.engine.ray.watchdog import end_without
from gs_search.engine.store_sync import TrialSync
from gs_search.errors import BadInput, GsSearchError, TrialFailed
from gs_search.results.record import Rung, TrialRecord, write_record
from gs_search.results.run_folder import RESULT
from gs_search.search.outcomes import STACK, Asked, failure_record, objective_problem
from gs_search.study.database_url import SECRETS
from gs_search.system.files import write_json
from gs_search.system.generators import returned

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = ["TrialWorker", "run_one"]

GRACE_S = 30.0
"""Seconds between the time limit of a trial, which its next step notices, and the end of its process."""

HEARTBEAT_S = 1.0
"""Seconds between two writes of a trial's ``progress.json``."""


class TrialWorker(Trainable):
    """Tune's view of a trial: a step to each rung, and one that ends it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Read the study of the run folder; later trials of this process find it, and torch, in memory."""
        from gs_search.results.run_folder import RunFolder
        from gs_search.study.config import load_resolved

        for name in SECRETS:  # of whoever started Ray on this node
            os.environ.pop(name, None)
        if config.get("told") and (problem := unfit(config["told"])):  # a node that came after the beginning
            raise BadInput(f"the node {machine()['host']} {problem}")
        if config.get("told"):
            end_without(get_runtime_context().gcs_address)
        self._folder = RunFolder(config["folder"], at_work=True)
        self._courier = TrialSync(self._folder)
        self._study = load_resolved(self._folder.resolved_yaml)
        self._node = machine(gpu=self._study.device != "cpu") | {"id": get_runtime_context().get_node_id()}
        self._asked, self._timeout_s = _asked(config), config.get("timeout_s")
        self._trial: Generator[Rung, None, TrialRecord] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._asked, self._timeout_s = _asked(new_config), new_config.get("timeout_s")
        self._leave()
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial as far as its next rung, or to its end; ``record`` is how it ended."""
        if self._trial is None:
            function, timeout_s = self.config["function"], self._timeout_s
            self._courier.begin(self._asked)
            self._trial = run_in_rungs(
                function, self._asked, self._study, self._folder, timeout_s=timeout_s, node=self._node
            )
        # As JSON, because Tune logs what it gets; both in a list, because it flattens nested dictionaries.
        try:
            return {"rung": [next(self._trial).to_json()], "done": False}
        except StopIteration as end:
            self._trial = None
            self._courier.end(result=True)
            return {"record": [end.value.to_json()], "done": True}

    def cleanup(self) -> None:
        """Forget a trial that was left at a rung."""
        self._leave()

    def _leave(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None
            with suppress(GsSearchError):  # the driver has written how it ended
                self._courier.end(result=False)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial is repeated whole."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def _asked(config: Mapping[str, Any]) -> Asked:
    return Asked(config["number"], dict(config["point"]), config["key"], config["seed"])


def run_one(function: str, asked: Asked, study: StudyConfig, folder: RunFolder) -> TrialRecord:
    """``run_in_rungs`` to the end."""
    return returned(run_in_rungs(function, asked, study, folder))


def run_in_rungs(
    function: str,
    asked: Asked,
    study: StudyConfig,
    folder: RunFolder,
    *,
    timeout_s: float | None = None,
    node: Mapping[str, Any] | None = None,
) -> Generator[Rung, None, TrialRecord]:
    """Run one trial to a record, which is on disk when this returns. Raises nothing that the trial causes.

    A trial that takes longer than ``timeout_s`` fails at its next step. One that takes no step any more ends its
    process ``GRACE_S`` later, where it hung being in its ``stack.txt``; the driver sees the process die, and knows why.

    Args:
        function: ``module:name`` of a trial: a generator that pauses at rungs, or a plain function. Imported here, so
            that an import that fails is one of the trial's errors.
        node: what runs it, for the record.
    """
    place = folder.trial(asked.number)
    place.mkdir(parents=True, exist_ok=True)
    result_path = place / RESULT
    result_path.unlink(missing_ok=True)
    start = time.monotonic()
    ending = _end_process_after(timeout_s, place / STACK)
    try:
        result = function_named(function)(
            asked.point,
            study,
            folder,
            number=asked.number,
            seed=asked.seed,
            on_progress=_heartbeat(folder, place, timeout_s),
        )
        if isinstance(result, Generator):
            result = yield from _until_left(result)
        if not isinstance(result, TrialRecord):
            raise TypeError(f"{function} returned {type(result).__name__}, not how the trial ended (TrialRecord)")
        record: TrialRecord = result
        if problem := objective_problem(record):
            raise TrialFailed("nan", problem)
    except GeneratorExit:
        raise
    except BaseException as error:  # SystemExit and the like would end the process, and cost the trial its cause
        if hasattr(error, "ray_terminate_msg"):  # Ray's way of passing on a SIGTERM: the machine's cause, not its own
            raise
        cause = _cause(error)
        if cause == "exception":
            with (place / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(traceback.format_exc())
        message = str(error) if isinstance(error, TrialFailed) else _said(error)
        seconds = time.monotonic() - start
        record = failure_record(study.study, asked, cause, message, place=place, seconds=seconds).but(node=node)
        write_record(result_path, record)
    else:
        if node is not None or not result_path.exists():
            record = record.but(node=node)
            write_record(result_path, record)
    finally:
        ending()
        (place / "progress.json").unlink(missing_ok=True)
    return record


def _until_left(trial: Generator[Rung, None, Any]) -> Generator[Rung, None, Any]:
    """``yield from``, but that a trial which is left may raise what it likes: its ending has been written."""
    while True:
        try:
            report = next(trial)
        except StopIteration as end:
            return end.value
        try:
            yield report
        except GeneratorExit:
            with suppress(BaseException):
                trial.close()
            raise


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own __str__ is broken
        return type(error).__name__


def _cause(error: BaseException) -> str:
    if isinstance(error, TrialFailed):
        return error.cause
    # By name: torch has its own class for the GPU, and a plain RuntimeError for the CPU.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "out_of_memory" if named or "can't allocate memory" in _said(error) else "exception"


def _end_process_after(seconds: float | None, path: Path) -> Callable[[], None]:
    """End this process after so many seconds and ``GRACE_S``; return what calls that off."""
    if seconds is None:
        return lambda: None
    # The C library's clock: a thread of Python would wait for ever for one that hangs without releasing the lock.
    file = path.open("w", encoding="utf-8")
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=file)

    def call_off() -> None:
        faulthandler.cancel_dump_traceback_later()
        file.close()
        path.unlink(missing_ok=True)

    return call_off


def _heartbeat(folder: RunFolder, place: Path, timeout_s: float | None) -> Callable[[dict[str, Any]], None]:
    """Make the ``on_progress`` of a trial: it keeps ``progress.json`` fresh for ``status``, and watches the time."""
    start = last = time.monotonic()

    def beat(state: dict[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        if timeout_s is not None and now - start > timeout_s:
            raise TrialFailed("timeout", f"took longer than {timeout_s / 60:.3g} minutes, at {_where(state)}")
        if now - last < HEARTBEAT_S:
            return
        last = now
        with suppress(OSError):  # a full disk shows where it matters, not in a progress note
            write_json(place / "progress.json", {**state, "seconds": round(now - start, 1)})

    return beat


def _where(state: Mapping[str, Any]) -> str:
    return f"step {state['step']} of {state['steps']}" if "steps" in state else "an unknown step"

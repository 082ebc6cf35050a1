"""Optuna behind Ray Tune's interface: Tune asks here for the next trial and reports here how each one ended.

Tune's own ``OptunaSearch`` records stopped trials as complete, leaves trials running for ever after a NaN, a
time budget or the driver's death, ends with the first hiccup of the database, and pickles its password. Here
every ending has a state and a cause, and nothing of the database leaves this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.search import Searcher

from gs_search.errors import GsSearchError
from gs_search.search.database import Asked, StudyDatabase

__all__ = ["SearchStopped", "StudyCallback", "StudySearcher"]

FAILURES_IN_A_ROW = 5
"""So many failures of one cause, one after the other, are no accident of a point."""

Record = dict[str, Any]


class SearchStopped(Exception):
    """Raised inside Tune's loop to end it; never leaves ``runner``."""


class StudySearcher(Searcher):
    """Asks and tells the study for Tune, up to a total of finished trials or a time.

    Args:
        total: finished trials to reach, those of earlier runs included.
        deadline: ``time.monotonic()`` value by which trials should have ended. No trial starts that would,
            judging by the median one, end after it.
        interrupted: says whether someone asked to stop.
        on_finish: gets the record of each trial that ended.
    """

    def __init__(
        self,
        database: StudyDatabase,
        *,
        total: int,
        deadline: float | None,
        interrupted: Callable[[], bool],
        on_finish: Callable[[Record], None],
    ) -> None:
        super().__init__()
        self.database = database
        self.total = total
        self.deadline = deadline
        self.interrupted = interrupted
        self.on_finish = on_finish
        self.live: dict[str, Asked] = {}
        self.error: GsSearchError | None = None
        """Why the search has to stop, if it has to."""
        self.out_of_time = False
        self._counted = database.counted()
        self._twins: dict[int, list[Asked]] = {}
        self._streak: list[Record] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """Next trial, or FINISHED."""
        try:
            while not self._must_end():
                asked = self.database.ask()
                if not self._answered(asked):
                    self.live[trial_id] = asked
                    return {
                        "number": asked.number,
                        "point": asked.point,
                        "key": asked.key,
                        "seed": asked.seed,
                    }
        except GsSearchError as error:
            self.error = error
        except Exception as error:
            # Tune would repeat the question for ten minutes; a broken sampler stays broken.
            self.error = GsSearchError(f"proposing a trial failed: {type(error).__name__}: {error}")
        return str(Searcher.FINISHED)

    def _must_end(self) -> bool:
        waiting = sum(map(len, self._twins.values()))
        if self.error or self.interrupted() or self._counted + len(self.live) + waiting >= self.total:
            return True
        if self.deadline is not None:
            usual = self.database.usual_seconds() or 0.0
            self.out_of_time = time.monotonic() + usual >= self.deadline
        return self.out_of_time

    def _answered(self, asked: Asked) -> bool:
        """Answer a point that is known already, or bind it to the live trial that is about to know it."""
        original = self.database.records.get(asked.key)
        if original is not None:
            self._finish(self.database.tell_duplicate(asked, original))
            return True
        twin_of = next((live.number for live in self.live.values() if live.key == asked.key), None)
        if twin_of is not None:
            self._twins.setdefault(twin_of, []).append(asked)
        return twin_of is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how a trial ended. Errors are told by ``StudyCallback``, which has their text."""
        if error or trial_id not in self.live:
            return
        if result is None or "record" not in result:
            self.end_without_result(trial_id, "exception", "the trial ended without a record")
            return
        self._end(trial_id, lambda asked: self._told(result["record"][0]))

    def end_without_result(self, trial_id: str, cause: str, message: str) -> None:
        """Fail a live trial."""
        self._end(trial_id, lambda asked: self.database.fail(asked, cause, message))

    def _told(self, record: Record) -> Record:
        self.database.tell(record)
        return record

    def _end(self, trial_id: str, tell: Callable[[Asked], Record]) -> None:
        # Tune turns whatever is raised here into an error of the trial, and goes on; so it is kept, and
        # StudyCallback raises it where Tune listens.
        asked = self.live.pop(trial_id, None)
        if asked is None:
            return
        try:
            record = tell(asked)
            self._finish(record)
            for twin in self._twins.pop(asked.number, []):
                if record["state"] == "COMPLETE":
                    self._finish(self.database.tell_duplicate(twin, asked.number))
                else:
                    self._finish(self.database.fail(twin, record["cause"], f"same point as {asked.number}"))
        except GsSearchError as error:
            self.error = error
        except Exception as error:
            self.error = GsSearchError(f"trial {asked.number} could not be recorded: {type(error).__name__}: {error}")

    def _finish(self, record: Record) -> None:
        self._counted += 1
        if record["state"] != "FAIL" or self._streak and self._streak[-1]["cause"] != record["cause"]:
            self._streak.clear()
        if record["state"] == "FAIL":
            self._streak.append(record)
        self.on_finish(record)
        if len(self._streak) >= FAILURES_IN_A_ROW:
            last = self._streak[-1]
            self.error = GsSearchError(
                f"stopped after {FAILURES_IN_A_ROW} failures in a row ({last['cause']}); the last, trial "
                f"{last['number']}, said: {last['message']}"
            )

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the database is the state, and a pickle would carry its password."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see ``save``."""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class StudyCallback(Callback):
    """Watches Tune's loop: ends it when asked, and tells of trials whose process died."""

    def __init__(self, searcher: StudySearcher, note: Callable[[str], None]) -> None:
        self.searcher = searcher
        self.note = note

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Leave the loop, busy workers killed, when there is a reason to."""
        if self.searcher.error is None and not self.searcher.interrupted():
            return
        for trial in trials:
            if actor := trial.temporary_state.ray_actor:
                ray.kill(actor)
        raise SearchStopped

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial is tried again."""
        if asked := self.searcher.live.get(trial.trial_id):
            self.note(f"trial {asked.number}: its process died; trying once more")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose process died twice."""
        text = _read(Path(trial.error_file)) if trial.error_file else ""
        cause = "out_of_memory" if "OutOfMemory" in text or "out of memory" in text.lower() else "killed"
        lines = [line for line in text.splitlines() if line.strip()]
        message = f"its process died twice: {lines[-1].strip() if lines else 'no reason given'}"
        self.searcher.end_without_result(trial.trial_id, cause, message)

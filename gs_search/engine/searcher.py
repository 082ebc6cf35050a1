"""Optuna behind Ray Tune's interface: Tune asks here for the next trial and reports here how each one ended.

Tune's own ``OptunaSearch`` records stopped trials as complete, leaves trials running for ever after a NaN, a
time budget or the driver's death, ends with the first hiccup of the database, and pickles its password. Here
every ending has a state and a cause, and nothing of the database leaves this process.
"""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.search import Searcher

from gs_search.engine.ray.local import dead_ray_process
from gs_search.errors import GsSearchError, one_line
from gs_search.results.record import Rung, TrialRecord
from gs_search.search.outcomes import Asked
from gs_search.search.stopping import Verdict
from gs_search.search.study_database import StudyDatabase

__all__ = ["RayLost", "SearchStopped", "StudyCallback", "StudySearcher"]

RETRIES = 1
"""Times that a trial is begun again after the death of its process; its own mistakes are final."""

MACHINES = 10
"""So many machines may die under one trial, as those that are lent cheaply do."""

FAILURES_IN_A_ROW = 5
"""So many failures of one cause, one after the other, are no accident of a point."""

LONGEST = 500
"""Letters of an error that is passed on; some bring a whole page of state."""


class SearchStopped(Exception):
    """Raised inside Tune's loop to end it; never leaves ``runner``."""


class RayLost(BaseException):
    """Raised inside Tune's loop when a part of Ray has died; never leaves ``runner``.

    No Exception, because after one of those Tune tidies up, and waits for answers of the dead.
    """


class StudySearcher(Searcher):
    """Asks and tells the study for Tune, up to a total of finished trials or a time.

    Args:
        total: finished trials to reach, those of earlier runs included.
        deadline: ``time.monotonic()`` value by which trials should have ended. No trial starts that would,
            judging by the median one, end after it.
        interrupted: says whether someone asked to stop.
        on_finish: gets the record of each trial that ended.
        is_gone: says whether the machine of an address has died.
    """

    def __init__(
        self,
        database: StudyDatabase,
        *,
        total: int,
        deadline: float | None,
        interrupted: Callable[[], bool],
        on_finish: Callable[[TrialRecord], None],
        is_gone: Callable[[str], bool] = lambda address: False,
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
        self.verdicts: dict[str, Verdict] = {}
        """Why trials are left at the rung that they have just reached."""
        self._counted = database.counted()
        self._seconds = sorted(database.seconds())
        self._twins: dict[int, list[Asked]] = {}
        self._streak: list[TrialRecord] = []
        self._again: deque[Asked] = deque()
        self._is_gone = is_gone
        self._deaths: dict[int, list[str | None]] = {}
        """Where the processes were that died over a trial."""
        self._stillborn: Counter[int] = Counter()
        self._limits: dict[str, tuple[float, float]] = {}
        """When live trials began, and the seconds that each has."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Next trial; None while there is none but one may have to be repeated; or FINISHED."""
        answer = self._suggest(trial_id)
        if dead := dead_ray_process():  # while the sampler was thinking; what Tune does next is to ask Ray
            raise RayLost(dead)
        return answer

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            if self._again and not self._must_stop():
                return self._start(trial_id, self._again.popleft())
            while not self._must_stop() and not self._has_enough():
                asked = self.database.ask()
                if not self._answered(asked):
                    return self._start(trial_id, asked)
            if self.live and self.error is None and not self.interrupted():
                return None
        except Exception as error:
            # Tune would repeat the question for ten minutes; a broken sampler stays broken.
            self.give_up("proposing a trial", error)
        return str(Searcher.FINISHED)

    def _start(self, trial_id: str, asked: Asked) -> dict[str, Any]:
        timeout = self.database.timeout_s(self._usual())
        self.live[trial_id] = asked
        self._limits[trial_id] = (time.monotonic(), math.inf if timeout is None else timeout)
        told = {"number": asked.number, "point": asked.point, "key": asked.key, "seed": asked.seed}
        return {**told, "timeout_s": timeout}

    def _usual(self) -> float | None:
        return statistics.median(self._seconds) if self._seconds else None

    def asks_no_more(self) -> bool:
        """Whether the trials that run are the last ones, as it looks now."""
        return self._must_stop() or self._has_enough()

    def _has_enough(self) -> bool:
        waiting = len(self._again) + sum(map(len, self._twins.values()))
        return self._counted + len(self.live) + waiting >= self.total

    def _must_stop(self) -> bool:
        if self.error or self.interrupted():
            return True
        if self.deadline is not None:
            self.out_of_time = time.monotonic() + (self._usual() or 0.0) >= self.deadline
        return self.out_of_time

    def _answered(self, asked: Asked) -> bool:
        """Answer a point that may not start or is known, or bind it to the live trial that is about to know it."""
        if refused := self.database.refuse(asked):
            self._finish(refused)
            return True
        original = self.database.records.get(asked.key)
        if original is not None:
            self._finish(self.database.tell_duplicate(asked, original))
            return True
        unfinished = [*self.live.values(), *self._again]
        twin_of = next((other.number for other in unfinished if other.key == asked.key), None)
        if twin_of is not None:
            self._twins.setdefault(twin_of, []).append(asked)
        return twin_of is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how a trial ended. Errors are told by ``StudyCallback``, which has their text."""
        if error or trial_id not in self.live:
            return
        if verdict := self.verdicts.pop(trial_id, None):
            self._end(trial_id, lambda asked: self.database.leave(asked, verdict, _rung(result)))
            return
        if result is None or "record" not in result:
            self.end_without_result(trial_id, "exception", "the trial ended without a record")
            return
        self._end(trial_id, lambda asked: self._told(TrialRecord.from_json(result["record"][0])))

    def process_died(
        self, trial_id: str, cause: str, reason: str, *, begun: bool = True, address: str | None = None
    ) -> bool:
        """Have a live trial run once more in another process, or fail it; say whether it runs again.

        Tune's own retries are off: a process that dies between two trials costs the next one both its tries.

        Args:
            begun: the trial was at work in it. Where not, it is not to blame, and is not failed for that; but it stops
                the search that one process after the other dies.
            address: of the machine that it was on, where that is known.
        """
        asked = self.live.get(trial_id)
        if asked is None:
            return False
        try:
            record = self.database.unheard_result(self.database.trials()[asked.number])
        except Exception as error:
            self.give_up(f"looking for the result of trial {asked.number}", error)
            return False
        if record:
            self._end(trial_id, lambda _: self._told(record))
            return False
        began, limit = self._limits[trial_id]
        if time.monotonic() - began >= limit:  # the worker has ended itself, see ``worker``
            self.end_without_result(trial_id, "timeout", f"took longer than {limit / 60:.3g} minutes, and did not end")
            return False
        if begun:
            self._deaths.setdefault(asked.number, []).append(address)
        else:
            self._stillborn[asked.number] += 1
        if self._stillborn[asked.number] >= FAILURES_IN_A_ROW:
            self.error = GsSearchError(
                f"stopped after {FAILURES_IN_A_ROW} processes died before they began trial {asked.number}; the last: "
                f"{reason[:LONGEST]}"
            )
            return False
        if self._guilty(asked.number):
            self.end_without_result(trial_id, cause, f"its process died twice: {reason}")
            return False
        self._again.append(self.live.pop(trial_id))
        return True

    def _guilty(self, number: int) -> bool:
        """Whether processes die of a trial. Those that went down with their machine did not, unless all machines do."""
        died = self._deaths.get(number, [])
        if len(died) <= RETRIES:
            return False
        blamed = [address for address in died if address is None or not self._is_gone(address)]
        return len(blamed) > RETRIES or len(died) > MACHINES

    def end_without_result(self, trial_id: str, cause: str, message: str) -> None:
        """Fail a live trial."""
        self._end(trial_id, lambda asked: self.database.fail(asked, cause, message))

    def _told(self, record: TrialRecord) -> TrialRecord:
        self.database.tell(record)
        return record

    def _end(self, trial_id: str, tell: Callable[[Asked], TrialRecord]) -> None:
        # Tune turns whatever is raised here into an error of the trial, and goes on; so it is kept, and
        # StudyCallback raises it where Tune listens.
        asked = self.live.pop(trial_id, None)
        if asked is None:
            return
        try:
            record = tell(asked)
            self._finish(record)
            for twin in self._twins.pop(asked.number, []):
                if record.is_complete:
                    self._finish(self.database.tell_duplicate(twin, asked.number))
                elif record.state == "PRUNED":
                    self._finish(self.database.leave(twin, record.message, None))
                else:
                    self._finish(self.database.fail(twin, record.cause or "exception", f"same point as {asked.number}"))
        except Exception as error:
            self.give_up(f"recording trial {asked.number}", error)

    def _finish(self, record: TrialRecord) -> None:
        self._counted += 1
        if record.is_trained and record.seconds is not None:
            bisect.insort(self._seconds, record.seconds)
        if record.state != "FAIL" or self._streak and self._streak[-1].cause != record.cause:
            self._streak.clear()
        if record.state == "FAIL":
            self._streak.append(record)
        self.on_finish(record)
        if len(self._streak) >= FAILURES_IN_A_ROW:
            last = self._streak[-1]
            self.error = GsSearchError(
                f"stopped after {FAILURES_IN_A_ROW} failures in a row ({last.cause}); the last, trial "
                f"{last.number}, said: {last.message}"
            )

    def give_up(self, doing: str, error: Exception) -> None:
        """End the search for an error that is no trial's. Tune would swallow it, or end with its own traceback."""
        if self.error is None and isinstance(error, GsSearchError):
            self.error = error
        elif self.error is None:
            self.error = GsSearchError(f"{doing} failed: {one_line(error)}")
            self.error.__cause__ = error

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the database is the state, and a pickle would carry its password."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see ``save``."""


def _rung(result: Mapping[str, Any] | None) -> Rung | None:
    return Rung.from_json(result["rung"][0]) if result and "rung" in result else None


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
        self._begun: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a process has taken a trial."""
        self._begun.add(trial.trial_id)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Leave the loop, busy workers killed, when there is a reason to."""
        if dead := dead_ray_process():
            raise RayLost(dead)
        if self.searcher.error is None and not self.searcher.interrupted():
            return
        for trial in trials:
            if actor := trial.temporary_state.ray_actor:
                ray.kill(actor)
        raise SearchStopped

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Repeat or record a trial whose process died."""
        asked = self.searcher.live.get(trial.trial_id)
        text = _read(Path(trial.error_file)) if trial.error_file else ""
        cause = "out_of_memory" if "OutOfMemory" in text or "out of memory" in text.lower() else "killed"
        lines = [line for line in text.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "no reason given"
        begun = trial.trial_id in self._begun
        address = (getattr(trial, "last_result", None) or {}).get("node_ip")
        died = self.searcher.process_died(trial.trial_id, cause, reason, begun=begun, address=address)
        if died and asked is not None:
            how = "died; trying once more" if begun else "died before it began; trying again"
            self.note(f"trial {asked.number}: its process {how}")

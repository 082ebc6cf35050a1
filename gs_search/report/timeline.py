"""When each trial ran, and on which worker; workers are inferred, because no result names its own.

A finished trial notes when it started. One that was stopped or failed does not, but the study database knows when it
ended; that clock is local time of whichever machine ran the search, so it is set by the trials that both know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from statistics import median

from gs_search.errors import GsSearchError
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder

__all__ = ["Span", "pack", "trial_times"]

Times = dict[int, tuple[datetime, float]]
"""Trial number to its start and the seconds that it took."""

OVERLAP_S = 2.0
"""Starts are noted in whole seconds; trials that overlap by less ran one after the other."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One trial in time. ``start`` counts seconds from the first start of the study."""

    number: int
    start: float
    seconds: float
    worker: int
    """From 0; the lowest that was free."""


def trial_times(folder: RunFolder, results: Sequence[TrialRecord]) -> Times:
    """Find when the trials of a folder ran; those that took no time of their own, or left none, are not in it."""
    own = [result for result in results if result.duplicate_of is None and not result.warm_start]
    timed = {result.number: result.seconds for result in own if result.seconds}
    times: Times = {}
    for result in own:
        start = _moment(result.started)
        if start is not None and result.number in timed:
            times[result.number] = (start, timed[result.number])
    if times and timed.keys() - times.keys() and folder.database.is_file():
        with suppress(GsSearchError):  # a report can do without
            times |= _from_ends(_database_ends(folder), timed, times)
    return times


def pack(times: Times) -> tuple[Span, ...]:
    """Put trials on as few workers as their times allow, in the order of their starts."""
    if not times:
        return ()
    first = min(start for start, _ in times.values())
    spans: list[Span] = []
    free: list[float] = []  # by worker: when its last trial ends
    for number, (begin, seconds) in sorted(times.items(), key=lambda entry: (entry[1][0], entry[0])):
        start = (begin - first).total_seconds()
        worker = next((index for index, end in enumerate(free) if end <= start + OVERLAP_S), len(free))
        free[worker : worker + 1] = [start + seconds]
        spans.append(Span(number=number, start=start, seconds=seconds, worker=worker))
    return tuple(spans)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _database_ends(folder: RunFolder) -> dict[int, datetime]:
    """Trial number to its end on the clock of the database, without a time zone."""
    # Imported here: only a folder with stopped or failed trials needs Optuna for this.
    import optuna

    from gs_search.search.storage import open_study

    try:
        trials = open_study(folder.config().study, folder.database, read_only=True).get_trials(deepcopy=False)
    except (optuna.exceptions.OptunaError, LookupError, ValueError) as error:  # damaged
        raise GsSearchError(f"{folder.database}: cannot be read") from error
    return {trial.number: trial.datetime_complete for trial in trials if trial.datetime_complete is not None}


def _from_ends(ends: Mapping[int, datetime], timed: Mapping[int, float], known: Times) -> Times:
    """Times of the trials whose end alone is noted."""
    offsets = [
        (start + timedelta(seconds=seconds)).astimezone(timezone.utc).replace(tzinfo=None) - ends[number]
        for number, (start, seconds) in known.items()
        if number in ends
    ]
    if not offsets:
        return {}
    offset = timedelta(seconds=median(gap.total_seconds() for gap in offsets))
    return {
        number: ((end + offset).replace(tzinfo=timezone.utc) - timedelta(seconds=timed[number]), timed[number])
        for number, end in ends.items()
        if number in timed and number not in known
    }

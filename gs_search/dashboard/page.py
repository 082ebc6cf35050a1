"""What the dashboard shows of a run folder: notes and figures, made when somebody looks, and kept until files change.

Knows neither Optuna nor HTTP. A file is read again only when its time, size or inode says so, because a browser asks
every ten seconds, and a study has thousands of files.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gs_search.dashboard.figures import study_figures
from gs_search.dashboard.notes import study_note, trial_note
from gs_search.errors import GsSearchError
from gs_search.report.content import gather
from gs_search.report.trials import KINDS
from gs_search.results.front import front_document
from gs_search.results.pick import PICK_FILE, read_pick
from gs_search.results.record import Baselines, FullRecord, TrialRecord, read_baselines, read_trial
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.retrain.summary import summarize
from gs_search.study.config import StudyConfig
from gs_search.study.constraints import resolve, violations

__all__ = ["Page", "RunPage", "TrialPage"]

T = TypeVar("T")

WAIT_S = 1.0
"""How long a browser waits for the study's note and figures; if they take longer, it gets those of before."""
SHARE = 0.1
"""Share of the time that may go into making them."""
REST_S = 1.0
"""Time between two looks at what has changed."""

_ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError)
"""What a file raises that is well-formed, but not what was meant."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is shown of the study as a whole."""

    note: str
    """Markdown."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """Plotly's JSON by name."""


@dataclass(frozen=True, kw_only=True)
class TrialPage:
    """What is shown of one trial."""

    note: str
    """Markdown."""
    violated: Mapping[str, float]
    """Share by which it exceeds each limit of the study; empty where none is known."""


class _Kept(RunFolder):
    """A run folder that reads a file again only once it has changed. What it returns must not be changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept: dict[Path, tuple[tuple[int, ...], Any]] = {}
        self._config: tuple[tuple[int, ...], StudyConfig] | None = None

    def read(self, path: Path, reader: Callable[[Path], T]) -> T:
        """As of any run folder."""
        state = _state(path)
        kept = self._kept.get(path)
        if kept is None or kept[0] != state or not state:
            kept = self._kept[path] = state, super().read(path, reader)
        found: T = kept[1]
        return found

    def look(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        """As ``read``; None where there is no such file."""
        try:
            return self.read(path, reader)
        except GsSearchError:
            if path.is_file():
                raise
            return None

    def config(self) -> StudyConfig:
        """As of any run folder."""
        state = _state(self.resolved_yaml)
        if self._config is None or self._config[0] != state:
            self._config = state, super().config()
        return self._config[1]


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file does; empty where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


class RunPage:
    """Notes and figures of one run folder. Threads may share it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = _Kept(folder.path)
        self._lock = threading.Lock()
        self._making: Future[None] | None = None
        self._rest_until = 0.0
        self._seen: object = None
        self._page = Page(note="The front is being drawn.")
        self._trials: dict[int, tuple[TrialRecord, str, tuple[int, int], TrialPage]] = {}

    # --- trials

    def trial(self, number: int, state: str, cause: str | None = None, message: str | None = None) -> TrialPage:
        """What is shown of one trial.

        Args:
            state: Optuna's word for it.
            cause, message: what the database says of its ending, for a trial without a ``result.json``.
        """
        folder = self._folder
        try:
            record = folder.look(folder.trial(number) / RESULT, read_trial) if state != "RUNNING" else None
            baselines = folder.look(folder.baselines, read_baselines)
            full = folder.full_result(number)
        except GsSearchError as error:
            record, baselines, full, message = None, None, None, str(error)
        kept, others = self._trials.get(number), (id(baselines), id(full))
        if kept is not None and record is not None and kept[0] is record and kept[1:3] == (state, others):
            return kept[3]
        page = self._trial(number, state, record, baselines, full, cause, message)
        if record is not None:
            self._trials[number] = record, state, others, page
        return page

    def _trial(
        self,
        number: int,
        state: str,
        record: TrialRecord | None,
        baselines: Baselines | None,
        full: FullRecord | None,
        cause: str | None,
        message: str | None,
    ) -> TrialPage:
        try:
            violated = {} if record is None else self._violated(record, baselines)
            note = trial_note(
                number,
                state,
                record,
                folder=str(self._folder.path),
                cause=cause if record is None else record.cause,
                message=message if record is None else record.message,
                baselines=baselines,
                violated=violated,
                progress=self._progress(number) if state == "RUNNING" else None,
                full=full,
            )
        except _ODD as error:  # one trial's file must not hide the others
            return TrialPage(note=f"Its result.json lacks {error}; was another version at work?", violated={})
        return TrialPage(note=note, violated=violated)

    def _violated(self, record: TrialRecord, baselines: Baselines | None) -> dict[str, float]:
        if not record.is_complete:
            return dict(record.constraints or {})
        teacher_fid = None if baselines is None else baselines.teacher.fid
        return violations(record.values, resolve(self._folder.config().constraints.model_dump(), teacher_fid))

    def _progress(self, number: int) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder.trial(number) / "progress.json").read_text("utf-8"))
        except (OSError, ValueError):  # not begun, or ending just now
            return None
        return found if isinstance(found, dict) else None

    # --- the study

    def study(self) -> Page:
        """Note and figures of the study as they are now, or were a short while ago."""
        with self._lock:
            if self._making is None and time.monotonic() >= self._rest_until:
                self._making = Future()
                # No thread of a pool: a server that is stopped does not wait for figures.
                threading.Thread(target=self._make_if_changed, args=(self._making,), daemon=True).start()
            making = self._making
        if making is not None:
            with suppress(NotYet):
                making.result(WAIT_S)
        return self._page

    def study_now(self) -> Page:
        """Note and figures of the study, however long they take."""
        return self._make()

    def _make_if_changed(self, making: Future[None]) -> None:
        """Runs in a thread, one at a time."""
        begun = time.monotonic()
        try:
            seen = self._sight()
            if seen != self._seen:
                self._page = self._make()
                self._seen = seen
        finally:
            now = time.monotonic()
            with self._lock:
                self._rest_until = now + max(REST_S, (now - begun) * (1 / SHARE - 1))
                self._making = None
            making.set_result(None)

    def _sight(self) -> object:
        """What is the same as long as nothing has changed."""
        folder = self._folder
        try:
            results = [id(result) for result in folder.results()]
        except GsSearchError as error:
            return str(error)
        others = [folder.baselines, folder.path / PICK_FILE, folder.resolved_yaml]
        again = sorted(folder.trials.glob("*/again/*/*.json"))  # of front --reevaluate
        full = sorted(folder.retrain.glob("*/result.json"))
        return results, [(str(path), _state(path)) for path in (*others, *again, *full)]

    def _make(self) -> Page:
        folder = self._folder
        try:
            document = front_document(folder)
            content, full = gather(folder), summarize(folder)
        except GsSearchError as error:
            return Page(note=str(error))
        except _ODD as error:
            return Page(note=f"The front cannot be shown: a file lacks {error}; was another version at work?")
        figures, failed = study_figures(content)
        note = study_note(
            document,
            folder=str(folder.path),
            endings={KINDS[kind]: count for kind, count in content.kinds.items() if count},
            pick=self._pick(),
            full=full,
        )
        return Page(note="\n\n".join([note, *failed]), figures=figures)

    def _pick(self) -> dict[str, Any] | None:
        try:
            return read_pick(self._folder)
        except GsSearchError:  # nothing is picked, or its trial is gone
            return None

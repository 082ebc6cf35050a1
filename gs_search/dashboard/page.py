"""What the dashboard shows of a run folder: notes and figures, made when somebody looks, and kept until files change.

Knows neither Optuna nor HTTP. A file is read again only when its time, size or inode says so, because a browser asks
every ten seconds, and a study has thousands of files.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gs_search.dashboard.figures import study_figures
from gs_search.dashboard.notes import study_note, trial_note
from gs_search.errors import GsSearchError
from gs_search.report.content import gather
from gs_search.report.trials import KINDS
from gs_search.results.front import front_document
from gs_search.results.pick import PICK_FILE, read_pick
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.summary import summarize
from gs_search.study.config import StudyConfig
from gs_search.study.constraints import resolve, violations

__all__ = ["Page", "RunPage", "TrialPage"]

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
        self._json: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._config: tuple[tuple[int, ...], StudyConfig] | None = None

    def read_json(self, path: Path) -> dict[str, Any]:
        """As of any run folder."""
        state = _state(path)
        kept = self._json.get(path)
        if kept is None or kept[0] != state or not state:
            kept = self._json[path] = state, super().read_json(path)
        return kept[1]

    def look(self, path: Path) -> dict[str, Any] | None:
        """As ``read_json``; None where there is no such file."""
        try:
            return self.read_json(path)
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
        self._trials: dict[int, tuple[Mapping[str, Any], str, tuple[int, int], TrialPage]] = {}

    # --- trials

    def trial(self, number: int, state: str, known: Mapping[str, Any]) -> TrialPage:
        """What is shown of one trial.

        Args:
            state: Optuna's word for it.
            known: what the database says of it, for a trial without a ``result.json``.
        """
        folder = self._folder
        try:
            record = folder.look(folder.trial(number) / "result.json") if state != "RUNNING" else None
            baselines = folder.look(folder.baselines)
            retrained = folder.retrained(number) / "result.json"
            full = folder.look(retrained) if retrained.is_file() else None
        except GsSearchError as error:
            record, baselines, full = {**known, "message": str(error)}, None, None
        kept, others = self._trials.get(number), (id(baselines), id(full))
        if kept is not None and record is not None and kept[0] is record and kept[1:3] == (state, others):
            return kept[3]
        page = self._trial(number, state, record or known, baselines, full)
        if record is not None:
            self._trials[number] = record, state, others, page
        return page

    def _trial(
        self,
        number: int,
        state: str,
        record: Mapping[str, Any],
        baselines: Mapping[str, Any] | None,
        full: Mapping[str, Any] | None,
    ) -> TrialPage:
        try:
            violated = self._violated(record, baselines)
            note = trial_note(
                number,
                state,
                record,
                folder=str(self._folder.path),
                baselines=baselines,
                violated=violated,
                progress=self._progress(number) if state == "RUNNING" else None,
                full=full,
            )
        except _ODD as error:  # one trial's file must not hide the others
            return TrialPage(note=f"Its result.json lacks {error}; was another version at work?", violated={})
        return TrialPage(note=note, violated=violated)

    def _violated(self, record: Mapping[str, Any], baselines: Mapping[str, Any] | None) -> dict[str, float]:
        if record.get("state") != "COMPLETE" or not record.get("objectives"):
            return dict(record.get("constraints") or {})
        return violations(record["objectives"], resolve(self._folder.config().constraints.model_dump(), baselines))

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

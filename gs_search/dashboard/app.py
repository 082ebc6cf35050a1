"""Optuna's dashboard over a run folder, as a WSGI application: filled, quick with thousands of trials, and alone.

Three things cannot be had through its storage. Notes and figures are put into its answers by a plugin of Bottle, its
framework. The front that it lists as best trials it finds in time quadratic in the trials, every ten seconds, and
with students among them that miss a constraint: ours takes its place. And while there is no study yet, a page says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna_dashboard

from gs_search.dashboard.feasible import CONSTRAINTS, feasible_front
from gs_search.dashboard.notes import merged
from gs_search.dashboard.overlay import OverlayStorage
from gs_search.dashboard.page import RunPage
from gs_search.dashboard.source import StudySource
from gs_search.dashboard.stored import Note, Pictures
from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["DashboardApp"]

STYLE = Path(__file__).with_name("page.css")
STYLE_PATH = "/gs-search.css"

WAITING = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="3"><title>{study}: not there yet</title></head>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1 style="font-size: 1.3rem">{study}</h1><p>{words}</p>
<p>This page looks again every three seconds.</p></body></html>
"""


class DashboardApp:
    """The dashboard of one run folder. Call ``close`` at the end."""

    def __init__(self, folder: RunFolder, *, url: str | None = None, writable: bool = False) -> None:
        study = folder.config().study
        self.study = study
        self.folder = folder
        self.source = StudySource(folder, url=url, writable=writable)
        self.page = RunPage(folder)
        pictures = Pictures(folder, study)
        self.storage = OverlayStorage(self.source, pictures, writable=writable)
        _list_feasible_front()
        _log_in_lines()
        self._dashboard: Any = optuna_dashboard.wsgi(self.storage, artifact_store=pictures)
        self._dashboard.install(_Filling(self.storage, self.page))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request: the way in leads to the study, or to the page that waits for it; the rest is Optuna's."""
        path = environ.get("PATH_INFO", "").rstrip("/")
        if path == "" or path == "/dashboard" or path.startswith("/dashboard/"):
            try:
                study_id = self.source.study()._study_id
            except BadInput as error:
                return self._wait(error, start_response)
            if path == "":
                start_response("302 Found", [("Location", f"/dashboard/studies/{study_id}"), ("Content-Length", "0")])
                return [b""]
            return self._styled(environ, start_response)
        if path == STYLE_PATH:
            return _answer(start_response, "text/css; charset=utf-8", STYLE.read_bytes())
        # It fails without this header, which browsers send and scripts do not.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        answer: Iterable[bytes] = self._dashboard(environ, start_response)
        return answer

    def close(self) -> None:
        """Let go of the database."""
        self.source.close()

    def _wait(self, error: BadInput, start_response: StartResponse) -> list[bytes]:
        running = self.folder.holder() is not None
        words = "The run prepares what its trials share; the study comes after that." if running else str(error)
        body = WAITING.format(study=escape(self.study), words=escape(words)).encode()
        return _answer(start_response, "text/html; charset=utf-8", body)

    def _styled(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The dashboard's page with a style sheet of ours, without which it is wider than a phone, or a desk."""
        told: list[Any] = []
        # Always the whole page, not the news that it is as it was.
        asked = {name: value for name, value in environ.items() if not name.startswith("HTTP_IF_")}
        answer = self._dashboard(asked, lambda *arguments: told.extend(arguments[:2]))
        try:
            page = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        link = f'<link rel="stylesheet" href="{STYLE_PATH}"></head>'.encode()
        page = page.replace(b"</head>", link, 1)
        status, headers = told
        kept = [pair for pair in headers if pair[0].lower() not in ("content-length", "etag", "last-modified")]
        start_response(status, [*kept, ("Content-Length", str(len(page)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]


def _answer(start_response: StartResponse, kind: str, body: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class _Filling:
    """Plugin of Bottle that puts notes, figures, and what tells infeasible trials, into the answer about a study."""

    name, api = "gs_search", 2
    RULE = "/api/studies/<study_id:int>"

    def __init__(self, storage: OverlayStorage, page: RunPage) -> None:
        self._storage = storage
        self._page = page

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if route.rule != self.RULE or route.method != "GET":
            return callback

        def filled(*arguments: Any, **named: Any) -> Any:
            answer = callback(*arguments, **named)
            if isinstance(answer, dict) and "trials" in answer:
                self._fill(answer)
            return answer

        return filled

    def _fill(self, study: dict[str, Any]) -> None:
        page, notes = self._page.study(), self._storage.notes
        study["note"] = _note(notes.get(None, Note()), page.note)
        study["plotly_graph_objects"] += [{"id": name, "graph_object": figure} for name, figure in page.figures.items()]
        for trial in (*study["trials"], *study["best_trials"]):
            self._fill_trial(trial, notes.get(trial["trial_id"], Note()))

    def _fill_trial(self, trial: dict[str, Any], own: Note) -> None:
        page = self._page.trial(trial["number"], trial["state"].upper(), *_ending(trial))
        trial["note"] = _note(own, page.note)
        if page.violated and not trial[CONSTRAINTS]:
            trial[CONSTRAINTS] = [max(page.violated.values())]


def _note(own: Note, written: str) -> dict[str, Any]:
    """Our words within the user's, under the version of what stands in the database."""
    return {"version": own.version, "body": merged(own.body, written)}


def _ending(trial: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Cause and message of a trial's ending, as far as the database knows them."""
    told = {entry["key"]: entry["value"] for entry in trial["user_attrs"]}
    return told.get("cause"), told.get("message")


def _list_feasible_front() -> None:
    """Have the dashboard list the front that we mean; a version without that function keeps its own."""
    from optuna_dashboard import _app

    if hasattr(_app, "get_pareto_front_trials"):
        _app.get_pareto_front_trials = feasible_front


class _OneLine(logging.Formatter):
    """What went wrong, without the traceback that the dashboard writes into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return f"dashboard: {record.getMessage().splitlines()[0]}"


def _log_in_lines() -> None:
    logger = logging.getLogger("optuna_dashboard")
    if not any(isinstance(handler.formatter, _OneLine) for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine())
        logger.addHandler(handler)
        logger.propagate = False

"""What a terminal shows of a study: once, or again and again while it runs."""

from __future__ import annotations

import datetime
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.text import Text

from gs_search.errors import GsSearchError
from gs_search.monitor.status import StatusReader
from gs_search.remote import Place, is_remote
from gs_search.results.run_folder import RunFolder
from gs_search.system.text import duration

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

__all__ = ["render_status", "watch"]

UNREADABLE = 5
"""So many looks in a row at a study that cannot be read end the watching; one or two may be bad luck."""

BEGINNING = {"lock", "study.yaml", "search_space.yaml"}
"""Files that a run makes before the one that makes its folder a run folder."""

CURVE_WIDTH = 50
SHOWN_FAILURES, SHOWN_GAINS = 3, 3
UNITS = {"fid": "FID {:.2f}", "gflops": "{:.4g} GFLOPs", "size_mb": "{:.3g} MB"}
PHASES = {"preparing": "preparing", "running": "running", "finished": "finished"}

Document = Mapping[str, Any]


def render_status(document: Document) -> RenderableType:
    """Draw what ``study_status`` found for a terminal."""
    lines: list[RenderableType] = [_heading(document), Text(_counts(document))]
    if document["taken_over"]:
        lines.append(Text(f"{document['taken_over']} taken over from an earlier study, in addition"))
    if document["infeasible"] or document["never_started"]:
        never = f"; {document['never_started']} never started, being too large" if document["never_started"] else ""
        lines.append(Text(f"{document['infeasible']} students miss a constraint{never}", style="yellow"))
    if document["front"]:
        volume = document["hypervolume"]
        worth = "" if volume is None else f", hypervolume {volume:.4f}"
        lines.append(Text(f"{len(document['front'])} on the front{worth}", style="green"))
        best = (f"{UNITS[name].format(b['value'])} (trial {b['trial']})" for name, b in document["best"].items())
        lines.append(Text(f"best of each: {', '.join(best)}"))
    if document["hypervolume"] and document["history"]:
        lines += _worth(document["history"])
    lines += [Text(line) for line in _time(document)]
    if document["stopped"]:
        where = ", ".join(f"{count} at {step} steps" for step, count in document["stopped"].items())
        lines.append(Text(f"stopped early: {where}; about {duration(document['seconds_saved'])} saved"))
    for step, found in document["agreement"].items():
        told = (
            f"distance at {step} steps and final FID: rank correlation {found['spearman']:.2f} over {found['trials']}"
        )
        lines.append(Text(told, style="dim"))
    if document["running"] and document["workers"]:
        lines.append(Text(f"{len(document['live'])} of {document['workers']} workers busy"))
    lines += [Text(_live_line(trial, bool(document["running"]))) for trial in document["live"]]
    lines += _failures(document)
    lines += _advice(document["advice"])
    return Group(*lines)


def _heading(document: Document) -> Text:
    state, holder = PHASES.get(document["phase"], "not running"), document["holder"]
    if holder:
        state += f" (process {holder['pid']} on {holder['host']})"
    return Text.assemble((document["study"], "bold"), f": {state}")


def _counts(document: Document) -> str:
    states = ", ".join(f"{count} {name}" for name, count in document["states"].items() if count)
    return f"{document['finished']} of {document['total']} trials finished ({states or 'none yet'})"


def _worth(history: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Hypervolume against cost: a curve, and the last gains."""
    gains, before = [], 0.0
    for step in history:
        if step["hypervolume"] > before + 1e-12:
            gains.append(f"trial {step['trial']} +{step['hypervolume'] - before:.2g} after {duration(step['seconds'])}")
        before = step["hypervolume"]
    return [_Curve(history), Text(f"last gains: {', '.join(gains[: -SHOWN_GAINS - 1 : -1])}", style="dim")]


class _Curve:
    """Hypervolume against the workers' seconds on one line, as wide as there is room for."""

    def __init__(self, history: Sequence[Mapping[str, Any]]) -> None:
        self._history = history

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        spent, most = self._history[-1]["seconds"], self._history[-1]["hypervolume"]
        width = min(CURVE_WIDTH, options.max_width - 64)
        if spent <= 0 or width < 5:
            return
        values, place, value = [], 0, 0.0
        for column in range(1, width + 1):
            while place < len(self._history) and self._history[place]["seconds"] <= spent * column / width + 1e-9:
                value = self._history[place]["hypervolume"]
                place += 1
            values.append(value)
        bars, least = "_.:-=+*#" if options.ascii_only else "▁▂▃▄▅▆▇█", values[0]
        span = most - least or 1.0
        curve = "".join(bars[min(len(bars) - 1, int(len(bars) * (value - least) / span))] for value in values)
        yield Text.assemble(
            f"hypervolume against cost: {least:.4f} ",
            (curve, "green"),
            f" {most:.4f} after {duration(spent)} of work",
        )


def _time(document: Document) -> Iterator[str]:
    if document["seconds_a_trial"] is None and document["seconds_left"] is None:
        return
    usual, left = document["seconds_a_trial"], document["seconds_left"]
    parts = [] if usual is None else [f"a trial takes {duration(usual)}"]
    if left is not None:
        parts.append(f"about {duration(left)} left")
    if document["ends"] is not None:
        clock = datetime.datetime.fromisoformat(document["ends"]).strftime("%d %b %H:%M")
        if document["limit"] == "hours":
            then = "" if document["finished_then"] is None else f", with about {document['finished_then']} trials"
            parts.append(f"until time is up at {clock}{then}")
        else:
            parts.append(f"before time is up at {clock}")
    yield ", ".join(parts)


def _live_line(trial: Mapping[str, Any], running: bool) -> str:
    if not running:
        return f"  trial {trial['number']}: cut off; the next run repeats it"
    line = f"  trial {trial['number']}: "
    if "steps" not in trial:
        line += "starting"
    elif trial.get("step", 0) >= trial["steps"]:
        line += "measuring"
    else:
        line += f"step {trial.get('step', 0)} of {trial['steps']}"
    return line + (f", for {duration(trial['running_for'])}" if "running_for" in trial else "")


def _failures(document: Document) -> Iterator[Text]:
    if document["causes"]:
        told = ", ".join(f"{n} {cause}" for cause, n in document["causes"].items())
        yield Text(f"failures: {told}", style="red")
    for failure in document["failures"][:SHOWN_FAILURES]:
        ago = "" if failure["seconds_ago"] is None else f", {duration(failure['seconds_ago'])} ago"
        message = failure["message"]
        message = message if len(message) <= 160 else message[:157] + "..."
        yield Text(f"  trial {failure['number']}{ago}: {failure['cause']}: {message}")


def _advice(advice: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    for index, piece in enumerate(advice):
        yield Text(f"  - {piece['text']}" if index else f"{piece['text']}:", style="" if index else "yellow")


def watch(
    path: Place, *, every: float = 2.0, as_json: bool = False, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show a study until its run ends or Ctrl-C; wait for it where it has not begun.

    A terminal is refreshed. Elsewhere a block is printed when something has changed, or with ``as_json`` one line of
    JSON at each look.

    Args:
        path: run folder; it may come into being later.
        every: seconds between two looks.

    Raises:
        BadInput: the folder is another thing than a run folder, or the study stays unreadable.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        with _ended_by_signals() as ended, _screen(console, as_json=as_json) as (show, note):

            def pause() -> None:
                ended()
                sleep(every)

            while not _begun(path):
                _may_become_a_run_folder(path)
                note(f"{path}: waiting for a run to begin; Ctrl-C ends the waiting")
                pause()
            _follow(RunFolder.find(path), show, pause)
    except KeyboardInterrupt:
        pass


def _follow(folder: RunFolder, show: Callable[[Document], None], pause: Callable[[], None]) -> None:
    reader, seen, unreadable = StatusReader(folder), False, 0
    try:
        while True:
            try:
                document = reader.read()
            except GsSearchError:
                unreadable += 1
                if unreadable >= UNREADABLE:
                    raise
            else:
                unreadable = 0
                show(document)
                seen |= document["running"]
                if not document["running"] and (seen or document["phase"] != "not_begun"):
                    return
            pause()
    finally:
        reader.close()


def _begun(path: Place) -> bool:
    folder = RunFolder(path)
    folder.refresh()
    return folder.resolved_yaml.is_file()


def _may_become_a_run_folder(place: Place) -> None:
    """Raises BadInput where ``gs-search run`` would refuse to make one."""
    if is_remote(place):  # which whoever starts the run is told
        return
    path = Path(place)
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    foreign = {name for name in names - BEGINNING if not name.startswith(".")}
    if foreign or path.is_file():
        RunFolder.find(path)


Screen = tuple[Callable[[Document], None], Callable[[str], None]]
"""What shows a document, and what shows a line while there is none."""


@contextmanager
def _screen(console: Console, *, as_json: bool) -> Iterator[Screen]:
    if as_json:
        yield _json_line, _Once(lambda line: print(line, file=sys.stderr, flush=True))
    elif console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            yield (
                lambda document: live.update(render_status(document), refresh=True),
                lambda line: live.update(Text(line), refresh=True),
            )
    else:
        yield _Blocks(console), _Once(lambda line: console.print(line, soft_wrap=True))


def _json_line(document: Document) -> None:
    print(json.dumps(document, allow_nan=False), flush=True)


class _Once:
    """Says a line once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, ""

    def __call__(self, line: str) -> None:
        if line != self._said:
            self._say(line)
            self._said = line


class _Blocks:
    """Prints a document where more has changed than clocks and steps."""

    CHANGES = ("phase", "finished", "total", "states", "front", "stopped", "causes")

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[Any] = []

    def __call__(self, document: Document) -> None:
        key = [document[name] for name in self.CHANGES]
        key += [[trial["number"] for trial in document["live"]], len(document["advice"])]
        if key == self._shown:
            return
        gap = "\n" if self._shown else ""
        self._console.print(Text(f"{gap}{datetime.datetime.now():%Y-%m-%d %H:%M:%S}", style="dim"))
        self._console.print(render_status(document))
        self._console.file.flush()
        self._shown = key


@contextmanager
def _ended_by_signals() -> Iterator[Callable[[], None]]:
    """Leave a terminal as it was, cursor and all, at Ctrl-C or where a process manager ends the watching.

    Yields what raises a signal's exception once more: one that is raised where nobody passes it on, as while an object
    of the database's driver is deleted, would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        came.append(number)
        again()

    def again() -> None:
        if came:
            raise KeyboardInterrupt if came[0] == signal.SIGINT else SystemExit(128 + came[0])

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield again
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

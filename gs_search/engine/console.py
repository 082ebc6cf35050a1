"""What a person sees of a running search: one line a finished trial, on standard error.

On a terminal a bar below the lines shows how far the search is; elsewhere there are only the lines, so that a
log file reads well. Standard output stays free for ``--json``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from gs_search.system.text import duration

if TYPE_CHECKING:
    from gs_search.monitor.estimate import Standing
    from gs_search.results.record import TrialRecord

__all__ = ["Progress"]


class Progress:
    """Writes a search's lines; a context manager, so that the bar goes away whatever happens.

    Args:
        stream: where to; standard error unless given.
        quiet: write nothing.
    """

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        file: Any = _Patient(stream or sys.stderr)
        self._console = Console(file=file, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def console(self) -> Console:
        """Where the lines go, for what is shown below them."""
        return self._console

    def note(self, line: str) -> None:
        """Write a line about the search as a whole."""
        self._console.print(Text(line, style="dim"))

    def start(self, done: int, total: int) -> None:
        """Trials begin."""
        if self._console.is_terminal and not self._console.quiet and self._bar is None:
            self._bar = Bar(
                TextColumn("trials"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"), console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("trials", total=total, completed=done, left="")

    def trial(self, record: TrialRecord, standing: Standing) -> None:
        """Write the line of a finished trial."""
        width = len(str(standing.total))
        line = Text(f"[{standing.done:>{width}}/{standing.total}] trial {record.number:<{width}} ")
        if record.state == "FAIL":
            line.append(f" FAIL {record.cause}: {record.message}", style="red")
        else:
            line.append(_objectives(record))
            if record.number in standing.front:
                line.append("  front", style="bold green")
            if record.number in standing.infeasible:
                line.append("  misses a constraint", style="yellow")
            if record.state == "PRUNED":
                ending = "never started" if record.cause == "infeasible" else "stopped"
                line.append(f" {ending}: {record.message}", style="yellow")
            if record.duplicate_of is not None:
                line.append(f"  same point as trial {record.duplicate_of}", style="yellow")
        if standing.hypervolume is not None:
            line.append(f"  hypervolume {standing.hypervolume:.4f}", style="dim")
        left = "" if standing.seconds_left is None else f"{duration(standing.seconds_left)} left"
        line.append(f"  {left}" if left else "", style="dim")
        self._console.print(line)
        if self._bar is not None:
            self._bar.update(self._task, completed=standing.done, left=left)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Patient:
    """A stream that may lose its reader, as after ``| head`` or with its terminal: a search goes on without."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # the latter: closed
            pass
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _objectives(record: TrialRecord) -> str:
    if not record.objectives:
        return ""
    values = record.objectives
    return f" fid {values['fid']:7.2f}  gflops {values['gflops']:8.4f}  MB {values['size_mb']:7.3f}"

"""What a person sees of full trainings: lines and a bar on standard error while they go on, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from gs_search.engine.console import Progress
from gs_search.system.text import duration, figure

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gs_search.results.record import Baselines, FullRecord

__all__ = ["Display", "retrain_table", "summary_lines"]


class Display:
    """Lines, and on a terminal a bar below them; a context manager.

    Args:
        stream: where to; standard error unless given.
        quiet: show nothing.
    """

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._lines = Progress(stream, quiet=quiet)
        self._bar: Bar | None = None
        self._task: Any = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, line: str) -> None:
        """Write a line."""
        self._lines.note(line)

    def progress(self, content: Mapping[str, Any]) -> None:
        """Move the bar.

        Args:
            content: of ``progress.json``.
        """
        console = self._lines.console
        if not console.is_terminal or console.quiet:
            return
        if self._bar is None:
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"), console=console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("steps", total=content["steps"], left="")
        left = content["seconds_left"]
        best = "" if content["fid"] is None else f"  best FID {content['fid']:.2f}"
        self._bar.update(
            self._task,
            description=content["phase"],
            completed=content["step"],
            left=("" if left is None else f"{duration(left)} left") + best,
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def retrain_table(record: FullRecord, baselines: Baselines) -> RenderableType:
    """Draw one finished training beside its trial, the teacher and the untranslated input."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    test, short = record.test, record.short
    for heading in ("", "FID", "KID", "PSNR dB", "FID, test", "KID, test", "PSNR dB, test", "GFLOPs", "MB", "ms"):
        table.add_column(heading, justify="right" if heading else "left")

    def draw(name: str, found: Mapping[str, Any], kept: Any, style: str = "") -> None:
        figures = [
            one.get(key) for one in (found, kept.to_json() if kept else {}) for key in ("fid", "kid", "psnr_to_teacher")
        ]
        figures += [found.get(key) for key in ("gflops", "size_mb", "latency_ms")]
        forms = (*(".2f", ".4f", ".2f") * 2, ".4g", ".3g", ".1f")
        table.add_row(name, *map(figure, figures, forms), style=style)

    draw("trained in full", {**record.to_json(), **record.values}, test, "bold green")
    draw("as a trial", {**short.to_json(), **short.objectives}, test and test.short)
    table.add_section()
    draw("teacher", baselines.teacher.to_json(), test and test.teacher)
    draw("input", baselines.input.to_json(), test and test.input)
    schedule = record.schedule
    title = Text(f"trial {record.number} of {record.study}, trained in full", style="bold green")
    told = Text(
        f"{schedule['steps']} steps of {schedule['batch_size']} pictures in {duration(record.seconds or 0.0)}; the "
        f"best of {len(record.looks)} looks, by FID on validation pictures, was after step {record.best_step}"
    )
    lacking = Text("the study keeps no test pictures back", style="yellow")
    return Group(title, table, told, *([] if test else [lacking]))


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the document of ``summary`` says, a sentence a line; warnings last."""
    return [*summary["sentences"], *(f"but {warning}" for warning in summary["warnings"])]

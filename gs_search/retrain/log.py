"""What a full training writes while it goes on: its log, how far it is, TensorBoard's curves and pictures.

``log.txt`` has a line for everything worth telling, ``progress.json`` how far it is, at most a second old, both for
whoever looks from outside; ``tensorboard/`` is for ``tensorboard --logdir RUN_FOLDER/retrain``. Only the first process
of a team keeps a journal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gs_search.system.files import write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from gs_search.results.run_folder import RunFolder
    from gs_search.retrain.schedule import Schedule

__all__ = ["Journal"]

HEARTBEAT_S = 1.0
"""Seconds between two writes of ``progress.json``."""

Told = Callable[[str], None]


class Journal:
    """Writes into the folder of one full training; a context manager.

    Args:
        tell: gets every line of the log as well.
        on_progress: gets what ``progress.json`` holds, at every step.
    """

    def __init__(
        self,
        folder: RunFolder,
        place: Path,
        schedule: Schedule,
        *,
        tell: Told | None = None,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._folder, self._place, self._schedule = folder, place, schedule
        self._tell, self._on_progress = tell, on_progress
        self._log = place / "log.txt"
        self._begun, self._spent = time.monotonic(), 0.0
        self._first: tuple[int, float] | None = None
        self._written = 0.0
        self._fid: float | None = None
        self._board: Any = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
            self._board = None

    @property
    def seconds(self) -> float:
        """Spent on this training so far, by this process and by those before it."""
        return self._spent + time.monotonic() - self._begun

    def go_on(self, step: int, seconds: float, best_fid: float | None) -> None:
        """A training begins, or continues after so many steps and seconds."""
        self.count_from(seconds)
        self._fid = best_fid
        self._board = _board(self._place / "tensorboard", step)

    def count_from(self, seconds: float) -> None:
        """So many seconds were spent until now."""
        self._begun, self._spent = time.monotonic(), seconds

    def line(self, text: str) -> None:
        """Add a line to the log, which another process may have written to meanwhile."""
        before = self._log.read_text(encoding="utf-8") if self._log.is_file() else ""
        write_text(self._log, f"{before}{self.seconds:8.1f} s  {text}\n")
        if self._tell is not None:
            self._tell(text)

    def step(self, done: int, phase: str) -> None:
        """A step is done."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        content = {
            "step": done,
            "steps": self._schedule.steps,
            "phase": phase,
            "fid": self._fid,
            "seconds": round(self.seconds, 1),
            "seconds_left": self.left(done, now),
            "updated": time.time(),
        }
        if self._on_progress is not None:
            self._on_progress(content)
        if now - self._written >= HEARTBEAT_S or done == self._schedule.steps:
            self._written = now
            with suppress(OSError):  # a full disk shows where results are written
                write_json(self._place / "progress.json", content)

    def left(self, done: int, now: float | None = None) -> float | None:
        """Seconds to the last step at the pace of this process so far; None before its second step."""
        if self._first is None or done == self._first[0]:
            return None
        step, then = self._first
        now = time.monotonic() if now is None else now
        return (now - then) / (done - step) * (self._schedule.steps - done)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the curve."""
        for name, value in row.items():
            if name not in ("step", "phase"):
                self._scalar(f"training/{name}", value, row["step"])

    def look(self, step: int, figures: Mapping[str, float], pictures: Tensor) -> None:
        """The student was measured; ``pictures`` is the grid of samples, 3 x H x W bytes."""
        self._fid = min(figures["fid"], self._fid) if self._fid is not None else figures["fid"]
        for name, value in figures.items():
            self._scalar(f"validation/{name}", value, step)
        if self._board is not None:
            with suppress(OSError):
                self._board.add_image("samples/input_teacher_student", pictures.numpy(), step)

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._board is not None:
            with suppress(OSError):
                self._board.add_scalar(name, value, step)


def _board(place: Path, step: int) -> Any:
    """A writer of TensorBoard's files that hides what an earlier process wrote beyond ``step``."""
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(place), purge_step=step + 1 if step else None)

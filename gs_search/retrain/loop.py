"""The training itself, as each of its processes sees it: steps, looks, checkpoints, and an end on demand.

Everything that the end depends on is in the checkpoint, the best student included; files beside it are made anew from
it. So a training that was killed at whatever moment goes on from its last checkpoint, and on a CPU ends in the same
bits as if it had not been. Only the first process of a team looks and writes; the others train.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gs_search.data.images import grid, to_uint8, write_png
from gs_search.errors import TrialFailed
from gs_search.measure.psnr import psnr
from gs_search.results.record import TrialRecord
from gs_search.retrain.log import Journal
from gs_search.retrain.schedule import Schedule, seed_of
from gs_search.slimming.checkpoint import fingerprint, load_state, save_state
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.learning_rates import featured_share
from gs_search.slimming.precision import warning
from gs_search.slimming.run import LOG_EVERY, Run
from gs_search.slimming.student import save_student
from gs_search.system.files import draft_of, write_text
from gs_search.system.text import duration
from gs_search.trial.assets import SAMPLE_PICTURES, TrialAssets, paint
from gs_search.trial.evaluate import look_at
from gs_search.trial.lessons import fresh_lessons
from gs_search.trial.run import LOOK_PICTURES, curve_csv, repair_targets

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder

__all__ = ["CHECKPOINT", "Course", "write_packed"]

CHECKPOINT = "checkpoint.ckpt"

ROWS = 5000
"""Rows of a curve at most, about: it is part of every checkpoint."""

SAVING_SHARE = 0.02
"""Share of the time that checkpoints may take, where they are large."""

ASK_EVERY = 20
"""Steps after which a team on GPUs is asked whether to end: asking waits for the device."""


class Course:
    """One full training.

    Args:
        trial: how the short one ended.
        journal: None for all processes of a team but the first.
    """

    def __init__(
        self,
        folder: RunFolder,
        trial: TrialRecord,
        schedule: Schedule,
        journal: Journal | None,
        *,
        team: Team = ALONE,
    ) -> None:
        self.config = folder.config()
        self.folder, self.schedule, self.journal, self.team = folder, schedule, journal, team
        self.place = folder.retrained(trial.number)
        self.ground = TrialAssets.of(folder, self.config)
        if self.ground.device.type == "cpu":
            torch.set_num_threads(1)
        self.seed = seed_of(self.config.seed, trial.key)
        self.settings = self.ground.settled(schedule.settings(trial.point, self.config))
        ground, seen = self.ground, schedule.steps * schedule.batch_size
        protocol = ground.baselines.protocol.id
        self.lessons, self.views = fresh_lessons(self.config, folder, ground.teacher, ground.lessons, protocol, seen)
        self.checkpoint = self.place / CHECKPOINT
        self._saved, self._saving = time.monotonic(), 0.0

    def run(self, stop: Callable[[], bool]) -> bool:
        """Train to the end, or until ``stop`` says so after a step; return whether the end is reached.

        Raises:
            TrialFailed: the losses became NaN, all pictures alike, or the memory was not enough.
            CheckpointError: the checkpoint is damaged, or of another training.
        """
        try:
            return self._run(stop)
        except torch.OutOfMemoryError as error:
            raise TrialFailed("out_of_memory", str(error).splitlines()[0]) from error

    def _run(self, stop: Callable[[], bool]) -> bool:
        run = self._begin()
        while True:
            if run.phase == "slim" and run.done == run.slim_steps:
                run.cut(self._judge(run))
                self._tell(
                    f"cut and repaired: {run.notes['psnr']:.2f} dB to the teacher; "
                    f"learning rates x {run.notes['factor']:g}"
                )
                if run.done == self.schedule.steps:
                    self._look(run)
                    self._save(run)
            if run.done == self.schedule.steps:
                return True
            row = run.step()
            if self.journal is not None:
                self.journal.step(run.done, "slim" if run.phase == "slim" else "fine-tune")
                if row is not None:
                    self.journal.row(row)
            looked = run.phase != "slim" and run.done in self.schedule.looks
            if looked:
                self._look(run)
            ends = self._asked(run, stop)
            if looked or ends or self._due():
                self._save(run)
            if ends and run.done < self.schedule.steps:
                return False

    def state(self) -> dict[str, Any]:
        """What the checkpoint holds; raises CheckpointError where it is damaged or of another training."""
        return load_state(self.checkpoint, self._identity, "cpu")

    @functools.cached_property
    def _identity(self) -> str:
        ends = [self.schedule.sparse, *self.schedule.looks]
        return fingerprint(self.ground.teacher, self.settings, self.seed, len(self.lessons), ends)

    def _begin(self) -> Run:
        ground, settings = self.ground, self.settings
        run = Run(
            ground.teacher,
            settings,
            self.lessons,
            repair_targets(ground, settings.repair_pictures),
            self.seed,
            ground.real(self.seed),
            (0,),
            team=self.team,
            parts=self.schedule.parts,
            log_every=max(LOG_EVERY, settings.steps // ROWS),
        )
        goes_on = self.checkpoint.is_file()
        if goes_on:
            run.load_state_dict(load_state(self.checkpoint, self._identity, run.device))
        else:
            run.begin(ground.rate_factor())
        if self.journal is not None:
            best = run.notes.get("best", {}).get("fid")
            self.journal.go_on(run.done, run.notes.get("seconds", 0.0), best)
            self._tell(f"goes on after step {run.done}" if goes_on else self._told())
            self._tell(self._told_of_views())
            if settings.precision == "bf16" and (slow := warning(run.device)):
                self._tell(slow)
        return run

    def _told(self) -> str:
        schedule = self.schedule
        processes = f", {schedule.workers} processes" if schedule.workers > 1 else ""
        among = f", {schedule.sparse} of them before the cut," if schedule.sparse else ""
        others = "".join(f", {name} {value}" for name, value in schedule.replaced.items())
        return f"{schedule.steps} steps{among} of {schedule.batch_size} pictures{processes}{others}, seed {self.seed}"

    def _told_of_views(self) -> str:
        """What it trains on; the room on disk is for all full trainings of the study."""
        size = len(self.lessons) * self.lessons.row_bytes
        told = f"{self.views}; {self.lessons.path.name} grows to {size / 1e6:.0f} MB"
        if self.settings.matches_features and self.lessons.featured < len(self.lessons):
            share = featured_share(self.lessons.featured, len(self.lessons))
            told += f"; {share:.0%} of the steps train on the {self.lessons.featured} views whose features are stored"
        return told

    def _tell(self, line: str) -> None:
        if self.journal is not None:
            self.journal.line(line)

    def _judge(self, run: Run) -> Callable[[nn.Module], float]:
        ground, few = self.ground, slice(LOOK_PICTURES)

        def judge(student: nn.Module) -> float:
            found = psnr(paint(student.eval(), ground.validation[few]), ground.validation_outputs[few])
            run.notes |= {"psnr": found, "factor": ground.rate_factor(found)}
            return float(run.notes["factor"])

        return judge

    def _look(self, run: Run) -> None:
        """Measure the student as it would be loaded, and keep it if it is the best so far."""
        if self.journal is None:
            return
        ground, last = self.ground, self.place / "last.safetensors"
        save_student(last, run.network, ground.architecture)
        student = ground.load_student(last).to(ground.device)
        found = look_at(student, ground, ground.validation, ground.validation_outputs)
        figures = found.figures()
        best = run.notes.get("best", {"fid": math.inf})
        better = found.fid < best["fid"]
        if better:
            packed = torch.frombuffer(bytearray(last.read_bytes()), dtype=torch.uint8)
            run.notes["best"] = {"step": run.done, **figures, "packed": packed}
            write_packed(self.place / "student.safetensors", packed)
        run.notes["looks"] = [*run.notes.get("looks", []), {"step": run.done, **figures}]
        samples = _sample_grid(ground, found.painted)
        (self.place / "samples").mkdir(exist_ok=True)
        write_png(self.place / "samples" / f"{run.done:08d}.png", samples)
        write_text(self.place / "curve.csv", curve_csv(run.curve))
        self.journal.look(run.done, figures, samples)
        left = self.journal.left(run.done)
        self._tell(
            f"step {run.done}: FID {found.fid:.2f}, {found.psnr_to_teacher:.2f} dB"
            + (", the best so far" * better)
            + (f"; {duration(left)} left" if left else "")
        )

    def _asked(self, run: Run, stop: Callable[[], bool]) -> bool:
        """Whether to end after this step; a team ends together."""
        device = self.ground.device
        if self.team.size > 1 and device.type == "cuda" and run.done % ASK_EVERY:
            return False
        return not self.team.all(torch.tensor(not stop(), device=device))

    def _due(self) -> bool:
        now = time.monotonic()
        waited = max(60 * self.schedule.checkpoint_minutes, self._saving / SAVING_SHARE)
        return self.journal is not None and now - self._saved >= waited

    def _save(self, run: Run) -> None:
        if self.journal is None:
            return
        begun = time.monotonic()
        run.notes["seconds"] = self.journal.seconds
        save_state(self.checkpoint, run.state_dict(), self._identity)
        self._saved = time.monotonic()
        if self.schedule.checkpoint_minutes:
            self._saving = self._saved - begun


def _sample_grid(ground: TrialAssets, painted: Tensor) -> Tensor:
    """Input, teacher and student of the first validation pictures, as one picture of bytes, 3 x H x W."""
    rows = [ground.validation, to_uint8(ground.validation_outputs), to_uint8(painted)]
    return grid([row[:SAMPLE_PICTURES] for row in rows])


def write_packed(path: Path, packed: Tensor) -> None:
    """Write the bytes of a student's file, whole or not at all."""
    with draft_of(path) as draft:
        draft.write_bytes(packed.cpu().numpy().tobytes())

"""What a forecast measures: a miniature of the study, prepared and tried with the real code, and timed.

Two functions for a process of their own each (``preparation`` starts it, as it starts the real one), so that the
second one's memory is a worker's. Both leave what they found as JSON in the run folder of the study whose cost is
asked for; ``forecast`` reads it. Seconds are the processor's on a CPU, where other work on the machine hardly
changes them, and the clock's on a GPU.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import gs_search.engine.worker  # noqa: F401  # Ray's share of a worker's start and memory
from gs_search.data import open_data
from gs_search.errors import ConfigError, GsSearchError, TrialFailed
from gs_search.forecast.costs import size_of
from gs_search.measure.features import inception_features
from gs_search.results.run_folder import RunFolder
from gs_search.slimming.learning_rates import HARMLESS_STEPS
from gs_search.slimming.lessons import Lessons
from gs_search.slimming.run import TAYLOR_PICTURES
from gs_search.slimming.teacher import Batch
from gs_search.study.settings import Point, settings_from_point
from gs_search.study.views import featured_views, trial_views
from gs_search.system.files import read_json, write_json
from gs_search.system.machine import cores
from gs_search.trial.assets import MAX_REAL, TrialAssets, device_of, paint, prepare
from gs_search.trial.run import LOOK_PICTURES, run_trial
from gs_search.trial.teacher import TRAINING_LINE

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["measure_preparation", "measure_trials", "miniature"]

PICTURES = 8
"""Pictures of each kind in the miniature; a trial's samples show as many."""

FEWEST_STEPS, MOST_STEPS = 3, 24
"""Training steps of a probing trial: the first one warms up, and quick ones need many for their median."""

STEPS_S = 2.0
"""So many seconds of steps are enough."""

ENOUGH_S = 20.0
"""Seconds of probing trials after which only the two extremes are still tried."""

TEACHER_STEPS = 4

HARMLESS_RATE = 1e-9
"""Learning rate of the miniature: nothing collapses, and the search for harmless rates ends at its first attempt."""

Log = Callable[[str], None]


def miniature(config: StudyConfig) -> StudyConfig:
    """The study with few pictures; its networks, and the pictures of the repair, are as they were."""
    train = max(PICTURES, config.settings.get("repair_pictures", 0))
    data = {"train": min(config.data.train, train), "views": min(config.data.views or PICTURES, PICTURES)}
    data |= {name: min(getattr(config.data, name), PICTURES) for name in ("val", "reference")}
    pictures = min(config.measure.fid_images, PICTURES)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "teacher": config.teacher.model_copy(update={"steps": TEACHER_STEPS}),
            "measure": config.measure.model_copy(update={"fid_images": pictures}),
            # One picture a step: what the search for harmless rates takes is told from the steps of the trials.
            "settings": {**config.settings, "learning_rate": HARMLESS_RATE, "batch_size": 1},
        }
    )


def _miniature_folder(folder: RunFolder) -> RunFolder:
    return RunFolder(folder.path / "miniature")


class _Clock:
    """Processor seconds of this process; on a GPU, seconds until it has done what it was given."""

    def __init__(self, config: StudyConfig) -> None:
        self._cuda = device_of(config).type == "cuda"

    def __call__(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def time(self, action: Callable[[], object], count: int = 1) -> float:
        """Seconds of ``action``, divided by ``count``."""
        start = self()
        action()
        return (self() - start) / count


def measure_preparation(config: StudyConfig, folder: RunFolder, log: Log, *, retrain_teacher: bool = False) -> None:
    """Prepare the miniature; write what that took, and what one more of each picture takes, to ``preparation.json``."""
    small, place, clock = miniature(config), _miniature_folder(folder), _Clock(config)
    place.create(small)
    starts: list[tuple[str, float]] = []

    def watch(line: str) -> None:
        starts.append((line, clock()))
        log(f"a miniature of the study: {line}")

    total = clock.time(lambda: prepare(small, place, watch))
    # One line announces the training, where there is one, and the next what comes after.
    training = 0.0
    for (line, began), (_, ended) in itertools.pairwise(starts):
        if line.startswith(TRAINING_LINE):
            training = ended - began
    ground = TrialAssets.of(place, small)
    source, few = open_data(small.data, small.image_px, small.seed).source("train"), len(ground.lessons)
    pictures: list[Tensor] = []
    opening = clock.time(lambda: pictures.extend(source.picture(k, view=0) for k in range(few)), few)
    views, sizes = torch.stack(pictures), {path.name: _size(path) for path in place.teacher.iterdir()}
    each = {
        "open": opening,
        "answer": clock.time(lambda: Lessons.write(place.path / "again", ground.teacher, views.__getitem__, few), few),
        "paint": clock.time(lambda: paint(ground.teacher.network, views), few),
        "inception": clock.time(lambda: inception_features(views, model=ground.inception), few),
    }
    wanted = _counts(config)
    photos = len(open_data(config.data, config.image_px, config.seed).source("train"))
    wanted["views"] = trial_views(config, photos).views
    sizes["features"] = sum(_size(path) for path in (place.teacher / "lessons").glob("features-*"))
    sizes["lessons"] -= sizes["features"]
    wanted["featured"] = featured_views(wanted["views"], sizes["features"] // few)
    write_json(
        folder.path / "preparation.json",
        {
            "seconds": total,
            "training_seconds": training,
            "training_steps": TEACHER_STEPS,
            "picture_seconds": each,
            "cores": 1 if device_of(config).type == "cuda" else cores(),
            "harmless_steps": HARMLESS_STEPS,
            "paints_reference": ground.baselines.protocol.reference_kind == "teacher",
            "few": {**_counts(small), "views": few, "featured": few},
            "wanted": wanted,
            "bytes": sizes,
        },
    )


def _counts(config: StudyConfig) -> dict[str, int]:
    """How many pictures of each kind the preparation of a study opens, views aside."""
    data = open_data(config.data, config.image_px, config.seed)
    target, real = data.target("reference"), data.target("train")
    reference = data.source("reference") if target is None else target
    return {
        "val": min(len(data.source("val")), config.measure.fid_images),
        "reference": min(len(reference), config.data.reference),
        "real": 0 if real is None else min(len(real), MAX_REAL),
    }


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


class _Timed:
    """The lessons of a trial, and its ``on_progress``: together they see where every step begins and ends."""

    def __init__(self, lessons: Lessons, clock: _Clock) -> None:
        self._lessons, self._clock = lessons, clock
        self._open: float | None = None
        self._waiting: list[float] = []
        self.steps: dict[str, list[float]] = {"slim": [], "recover": []}
        """Seconds of every step, by phase."""

    def __len__(self) -> int:
        return len(self._lessons)

    @property
    def featured(self) -> int:
        return self._lessons.featured

    def batch(self, indices: Any, device: torch.device | str = "cpu") -> Batch:
        """A step begins, and the one before ends."""
        self._close()
        self._open = self._clock()
        return self._lessons.batch(indices, device)

    def progress(self, row: Mapping[str, Any]) -> None:
        """A step of this phase has ended; so have all of which nothing was told."""
        self._close()
        self.steps[row["phase"]] += self._waiting
        self._waiting = []

    def _close(self) -> None:
        if self._open is not None:
            self._waiting.append(self._clock() - self._open)
        self._open = None


def measure_trials(config: StudyConfig, folder: RunFolder, log: Log, *, retrain_teacher: bool = False) -> None:
    """Try the points of ``points.json``, smallest and largest first, on the miniature; write ``trials.json``."""
    small, place, clock = miniature(config), _miniature_folder(folder), _Clock(config)
    if device_of(config).type == "cpu":
        torch.set_num_threads(1)
    study = small.model_copy(update={"settings": config.settings})
    began = time.process_time()  # the imports: what this process has done so far
    ground_seconds = clock.time(lambda: _warm(TrialAssets.of(place, study), config))
    points: list[dict[str, Any]] = read_json(folder.path / "points.json")["points"]
    found: dict[int, dict[str, Any]] = {}
    problems: list[str] = []
    step, spent = STEPS_S, 0.0
    # The smallest once more: its first trial warms up, and has the fewest steps.
    for index in (0, 1, 0, *range(2, len(points))):
        if index >= len(points) or spent > ENOUGH_S and (index in found or index > 1):
            continue
        settings = settings_from_point(points[index], config.settings)
        steps = min(max(FEWEST_STEPS, round(STEPS_S / step)), MOST_STEPS, settings.steps)
        log(f"a trial of {steps} steps at {size_of(settings):.3g}")
        try:
            row = _measure_trial(points[index], study, place, clock, steps)
        except (TrialFailed, ConfigError) as error:
            problems.append(str(error))
            continue
        found[index] = row
        step = max((seconds for seconds in row["step_seconds"].values() if seconds), default=STEPS_S)
        spent += row["seconds"]
    if not found:
        raise GsSearchError(f"no probing trial came to an end: {'; '.join(dict.fromkeys(problems))}")
    unit = 1 if sys.platform == "darwin" else 1024
    write_json(
        folder.path / "trials.json",
        {
            "gpus": torch.cuda.device_count(),
            "start_seconds": began + ground_seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
            "trials": [{"point": points[index], **found[index]} for index in sorted(found)],
            "problems": list(dict.fromkeys(problems)),
        },
    )


def _warm(ground: TrialAssets, config: StudyConfig) -> None:
    """What the first trial of a worker computes for all of them."""
    ground.teacher.student(config.settings.get("importance", "taylor"), ground.targets.pictures[:TAYLOR_PICTURES])


def _measure_trial(point: Point, study: StudyConfig, folder: RunFolder, clock: _Clock, steps: int) -> dict[str, Any]:
    """Run a trial of few steps on few pictures; tell what its parts took."""
    settings = settings_from_point(point, study.settings)
    changes: dict[str, Any] = {"steps": steps, "learning_rate": HARMLESS_RATE}
    if settings.schedule == "proximal" and 0 < settings.slim_fraction < 1:
        changes |= {"steps": min(2 * steps, settings.steps), "slim_fraction": 0.5}
    ground = TrialAssets.of(folder, study)
    lessons = ground.lessons
    timed = _Timed(lessons, clock)
    ground.lessons = timed  # type: ignore[assignment]  # a trial asks for batches and their number only
    try:
        total = clock.time(
            lambda: run_trial({**point, **changes}, study, folder, number=0, seed=0, on_progress=timed.progress)
        )
    finally:
        ground.lessons = lessons
    place, few = folder.trial(0), len(ground.validation)
    student = ground.load_student(place / "student.safetensors").to(ground.device)
    return {
        "seconds": total,
        "fixed_seconds": total - sum(map(sum, timed.steps.values())),
        "step_seconds": {name: statistics.median(found) if found else 0.0 for name, found in timed.steps.items()},
        "picture_seconds": {
            "paint": clock.time(lambda: paint(student, ground.validation), few),
            "inception": clock.time(lambda: inception_features(ground.validation, model=ground.inception), few),
        },
        "pictures": few,
        "look_pictures": LOOK_PICTURES,
        "bytes": _size(place),
    }

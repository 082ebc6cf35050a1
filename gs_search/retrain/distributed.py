"""Several processes that train together, by Ray Train on this machine: gloo on CPUs, NCCL on GPUs.

The processes read everything in the run folder, and the first of them writes there; Ray keeps nothing of its own. Who
has started them follows the log and ``progress.json``, and asks them to end by a file, ``stop``.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gs_search.engine.ray.local import VITAL, dead_ray_process, local_ray, scratch_folder
from gs_search.errors import BadInput, GsSearchError
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.schedule import Schedule

if TYPE_CHECKING:
    from gs_search.system.signals import Interruption

__all__ = ["STOP", "train_together"]

STOP = "stop"
GLOO = "GLOO_SOCKET_IFNAME"

LOOK_S = 0.3
"""Seconds between two looks at how far the others are."""


def train_together(
    folder: RunFolder,
    trial: TrialRecord,
    schedule: Schedule,
    stop: Interruption,
    note: Callable[[str], None],
    on_progress: Callable[[Mapping[str, Any]], None],
) -> None:
    """Have ``schedule.workers`` processes train up to the end, or until ``stop`` says so.

    Raises:
        TrialFailed: the training broke down.
        BadInput: there are not so many GPUs.
        GsSearchError: a process died, or Ray did.
    """
    place = folder.retrained(trial.number)
    (place / STOP).unlink(missing_ok=True)
    note(f"starting {schedule.workers} processes")
    with (
        scratch_folder() as scratch,
        (scratch / "printed.txt").open("w") as printed,
        redirect_stdout(printed),
        _on_loopback(),
        local_ray(scratch, workers=schedule.workers, device=folder.config().device) as started,
    ):
        stop.listen()  # Ray has put its own handler there
        if started.device == "cuda" and started.gpus < schedule.workers:
            raise BadInput(f"--num-workers {schedule.workers}: one GPU each, but Ray finds {started.gpus} here")
        training = _Training(folder, trial.number, schedule, scratch, started.device)
        training.start()
        tail = _Tail(place / "log.txt", note)
        while training.is_alive():
            training.join(LOOK_S)
            tail.read()
            with suppress(OSError, ValueError):
                on_progress(json.loads((place / "progress.json").read_text(encoding="utf-8")))
            if stop():
                (place / STOP).touch()
            if dead_ray_process() == VITAL[1] and training.is_alive():
                raise GsSearchError(f"{place}: a process of Ray has died; the same command goes on from the checkpoint")
        tail.read()
        (place / STOP).unlink(missing_ok=True)
        if training.error is not None:
            raise _plain(training.error, place)


class _Training(threading.Thread):
    """Ray Train's ``fit`` in a thread: in the main one it would take Ctrl-C for itself."""

    def __init__(self, folder: RunFolder, number: int, schedule: Schedule, scratch: Path, device: str) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._device, self._schedule, self._scratch = device, schedule, scratch
        self._given = {"folder": str(folder.path.resolve()), "number": number, "schedule": schedule.to_json()}

    def run(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpus = self._device == "cuda"
        try:
            TorchTrainer(
                train_loop,
                train_loop_config=self._given,
                torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
                scaling_config=ScalingConfig(num_workers=self._schedule.workers, use_gpu=gpus),
                run_config=RunConfig(
                    name="retrain",
                    storage_path=str(self._scratch / "train"),
                    failure_config=FailureConfig(max_failures=0),
                ),
            ).fit()
        except BaseException as error:
            self.error = error


def train_loop(given: Mapping[str, Any]) -> None:
    """What each process does; Ray Train has joined them before."""
    from gs_search.retrain.log import Journal
    from gs_search.retrain.loop import Course
    from gs_search.slimming.distributed import Team

    folder, schedule, team = RunFolder(given["folder"]), Schedule.from_json(given["schedule"]), Team.of_group()
    place = folder.retrained(given["number"])
    trial = folder.result(given["number"])
    if team.rank:
        Course(folder, trial, schedule, None, team=team).run(lambda: False)
        return
    with Journal(folder, place, schedule) as journal:
        Course(folder, trial, schedule, journal, team=team).run((place / STOP).exists)


class _Tail:
    """Passes on what is added to a log from now on, without its times."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path, self._note = path, note
        self._told = len(self._lines())

    def _lines(self) -> list[str]:
        with suppress(OSError):
            return self._path.read_text(encoding="utf-8").splitlines()
        return []

    def read(self) -> None:
        lines = self._lines()
        for line in lines[self._told :]:
            self._note(line.partition(" s  ")[2])
        self._told = len(lines)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have gloo talk on this machine's interface to itself, unless somebody has named another one."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if GLOO in os.environ or not names:
        yield
        return
    os.environ[GLOO] = names[0]  # inherited by what Ray starts
    try:
        yield
    finally:
        del os.environ[GLOO]


def _plain(error: BaseException, place: Path) -> Exception:
    """The process's own error, or one line about what has happened to it."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        own = getattr(failure, "_base_exc", failure)
        if isinstance(own, GsSearchError):
            return own
    told = " ".join(str(failures[0] if failures else error).split())[:300]
    return GsSearchError(f"{place}: a process died ({told}); the same command goes on from the checkpoint")

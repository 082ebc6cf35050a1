"""Starting and stopping Ray on this machine: quietly, without telemetry, in a folder that goes away."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from gs_search.engine.ray.ray_adapter import dead_processes
from gs_search.engine.ray.watchdog import lost_head
from gs_search.errors import GsSearchError, one_line
from gs_search.study.database_url import SECRETS
from gs_search.system.machine import cores

__all__ = [
    "Plan", "dead_ray_process", "local_ray", "saying_that_ray_died", "plan_workers", "scratch_folder", "sweep_scratch",
    "worker_environment",
]  # fmt: skip

PREFIX = "gs-search-"

# AF_UNIX paths end at 107 characters, and Ray's sockets lie about 65 characters below its folder.
LONGEST_SCRATCH = 40

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The study database is the truth; Tune's own checkpoints would only cost time.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
}

OBJECT_STORE_BYTES = 80 * 2**20
"""Nothing but trial numbers and records travels through it; Ray wants 75 MiB at least."""


VITAL = ("gcs_server", "raylet")
"""Processes of Ray, by its names for them, of which every one is needed; the others only observe."""


GPU_SHARE = 0.9
"""Part of a GPU's memory that trials may fill."""

GPU_CONTEXT_MB = 600
"""What a process takes of a GPU before its first tensor."""


class Plan:
    """How many processes at once, and what each may use.

    Args:
        auto: the number of processes is not asked for, so that ``packed`` may raise it.
        cores: that they share; those of this machine unless given.
        resources: of each; a core, and its part of the GPUs, unless given.
    """

    def __init__(
        self,
        workers: int,
        device: Literal["cpu", "cuda"],
        gpus: int,
        *,
        auto: bool = False,
        cores: int | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self.workers = workers
        self.device = device
        self.gpus, self.auto, self.cores = gpus, auto, cores
        per_gpu = -(-workers // gpus) if device == "cuda" else 0
        shared = {"cpu": 1.0, "gpu": 1.0 / per_gpu} if per_gpu else {"cpu": 1.0}
        self.resources = shared if resources is None else dict(resources)

    def packed(self, memory: Mapping[str, float] | None) -> Plan:
        """The plan with as many trials on each GPU as its memory and this machine's cores allow.

        Args:
            memory: ``trial_mb``, what one took when the study was prepared, and ``total_mb`` of a GPU; None where
                neither was measured, as on a CPU.
        """
        if not (self.auto and self.device == "cuda" and memory):
            return self
        fitting = GPU_SHARE * memory["total_mb"] // (memory["trial_mb"] + GPU_CONTEXT_MB)
        per_gpu = max(1, min(int(fitting), (self.cores or cores()) // self.gpus))
        resources = {**self.resources, "gpu": 1.0 / per_gpu}
        return Plan(per_gpu * self.gpus, self.device, self.gpus, auto=True, cores=self.cores, resources=resources)

    def smaller(self, workers: int) -> Plan:
        """The plan with fewer processes, each with what it has in this one."""
        return self._changed(workers, self.resources)

    def asking(self, more: Mapping[str, float]) -> Plan:
        """The plan whose processes ask Ray for more resources."""
        return self._changed(self.workers, {**self.resources, **more})

    def _changed(self, workers: int, resources: Mapping[str, float]) -> Plan:
        return Plan(workers, self.device, self.gpus, auto=self.auto, cores=self.cores, resources=resources)


def plan_workers(workers: int | str, device: str, gpus: int) -> Plan:
    """Settle ``auto``: a process a GPU where the study runs on GPUs (``Plan.packed`` may add), else one a core.

    Args:
        gpus: how many GPUs Ray found.
    """
    kind: Literal["cpu", "cuda"] = "cuda" if device == "cuda" or device == "auto" and gpus else "cpu"
    auto = not isinstance(workers, int)
    count = workers if isinstance(workers, int) else max(1, gpus) if kind == "cuda" else cores()
    return Plan(count, kind, max(1, gpus), auto=auto)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for Ray's and Tune's files, and remove it, and those of dead runs, when done."""
    sweep_scratch()
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_scratch_root()))
    with (scratch / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def sweep_scratch() -> None:
    """Remove what runs that were killed have left; a live run holds the lock in its folder."""
    for stale in _scratch_root().glob(PREFIX + "*"):
        with suppress(OSError), (stale / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale, ignore_errors=True)


def _scratch_root() -> Path:
    """``RAY_TMPDIR`` or the folder for temporary files, the first that is short enough; else ``/tmp``."""
    wanted = (os.environ.get("RAY_TMPDIR", ""), tempfile.gettempdir())
    short = (Path(place) for place in wanted if place and len(place) <= LONGEST_SCRATCH)
    return next((place for place in short if place.is_dir() and os.access(place, os.W_OK)), Path("/tmp"))


@contextmanager
def local_ray(scratch: Path, *, workers: int | str, device: str) -> Iterator[Plan]:
    """Run Ray on this machine for the length of a study; one that this process has started stays as it is."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()
    except RuntimeError:  # Ray asks for it, and a user id without an entry has none
        os.environ["HOME"] = str(scratch)
    # Under `uv run` Ray would start every worker through uv again; they are to run in this process's environment.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # Without a token of its own Ray would write one into the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if "ray" not in sys.modules:
        # Ray reads this once, when imported; where it has been already, its own default has to do.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield plan_workers(workers, device, int(ray.cluster_resources().get("GPU", 0)))
        return
    count = workers if isinstance(workers, int) else cores()
    try:
        with worker_environment(device):
            try:
                ray.init(
                    "local",
                    num_cpus=max(count, cores()),
                    num_gpus=0 if device == "cpu" else None,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    configure_logging=False,
                    log_to_driver=False,
                    _temp_dir=str(scratch / "ray"),
                )
            except Exception as error:
                raise GsSearchError(f"Ray could not be started: {one_line(error)}") from error
        yield plan_workers(workers, device, int(ray.cluster_resources().get("GPU", 0)))
    finally:
        ray.shutdown()


def dead_ray_process() -> str | None:
    """Name a process of Ray's own that has died, and without which no trial goes on; None while all of them live.

    Ray itself does not tell: without its raylet a search waits for ever.
    """
    if lost := lost_head():
        return lost
    dead = dead_processes()
    return next((name for name in VITAL if name in dead), None)


@contextmanager
def saying_that_ray_died(note: Callable[[str], None]) -> Iterator[None]:
    """Say when Ray's GCS has died: the next question to it blocks whoever asks, until Ray ends the whole process."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if dead_ray_process() == VITAL[0]:
                note(
                    "Ray's gcs_server has died; this run ends within a minute, and the same command goes on from there"
                )
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def worker_environment(device: str) -> Iterator[None]:
    """Have the processes that Ray starts inherit one computing thread each, and no password.

    Two threads on two contended cores are slower than one.
    """
    changed: dict[str, str | None] = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        **dict.fromkeys(SECRETS),
        # Ray hands on the folder of the script only; workers must find whatever this process can import.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    if device == "cpu":
        changed["CUDA_VISIBLE_DEVICES"] = ""
    before = {name: os.environ.get(name) for name in changed}
    _set_environment(changed)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

"""Starting and stopping Ray on this machine: quietly, without telemetry, in a folder that goes away."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from gs_search.errors import GsSearchError

__all__ = ["Plan", "cores", "local_ray", "plan_workers", "scratch_folder", "worker_environment"]

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


class Plan:
    """How many processes at once, and what each may use."""

    def __init__(self, workers: int, device: Literal["cpu", "cuda"], gpus: int) -> None:
        self.workers = workers
        self.device = device
        per_gpu = -(-workers // gpus) if device == "cuda" else 0
        self.resources = {"cpu": 1.0, "gpu": 1.0 / per_gpu} if per_gpu else {"cpu": 1.0}


def cores() -> int:
    """Processor cores that this process may use: what the affinity and the control group leave it."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def plan_workers(workers: int | str, device: str, gpus: int) -> Plan:
    """Settle ``auto``: a process a GPU where the study runs on GPUs, else a process a core.

    Args:
        gpus: how many GPUs Ray found.
    """
    kind: Literal["cpu", "cuda"] = "cuda" if device == "cuda" or device == "auto" and gpus else "cpu"
    if not isinstance(workers, int):
        workers = max(1, gpus) if kind == "cuda" else cores()
    return Plan(workers, kind, max(1, gpus))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for Ray's and Tune's files, and remove it, and those of dead runs, when done."""
    root = Path(tempfile.gettempdir())
    if len(str(root)) > LONGEST_SCRATCH:
        root = Path("/tmp")
    _sweep(root)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    with (scratch / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what runs that were killed have left; a live run holds the lock in its folder."""
    for stale in root.glob(PREFIX + "*"):
        with suppress(OSError), (stale / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def local_ray(scratch: Path, *, workers: int | str, device: str) -> Iterator[Plan]:
    """Run Ray on this machine for the length of a study; one that this process has started stays as it is."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
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
                reason = (str(error).splitlines() or [""])[0]
                raise GsSearchError(f"Ray could not be started: {type(error).__name__}: {reason}") from error
        yield plan_workers(workers, device, int(ray.cluster_resources().get("GPU", 0)))
    finally:
        ray.shutdown()


@contextmanager
def worker_environment(device: str) -> Iterator[None]:
    """Have the processes that Ray starts inherit one computing thread each, and no password.

    Two threads on two contended cores are slower than one.
    """
    changed: dict[str, str | None] = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "GS_SEARCH_STORAGE": None,
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

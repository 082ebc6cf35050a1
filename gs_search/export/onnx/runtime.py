"""ONNX Runtime on one file: sessions with a known number of threads, pictures through them, what they cost."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from gs_search.export.onnx.float_graph import INPUT
from gs_search.export.progress import Tick, in_parallel

__all__ = ["optimized_graph", "paired_milliseconds", "peak_memory_mb", "run_pictures", "session"]

PROVIDERS = ["CPUExecutionProvider"]

QUIET = 3
"""Log errors only."""

WARM_UP = 2

# Runs alone, with nothing of this package: what a user's own program would do.
_PROBE = """
import resource, sys
import numpy as np
import onnxruntime as ort
def peak():
    # Not of a parent that it was forked from, which getrusage tells on Linux.
    try:
        with open("/proc/self/status") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
side = int(sys.argv[2])
for _ in range(3):
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, side, side), np.float32)})
print(peak() - before)
"""


def session(
    model: Path | bytes,
    *,
    threads: int = 1,
    optimized: Path | None = None,
    simulate: bool = False,
    spin: bool = True,
) -> onnxruntime.InferenceSession:
    """Open a file, or its content, for the CPU.

    Args:
        optimized: file for the graph that really runs.
        spin: whether threads that wait keep their core busy, as is usual.
        simulate: leave the graph as it is written: floats stand for the whole numbers.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = QUIET
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if simulate else levels.ORT_ENABLE_ALL
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=PROVIDERS)


def run_pictures(model: onnxruntime.InferenceSession, pictures: Tensor, tick: Tick = lambda done: None) -> Tensor:
    """Run a generator on N x 3 x H x W bytes, on all cores; float32 N x 3 x H x W in [-1, 1].

    Args:
        model: with one thread.
        tick: told how many pictures are done.
    """

    def run(chunk: Tensor) -> Tensor:
        (painted,) = model.run(None, {INPUT: (chunk.float() / 127.5 - 1.0).numpy()})
        return torch.from_numpy(painted)

    return in_parallel(run, pictures, tick)


def optimized_graph(path: Path) -> onnx.GraphProto:
    """The graph that ONNX Runtime makes of a file on this machine."""
    with tempfile.TemporaryDirectory() as place:
        optimized = Path(place) / "optimized.onnx"
        session(path, optimized=optimized)
        return onnx.load(optimized).graph


def paired_milliseconds(
    files: Mapping[str, Path], image_px: int, *, threads: int, rounds: int
) -> dict[str, Sequence[float]]:
    """Time files on one picture, in turn, round after round, so that what else the machine does meets all alike.

    Returns:
        name to the milliseconds of each round: of the one thread's own processor time, which others on the machine
        hardly lengthen, or of the clock on the wall for several threads.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, image_px, image_px)).astype(np.float32)
    # The waiting threads of one session must not lengthen the turn of the next.
    sessions = {name: session(path, threads=threads, spin=False) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(WARM_UP + rounds):
        for name, opened in sessions.items():
            start = clock()
            opened.run(None, {INPUT: picture})
            if turn >= WARM_UP:
                times[name].append(1e3 * (clock() - start))
    return dict(times)


def peak_memory_mb(path: Path, image_px: int) -> float:
    """What opening a file and running one picture adds to the memory of a process that has ONNX Runtime and numpy.

    In 10^6 bytes; the process knows nothing of this package.
    """
    command = [sys.executable, "-c", _PROBE, str(path.resolve()), str(image_px)]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
    return int(done.stdout) / 1e6

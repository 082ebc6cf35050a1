"""ExecuTorch's files: a network lowered to one delegate of XNNPACK, opened again, run and timed.

A ``.pte`` holds a network for one picture of one size. What the file says of itself is a method of its own,
``about``, which returns a JSON text. ExecuTorch talks to the terminal from C++ and from its modules; that is kept back,
unless something goes wrong.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import BadInput, UnsupportedNetwork
from gs_search.export.executorch.plain_graph import plain_graph

ABOUT = "about"
"""Method that returns what the file says of itself."""

WARM_UP = 2

# Runs alone, with nothing of this package; torch and the runtime are there before the file is opened.
_PROBE = """
import sys
import torch
from executorch.runtime import Runtime
def peak():
    try:
        with open("/proc/self/status") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
side = int(sys.argv[2])
picture = torch.zeros(1, 3, side, side)
runtime = Runtime.get()
before = peak()
method = runtime.load_program(sys.argv[1]).load_method("forward")
for _ in range(3):
    method.execute([picture])
print(peak() - before)
"""


def import_executorch() -> None:
    """Raise BadInput where the extra ``mobile`` is not installed."""
    try:
        with quiet():
            import executorch.backends.xnnpack.partition.xnnpack_partitioner
            import executorch.runtime  # noqa: F401
    except ImportError as error:
        missing = f"{error.name} is missing" if error.name else str(error)
        raise BadInput(
            f'--format executorch: {missing}; install the extra in the checkout: pip install -e ".[mobile]"'
        ) from None


def write_program(network: nn.Module, image_px: int, notes: Mapping[str, str]) -> bytes:
    """Lower a network for XNNPACK.

    Args:
        network: takes and returns 1 x 3 x H x W in [-1, 1], in evaluation mode.
        notes: what the method ``about`` is to return.

    Raises:
        UnsupportedNetwork: torch or ExecuTorch cannot export it.
    """
    import_executorch()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = plain_graph(network, image_px)
    try:
        with quiet():
            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                constant_methods={ABOUT: json.dumps(dict(notes), sort_keys=True)},
            )
            return bytes(lowered.to_executorch().buffer)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        brief = " ".join(str(error.__cause__ or error).split())[:300]
        raise UnsupportedNetwork(f"ExecuTorch cannot lower this network: {brief}") from None


class Network:
    """A file that was opened.

    Raises:
        RuntimeError: the runtime refuses it.
    """

    def __init__(self, content: bytes) -> None:
        with quiet():
            from executorch.runtime import Runtime

            self._program = Runtime.get().load_program(content)
            self._method = self._program.load_method("forward")

    def run(self, x: Tensor) -> Tensor:
        """Run it on one tensor of the size that it takes."""
        (result,) = self._method.execute([x.contiguous()])
        return cast(Tensor, result).clone()

    def pictures(self, pictures: Tensor) -> Tensor:
        """Run it on N x 3 x H x W bytes, one by one; float32 N x 3 x H x W in [-1, 1]."""
        return torch.cat([self.run(one.float() / 127.5 - 1.0) for one in pictures.split(1)])

    def about(self) -> dict[str, str]:
        """What the file says of itself."""
        (text,) = self._program.load_method(ABOUT).execute([])
        return cast("dict[str, str]", json.loads(text))


def paired_milliseconds(
    files: Mapping[str, Path], image_px: int, *, threads: int, rounds: int
) -> dict[str, Sequence[float]]:
    """Time files on one picture, in turn, as ``runtime.paired_milliseconds`` does.

    Returns:
        name to the milliseconds of each round: of the process's own processor time for one thread, for the work is
        done by a pool, or of the clock on the wall for several.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, image_px, image_px)).astype(np.float32)
    x = torch.from_numpy(picture)
    with quiet():
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(threads)
    opened = {name: Network(path.read_bytes()) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(WARM_UP + rounds):
        for name, network in opened.items():
            start = clock()
            network.run(x)
            if turn >= WARM_UP:
                times[name].append(1e3 * (clock() - start))
    return dict(times)


def peak_memory_mb(path: Path, image_px: int) -> float:
    """What opening a file and running one picture adds to the memory of a process that has torch and the runtime.

    In 10^6 bytes; the process knows nothing of this package.
    """
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, str(path.resolve()), str(image_px)]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
    return int(done.stdout.split()[-1]) / 1e6


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what libraries say, in Python and in C++; where an exception leaves, it is printed after all."""
    level = logging.root.manager.disable
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    failed = False
    with tempfile.TemporaryFile() as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        words = open(said.fileno(), "w", encoding="utf-8", closefd=False, buffering=1)
        try:
            for number in kept:
                os.dup2(said.fileno(), number)
            with redirect_stdout(words), redirect_stderr(words):
                yield
        except BaseException:
            failed = True
            raise
        finally:
            words.close()
            for number, own in kept.items():
                os.dup2(own, number)
                os.close(own)
            logging.disable(level)
            if failed:
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace"))

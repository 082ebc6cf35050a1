"""Processes that do one job after the other for a verb, on this machine and without Ray.

``python -m gs_search.system.process_pool FUNCTION ARGUMENT`` is such a process. It takes one job a line on standard
input, answers each with a line on standard output, and ends when its input does: nothing outlives whoever asked for it.
A process that dies over a job is an answer too, and is replaced when there is another job.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gs_search.errors import BadInput, GsSearchError

__all__ = ["answers"]

PATIENCE_S = 5.0
"""What a process may take to put its files away when it is told to end."""

Job = Mapping[str, Any]
"""Plain data, as its answer is."""


@contextmanager
def answers(
    function: str, argument: str, jobs: Sequence[Job], environments: Sequence[Mapping[str, str]]
) -> Iterator[Iterator[tuple[Job, dict[str, Any] | None, str]]]:
    """Have jobs done; leaving the context ends the processes, whatever they do.

    Args:
        function: ``module:name`` of ``function(argument, job) -> answer``; what it raises is of the job, but for
            BadInput, which is raised here.
        environments: one for each process.

    Yields:
        An iterator over jobs with their answers, as they come: the answer, or None and why there is none.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    done: queue.SimpleQueue[tuple[Job, dict[str, Any] | None, str]] = queue.SimpleQueue()
    command = [sys.executable, "-m", __name__, function, argument]
    workers = [_Worker(command, environment) for environment in environments[: len(jobs)]]
    threads = [threading.Thread(target=_feed, args=(worker, waiting, done), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield (_checked(done.get()) for _ in jobs)
    finally:
        for worker in workers:
            worker.tell_to_end()
        deadline = time.monotonic() + PATIENCE_S
        for worker, thread in zip(workers, threads, strict=True):
            worker.wait(deadline)
            thread.join()


def _feed(
    worker: _Worker, waiting: queue.SimpleQueue[Job], done: queue.SimpleQueue[tuple[Job, dict[str, Any] | None, str]]
) -> None:
    while not worker.ended:
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            return
        done.put((job, *worker.ask(job)))


def _checked(found: tuple[Job, dict[str, Any] | None, str]) -> tuple[Job, dict[str, Any] | None, str]:
    job, answer, problem = found
    if answer is None and problem.startswith(BAD_INPUT):
        raise BadInput(problem.removeprefix(BAD_INPUT))
    return found


BAD_INPUT = "\x1e"
"""Marks a problem that no other job would escape."""


class _Worker:
    """The end of a process at which jobs go in."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # a pipe might fill up
        self._turn = threading.Lock()
        self.ended = False

    def ask(self, job: Job) -> tuple[dict[str, Any] | None, str]:
        """Have one job done: the answer, or None and why there is none."""
        line = problem = ""
        try:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError as error:  # it has died, or could not be started
            problem = str(error)
        if line.endswith("\n"):
            answer, problem = json.loads(line)
            return answer, problem
        return None, self._bury() or problem

    def _running(self) -> subprocess.Popen[str]:
        with self._turn:
            if self.ended:
                raise BrokenPipeError
            if self._process is None:
                self._errors.truncate(0)
                # A session of its own: Ctrl-C reaches only the process that asks, which then decides.
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                    text=True, encoding="utf-8", env=dict(self._environment), start_new_session=True,
                )  # fmt: skip
            return self._process

    def _bury(self) -> str:
        """Forget a process that has died, and say what of; nothing where there was none."""
        with self._turn:
            process, self._process = self._process, None
        if process is None:
            return ""
        code = process.wait()
        _close(process)
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or [""])[-1]
        return f"killed by {signal.Signals(-code).name}" if code < 0 else last or f"exit code {code}"

    def tell_to_end(self) -> None:
        """Ask the process to end, and start no other."""
        with self._turn:
            self.ended = True
            if self._process is not None:
                self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until it has ended; at ``deadline`` (of the monotonic clock) it is killed."""
        with self._turn:
            process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)
        self._errors.close()


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:  # a job that it never read
            pass


# --- inside the process


def _end(*_: Any) -> None:
    sys.exit(1)  # an exception, so that half-written files are put away


def _listen(jobs: queue.SimpleQueue[Job]) -> None:
    """Pass jobs on; when the input ends, whoever asked is gone, or has enough."""
    for line in sys.stdin:
        jobs.put(json.loads(line))
    threading.Timer(PATIENCE_S, os._exit, (1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


def _main(function: str, argument: str) -> None:
    signal.signal(signal.SIGTERM, _end)
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    module, _, name = function.partition(":")
    do = getattr(importlib.import_module(module), name)
    while True:
        job, answer, problem = jobs.get(), None, ""
        try:
            answer = do(argument, job)
        except BadInput as error:
            problem = f"{BAD_INPUT}{error}"
        except Exception as error:
            problem = str(error) if isinstance(error, GsSearchError) else f"{type(error).__name__}: {error}"
        print(json.dumps([answer, " ".join(problem.split("\n"))]), file=told, flush=True)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except SystemExit:
        os._exit(1)  # at once: what torch would do first takes seconds

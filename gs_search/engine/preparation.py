"""What all trials share is made once, in a process of its own, before the first of them starts.

``python -m gs_search.engine.preparation RUN_FOLDER FUNCTION [retrain]`` is that process. It runs while Ray
starts; its lines come back over a pipe, and it ends by itself when the process that started it does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gs_search.errors
from gs_search.engine.ray.local import dead_ray_process
from gs_search.engine.ray.nodes import Told, unfit
from gs_search.engine.ray.watchdog import last_words
from gs_search.errors import BadInput, ConfigError, GsSearchError
from gs_search.study.database_url import SECRETS

__all__ = ["Preparation", "RemotePreparation", "function_named"]

ERROR_MARK = "\x1eerror "


class Preparation:
    """The running process.

    Args:
        folder: of the run, or its URI.
        function: ``module:name`` of ``prepare(config, folder, log, retrain_teacher=...)``.
        retrain: have the teacher trained, whatever the study says.
        note: gets each line that the process logs, from another thread.
        purpose: what failed, if the process does without saying why.
    """

    def __init__(
        self,
        folder: str | Path,
        function: str,
        *,
        retrain: bool,
        note: Callable[[str], None],
        purpose: str = "preparing the study",
    ) -> None:
        command = [sys.executable, "-m", __name__, str(folder), function] + ["retrain"] * retrain
        # The driver's sys.path, as Ray's workers get it too; a session of its own, so that Ctrl-C reaches
        # only the driver, which then decides.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        for name in SECRETS:
            environment.pop(name, None)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", env=environment, start_new_session=True,
        )  # fmt: skip
        self._error: GsSearchError | None = None
        self._stderr = ""
        self._purpose = purpose
        self._readers = [
            threading.Thread(target=self._read_lines, args=(note,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self, note: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ERROR_MARK):
                self._error = _error_from(json.loads(line.removeprefix(ERROR_MARK)), self._purpose)
            else:
                note(line.rstrip("\n"))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._stderr = self._process.stderr.read()

    def wait(self, interrupted: Callable[[], bool]) -> bool:
        """Wait for the end; False where ``interrupted`` came first. Raises what the process raised."""
        while True:
            try:
                code = self._process.wait(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if interrupted():
                    return False
        for reader in self._readers:
            reader.join()
        if self._error is not None:
            raise self._error
        if code != 0:
            silent = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                from gs_search.engine.memory import killed_by_memory

                raise GsSearchError(f"{self._purpose} failed: {silent}, {killed_by_memory()}")
            last = (self._stderr.strip().splitlines() or [silent])[-1]
            raise GsSearchError(f"{self._purpose} failed: {last}")
        return True

    def close(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


def function_named(name: str) -> Callable[..., Any]:
    """Import ``package.module:function``."""
    module, _, attribute = name.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def _error_from(described: dict[str, str], purpose: str) -> GsSearchError:
    kind = getattr(gs_search.errors, described["kind"], None)
    if kind is None:
        return GsSearchError(f"{purpose} failed: {described['message']}")
    if kind is ConfigError:
        return ConfigError(described["message"].splitlines())
    if not issubclass(kind, BadInput):
        kind = GsSearchError
    error: GsSearchError = kind(described["message"])
    return error


def _end_with_parent() -> None:
    """Exit as soon as the driver is gone, however it went: its end of the pipe is closed then."""
    sys.stdin.read()
    os._exit(1)


def _main(folder: str, function: str, *options: str) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from gs_search.remote.store import PATIENCE_S
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import load_resolved

    try:
        run_folder = RunFolder(folder, at_work=True)
        if run_folder.mirror is not None:
            run_folder.mirror.store.patience_s = PATIENCE_S
            run_folder.fetch(run_folder.resolved_yaml)
            run_folder.mirror.fetch_below(run_folder.teacher.name)
        config = load_resolved(run_folder.resolved_yaml)
        function_named(function)(
            config, run_folder, lambda line: print(line, flush=True), retrain_teacher="retrain" in options
        )
        if run_folder.mirror is not None:
            run_folder.mirror.send_below(run_folder.teacher)
    except GsSearchError as error:
        print(ERROR_MARK + json.dumps({"kind": type(error).__name__, "message": str(error)}), flush=True)
        return 1
    except Exception as error:
        # Its beginning: the last line of a long message may say anything.
        said = " ".join("".join(traceback.format_exception_only(error)).split())[:500]
        print(ERROR_MARK + json.dumps({"kind": "", "message": said}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))


ASK_EVERY_S = 0.3

TRIES = 3
"""Nodes that may die over it."""

TOLD_AFTER_S = 10.0
"""Waiting for a node that is shorter is no news."""


class RemotePreparation:
    """As ``Preparation``, on another machine; arguments as there, and what it takes there.

    Args:
        told: see ``nodes.Told``.
        resources: of a trial, as of ``Plan``.
    """

    def __init__(
        self,
        folder: str,
        function: str,
        *,
        retrain: bool,
        note: Callable[[str], None],
        told: Told,
        resources: Mapping[str, float],
    ) -> None:
        self._arguments = (folder, function, retrain, dict(told))
        self._note, self._resources = note, dict(resources)
        self._actor: Any = None

    def wait(self, interrupted: Callable[[], bool]) -> bool:
        """Wait for the end; False where ``interrupted`` came first. Raises what the process raised."""
        from ray.exceptions import RayActorError

        for left in reversed(range(TRIES)):
            try:
                return self._once(interrupted)
            except RayActorError as error:
                if not left:
                    raise GsSearchError(f"preparing the study failed: its node died {TRIES} times ({error})") from None
                self._note("the node that prepared the study died; trying again")
        raise AssertionError

    def _once(self, interrupted: Callable[[], bool]) -> bool:
        import ray

        custom = {name: amount for name, amount in self._resources.items() if name not in ("cpu", "gpu")}
        kept = ray.remote(
            num_cpus=self._resources.get("cpu", 1.0), num_gpus=self._resources.get("gpu", 0.0), resources=custom
        )(_Kept)
        self._actor = kept.remote(*self._arguments)
        begun, waiting = time.monotonic(), True
        answer = self._actor.ask.remote()
        while True:
            done, _ = ray.wait([answer], timeout=ASK_EVERY_S)
            if interrupted():
                return False
            if dead := dead_ray_process():
                raise GsSearchError(last_words(dead))
            if not done:
                if waiting and time.monotonic() - begun > TOLD_AFTER_S:
                    self._note("waiting for a node that prepares the study")
                    waiting = False
                continue
            waiting = False
            said = ray.get(answer)
            for line in said["lines"]:
                self._note(line)
            if said["error"]:
                kind, message = said["error"]
                raise getattr(gs_search.errors, kind, GsSearchError)(message)
            if said["done"]:
                return True
            time.sleep(ASK_EVERY_S)
            answer = self._actor.ask.remote()

    def close(self) -> None:
        """End the process if it still runs."""
        if self._actor is not None:
            import ray

            with suppress(Exception):  # the cluster may be gone
                ray.kill(self._actor)
            self._actor = None


class _Kept:
    """The process, on its node."""

    def __init__(self, folder: str, function: str, retrain: bool, told: dict[str, Any]) -> None:
        self._lines: list[str] = []
        self._problem = unfit(told)
        self._process: Preparation | None = None
        if self._problem is None:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            self._process = Preparation(folder, function, retrain=retrain, note=self._lines.append)

    def ask(self) -> dict[str, Any]:
        """What it has said since the last time, and whether it has ended and how."""
        error, done = None, True
        if self._process is None:
            error = ("BadInput", f"this node {self._problem}")
        else:
            try:
                done = self._process.wait(lambda: True)
            except GsSearchError as raised:
                lines = getattr(raised, "problems", [str(raised)])
                kind = type(raised).__name__ if type(raised).__name__ != "ConfigError" else "BadInput"
                error = (kind, "\n".join(lines))
        lines, self._lines[:] = list(self._lines), []
        return {"lines": lines, "error": error, "done": done}

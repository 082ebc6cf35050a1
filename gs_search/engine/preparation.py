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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gs_search.errors
from gs_search.errors import BadInput, ConfigError, GsSearchError
from gs_search.study.database_url import SECRETS

__all__ = ["Preparation", "function_named"]

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

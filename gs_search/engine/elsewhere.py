"""Preparing a study on a node of the cluster, with what a trial takes there: the head may have neither GPU nor photos.

The same process as on one machine (``preparation``), kept by a Ray actor that ends with its driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gs_search.errors
from gs_search.engine.preparation import Preparation
from gs_search.engine.ray.local import casualty
from gs_search.engine.ray.nodes import Told, unfit
from gs_search.engine.ray.watchdog import last_words
from gs_search.errors import GsSearchError

__all__ = ["PreparationElsewhere"]

ASK_EVERY_S = 0.3

TRIES = 3
"""Nodes that may die over it."""

TOLD_AFTER_S = 10.0
"""Waiting for a node that is shorter is no news."""


class PreparationElsewhere:
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
            if dead := casualty():
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

"""Worker processes that outlive their trial.

A process that stays spares the next trial seconds of importing torch. Tune's ``reuse_actors`` keeps one process, and
further ones only while further trials wait for them. Here none waits: a point is proposed when a worker is free to run
it, with all that is known by then. So of trials that end at about the same moment all but one would cost their
process: with sixteen workers and trials of a second, half of the workers' time (``benchmarks.engine``).
"""

from __future__ import annotations

from typing import Any

__all__ = ["WarmProcesses"]


class WarmProcesses:
    """Has Tune keep as many processes as there are workers, until no further trial will come.

    Ray has no setting for it; this raises the limit of the controller's own cache. Where another version of Ray has no
    such cache, its own rule holds, and only time is lost.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._raised: list[tuple[Any, Any]] = []

    def keep(self, controller: Any, trial: Any) -> None:
        """Keep the processes of trials like this one; ``controller`` as Tune passes it to a scheduler."""
        cache = getattr(getattr(controller, "_tune_controller", controller), "_actor_cache", None)
        if cache is not None and not self._raised:
            cache.increase_max(trial.placement_group_factory, by=self._workers)
            self._raised.append((cache, trial.placement_group_factory))

    def release(self) -> None:
        """No further trial will come: let processes go as they get idle, and their nodes with them."""
        while self._raised:
            cache, resources = self._raised.pop()
            cache.decrease_max(resources, by=self._workers)

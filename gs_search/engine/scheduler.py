"""Tune's side of Pareto-aware stopping; the rule itself is in ``search.stopping``."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gs_search.engine.ray.ray_adapter import keep_warm, let_go
from gs_search.engine.searcher import StudySearcher
from gs_search.results.record import Rung, TrialRecord
from gs_search.search.stopping import Rungs, Verdict

__all__ = ["ParetoStopping", "WarmProcesses"]

PATIENCE_S = 60.0
"""How long a trial waits for its own process: a start takes some seconds, on a busy machine tens of them."""


class ParetoStopping(FIFOScheduler):
    """Stops a trial at a rung where another one dominates it; the searcher tells the study why."""

    def __init__(self, rungs: Rungs, searcher: StudySearcher, warm: WarmProcesses) -> None:
        super().__init__()
        self.rungs, self.searcher, self._warm = rungs, searcher, warm
        self._first: Any = None
        """The trial that has waited longest for a process, and since when that is this one."""
        self._since = 0.0

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Have its process kept: this is where Tune shows its controller."""
        self._warm.keep(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The trial that has waited longest, where that is long: the place that it waits for may have gone for good.

        A FIFO scheduler always chooses it. It then takes every process that gets idle, and Tune cancels the one that
        was being started for it: where trials are shorter than a start, a study stays at the few processes that it
        had first, and nodes that join later get none. A trial that is chosen here has no such hurry; others take an
        idle process when they are proposed, or wait for their own.
        """
        trial = super().choose_trial_to_run(tune_controller)
        if trial is not self._first:
            self._first, self._since = trial, time.monotonic()
        return trial if time.monotonic() - self._since > PATIENCE_S else None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a trial that pauses at a rung."""
        asked = self.searcher.live.get(trial.trial_id)
        if "rung" not in result or asked is None:
            return str(TrialScheduler.CONTINUE)
        verdict: Verdict | None = None
        try:
            verdict = self.rungs.judge(asked.number, Rung.from_json(result["rung"][0]))
        except Exception as error:
            self.searcher.give_up(f"judging trial {asked.number} at its rung", error)
        if verdict is None:
            return str(TrialScheduler.CONTINUE)
        self.searcher.verdicts[trial.trial_id] = verdict
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Remember all rungs of a trial: one that went on from a checkpoint did not pause at all of them again."""
        asked = self.searcher.live.get(trial.trial_id)
        if asked is not None and "record" in result:
            try:
                self.rungs.remember(asked.number, TrialRecord.from_json(result["record"][0]).rungs)
            except Exception as error:
                self.searcher.give_up(f"reading the rungs of trial {asked.number}", error)
        if self.searcher.asks_no_more():
            self._warm.release()


class WarmProcesses:
    """Has Tune keep as many processes as there are workers, until no further trial will come.

    Ray has no setting for it; this raises the limit of its own cache, see ``ray_adapter``.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._raised: list[tuple[Any, Any]] = []

    def keep(self, controller: Any, trial: Any) -> None:
        """Keep the processes of trials like this one; ``controller`` as Tune passes it to a scheduler."""
        if not self._raised:
            cache = keep_warm(controller, trial.placement_group_factory, self._workers)
            if cache is not None:
                self._raised.append((cache, trial.placement_group_factory))

    def release(self) -> None:
        """No further trial will come: let processes go as they get idle, and their nodes with them."""
        while self._raised:
            cache, resources = self._raised.pop()
            let_go(cache, resources, self._workers)

"""Tune's side of Pareto-aware stopping; the rule itself is in ``rungs``."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gs_search.search.rungs import Rungs, Verdict
from gs_search.search.searcher import StudySearcher
from gs_search.search.warm_processes import WarmProcesses

__all__ = ["ParetoStopping"]


class ParetoStopping(FIFOScheduler):
    """Stops a trial at a rung where another one dominates it; the searcher tells the study why."""

    def __init__(self, rungs: Rungs, searcher: StudySearcher, warm: WarmProcesses) -> None:
        super().__init__()
        self.rungs, self.searcher, self._warm = rungs, searcher, warm

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Have its process kept: this is where Tune shows its controller."""
        self._warm.keep(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: a trial takes a process that is idle when it is proposed, or waits for the one that is started for it.

        A FIFO scheduler has the trial that waits longest take every process that gets idle, and Tune then cancels the
        one that was being started for it: where trials are shorter than a start, a study stays at the few processes
        that it had first, and nodes that join later get none.
        """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a trial that pauses at a rung."""
        asked = self.searcher.live.get(trial.trial_id)
        if "rung" not in result or asked is None:
            return str(TrialScheduler.CONTINUE)
        verdict: Verdict | None = None
        try:
            verdict = self.rungs.judge(asked.number, result["rung"][0])
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
                self.rungs.remember(asked.number, result["record"][0].get("rungs") or ())
            except Exception as error:
                self.searcher.give_up(f"reading the rungs of trial {asked.number}", error)
        if self.searcher.asks_no_more():
            self._warm.release()

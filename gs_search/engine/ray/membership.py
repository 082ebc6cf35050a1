"""Nodes that join a cluster while a study runs: one that will not do is passed over, and the search goes on elsewhere.

Each is asked what those were asked that were there from the beginning (``nodes``). A trial may be quicker than the
answer; the process that it would have had then ends before it has begun, and the trial is queued again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Callback, PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from gs_search.engine.ray.cluster import Cluster
from gs_search.engine.ray.nodes import able, ask, fits, named, objection
from gs_search.errors import GsSearchError

__all__ = ["Membership", "TrialPlace"]

EVERY_S = 2.0
"""Between two looks for new nodes."""

ANSWER_S = 30.0
"""How long an answer is waited for that a failed trial hangs on: the node has to start a process."""

AGAIN_S = 60.0
"""After which a node that was passed over is asked again: it may have been mended, or the store have been away."""

ALONE_S = 30.0
"""In which a node that will do may come back, or another one come, before a search without any ends."""


class TrialPlace(PlacementGroupFactory):
    """What a trial takes, and on which nodes it may not be.

    One and the same for Tune, which keeps processes by it, whatever is avoided: those that there are stay warm.

    Args:
        resources: of a trial, as of ``Plan``.
    """

    def __init__(self, resources: Mapping[str, float]) -> None:
        super().__init__([{name.upper() if name in ("cpu", "gpu") else name: n for name, n in resources.items()}])
        self.avoided: set[str] = set()
        """Ids of nodes."""

    def __deepcopy__(self, memo: object) -> TrialPlace:
        return self  # Tune copies it for every trial

    def to_placement_group(self) -> PlacementGroup:
        """Have Ray find the place of a trial."""
        if not self.avoided:
            return super().to_placement_group()
        where = {"ray.io/node-id": f"!in({','.join(sorted(self.avoided))})"}
        return placement_group(self.bundles, strategy=self.strategy, bundle_label_selector=[where])


class Membership(Callback):
    """Has Tune's trials avoid nodes that will not do.

    Args:
        custom: resources that a trial takes, besides cores and GPUs.
        note: is told of each node that is passed over, and why.
        give_up: ends the search.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: TrialPlace,
        *,
        custom: Mapping[str, float],
        note: Callable[[str], None],
        give_up: Callable[[GsSearchError], None],
    ) -> None:
        self._cluster, self._place, self._custom = cluster, place, dict(custom)
        self._note, self._give_up = note, give_up
        self._when = dict.fromkeys(cluster.known, math.inf)
        """When nodes are to be asked again, by their ids."""
        self._asked: dict[str, tuple[dict[str, Any], Any]] = {}
        """Nodes that have not answered yet, and what Ray will have their answers in."""
        self._problems: dict[str, str] = {}
        self._looked = -EVERY_S
        self._alone_since: float | None = None
        self._begun: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look for nodes now and then."""
        if time.monotonic() - self._looked >= EVERY_S:
            self._look()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a process has taken a trial."""
        self._begun.add(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Know what new nodes are before a trial that never began is placed once more."""
        if trial.trial_id not in self._begun:
            self._look(ANSWER_S)

    def _look(self, patience_s: float = 0.0) -> None:
        self._looked = now = time.monotonic()
        nodes = able(self._custom)
        self._place.avoided &= {node["NodeID"] for node in nodes}
        due = [node for node in nodes if self._when.get(node["NodeID"], now) <= now]
        for number, answer in ask(self._cluster.told, due).items() if due else ():
            self._when[number] = math.inf
            self._asked[number] = (next(node for node in due if node["NodeID"] == number), answer)
        if self._asked:
            waited = [answer for _, answer in self._asked.values()]
            done, _ = ray.wait(waited, num_returns=len(waited), timeout=patience_s)
            for node, answer in [pair for pair in self._asked.values() if pair[1] in done]:
                self._hear(node, answer)
        self._mind_the_rest(nodes)

    def _hear(self, node: dict[str, Any], answer: Any) -> None:
        number = node["NodeID"]
        del self._asked[number]
        try:
            said = ray.get(answer)
        except RayError as error:  # it has gone again, or cannot run a task at all
            problem: str | None = f"does not answer ({type(error).__name__})"
        else:
            problem = objection(self._cluster.told, node, said, insecure=self._cluster.insecure)
        before = self._problems.pop(number, None)
        if problem is None:
            self._place.avoided.discard(number)
            if before is not None:
                self._note(f"{named(node)} will do now")
            return
        self._place.avoided.add(number)
        self._when[number] = time.monotonic() + AGAIN_S
        self._problems[number] = f"{named(node)} {problem}"
        if self._problems[number] != before:
            self._note(f"{self._problems[number]}; it is passed over, and gets no trials")

    def _mind_the_rest(self, nodes: list[dict[str, Any]]) -> None:
        """Give up where all that is left are nodes that will not do."""
        trial = {name: amount for bundle in self._place.bundles for name, amount in bundle.items()}
        there = [node for node in nodes if fits(node["Resources"], trial)]
        if not there or any(node["NodeID"] not in self._place.avoided for node in there):
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        if time.monotonic() - self._alone_since > ALONE_S:
            last = [self._problems[node["NodeID"]] for node in there if node["NodeID"] in self._problems][-1:]
            self._give_up(GsSearchError("; ".join(["no node is left that will do", *last])))

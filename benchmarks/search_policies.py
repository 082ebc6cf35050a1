"""The policies that are compared: who proposes, who is stopped, and what a study begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from optuna.samplers import BaseSampler

from benchmarks.search_clock import MemoryDatabase
from benchmarks.search_ideas import FidRungs, ScreeningRungs, ShadowDatabase
from gs_search.search import samplers
from gs_search.search.stopping import Rungs
from gs_search.search.study_database import derived_seed
from gs_search.search.surrogate import SurrogateSampler
from gs_search.study.config import StudyConfig
from gs_search.study.space import SearchSpace

__all__ = ["IDEAS", "POLICIES", "RANDOM", "STOPS", "WORKERS", "Policy", "set_up"]

ALL, FIRST, LATER = (0, 50, 125), (0,), (50, 125)
"""Rungs."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One way to search."""

    sampler: str
    rungs: tuple[int, ...] = ()
    """Where trials pause; none: nobody is stopped."""
    margin_db: float = 0.5
    start_points: bool = True
    workers: int = 2
    share: float = 1.0
    """Of the budget; less for samplers that take seconds to ask."""
    idea: str = ""
    population: tuple[int, int] = field(default=samplers.POPULATION)


RANDOM = "random, no start"

POLICIES: dict[str, Policy] = {
    RANDOM: Policy(sampler="random", start_points=False),
    "random": Policy(sampler="random"),
    "random, stopping": Policy(sampler="random", rungs=ALL),
    "QMC": Policy(sampler="qmc"),
    "NSGA-II": Policy(sampler="nsga2"),
    "TPE, no start": Policy(sampler="tpe", start_points=False),
    "TPE": Policy(sampler="tpe"),
    "TPE, rung 0 only": Policy(sampler="tpe", rungs=FIRST),
    "TPE, no rung 0": Policy(sampler="tpe", rungs=LATER),
    "TPE, stopping": Policy(sampler="tpe", rungs=ALL),
    "GP of Optuna": Policy(sampler="gp", share=0.25),
    "surrogate, no start": Policy(sampler="surrogate", start_points=False),
    "surrogate": Policy(sampler="surrogate"),
    "surrogate, stopping": Policy(sampler="surrogate", rungs=ALL),
}

STOPS: dict[str, Policy] = {
    f"{name}, {margin:g} dB": Policy(sampler=sampler, rungs=ALL, margin_db=margin)
    for name, sampler, margins in (
        ("random", "random", (0.0, 0.25, 1.0)),
        ("TPE", "tpe", (0.0, 0.25, 1.0)),
        ("surrogate", "surrogate", (1.0, 2.0)),
    )
    for margin in margins
}
"""Margins of the stopping rule, besides 0.5, which is the others'."""

# Stopped trials told to the sampler with the FID foretold; the rule of stopping with the FID foretold in the place of
# decibels; of so many students looked at before training, those with the largest gain foretold.
IDEAS: dict[str, Policy] = {
    "TPE, FID foretold": Policy(sampler="tpe", rungs=ALL, idea="shadow"),
    "TPE, foretold rule": Policy(sampler="tpe", rungs=ALL, idea="fid"),
    "TPE, 1 of 3 trained": Policy(sampler="tpe", rungs=FIRST, idea="screen 3"),
    "TPE, 1 of 8 trained": Policy(sampler="tpe", rungs=FIRST, idea="screen 8"),
    "random, 1 of 8 trained": Policy(sampler="random", rungs=FIRST, idea="screen 8"),
    "NSGA-II, 30 at a time": Policy(sampler="nsga2", population=(30, 30)),
}

WORKERS: dict[str, Policy] = {
    f"{RANDOM}, 8 workers": Policy(sampler="random", start_points=False, workers=8),
    "TPE, stopping, 8 workers": Policy(sampler="tpe", rungs=ALL, workers=8),
    "surrogate, 8 workers": Policy(sampler="surrogate", workers=8),
}

FID_NOISE = 5.0
"""Margin of FID in the idea that compares it: about what two seeds of one point differ by."""


class SurrogateDatabase(MemoryDatabase):
    """Proposals from ``SurrogateSampler``."""

    def __init__(self, config: StudyConfig, reference: Sequence[float]) -> None:
        self.reference = reference
        super().__init__(config)

    def next_sampler(self) -> BaseSampler:
        """Make the sampler of the next proposal."""
        turn = self._turn()
        return SurrogateSampler(
            self.feasibility.space(),
            reference=self.reference,
            position=turn,
            seed=derived_seed(self.config.seed, "sampler", turn),
            study_seed=derived_seed(self.config.seed, "sampler"),
        )


class PopulationDatabase(MemoryDatabase):
    """Genetic samplers with generations of another size."""

    def __init__(self, config: StudyConfig, population: tuple[int, int]) -> None:
        self.population = population
        super().__init__(config)

    def next_sampler(self) -> BaseSampler:
        """Make the sampler of the next proposal."""
        usual, samplers.POPULATION = samplers.POPULATION, self.population
        try:
            return super().next_sampler()
        finally:
            samplers.POPULATION = usual


def set_up(
    policy: Policy, config: StudyConfig, space: SearchSpace, seed: int, reference: Sequence[float]
) -> tuple[MemoryDatabase, Rungs]:
    """An empty study, start points queued, and the judge at its rungs."""
    known = "tpe" if policy.sampler == "surrogate" else policy.sampler
    config = config.model_copy(update={"sampler": known, "seed": seed, "space": space})
    if policy.sampler == "surrogate":
        database: MemoryDatabase = SurrogateDatabase(config, reference)
    elif policy.population != samplers.POPULATION:
        database = PopulationDatabase(config, policy.population)
    else:
        database = ShadowDatabase(config) if policy.idea == "shadow" else MemoryDatabase(config)
    if policy.start_points:
        database.enqueue_start_points()
    return database, _rungs(policy, database, reference)


def _rungs(policy: Policy, database: MemoryDatabase, reference: Sequence[float]) -> Rungs:
    if policy.idea == "fid":
        return FidRungs(database, FID_NOISE)
    if policy.idea.startswith("screen"):
        return ScreeningRungs(database, int(policy.idea.split()[1]), reference)
    return Rungs("pareto" if policy.rungs else "off", policy.margin_db)

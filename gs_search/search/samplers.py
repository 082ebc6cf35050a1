"""The samplers that a study can name, and how each is made anew for every proposal.

A sampler lives for one turn. What it knows comes from the study: TPE and GP fit the finished trials, NSGA-II and
III keep their generations in the trials' attributes. What it draws comes from a seed of that turn. So proposals
follow from the study's seed and its trials, whichever process asks, and a continued study never starts over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

from gs_search.errors import BadInput
from gs_search.search import optuna_adapter
from gs_search.search.storage import quiet

__all__ = ["SAMPLERS", "SobolSampler", "generation_attribute", "make_sampler"]

SAMPLERS = ("tpe", "nsga2", "nsga3", "gp", "qmc", "random")

POPULATION = (10, 50)
"""Least and most trials of a generation; Optuna's 50 would make a study of 24 trials a random search."""


def make_sampler(name: str, *, turn: int, turn_seed: int, study_seed: int, parameters: Sequence[str]) -> BaseSampler:
    """Make the sampler of one turn.

    Args:
        turn: number of proposals before this one.
        turn_seed: differs from turn to turn.
        study_seed: the same in all turns.
        parameters: names of all parameters of the space, in its order.

    Raises:
        BadInput: there is no sampler of this name.
    """
    low, high = POPULATION
    population = min(max(2 * len(parameters), low), high)
    with quiet():
        if name == "tpe":
            # The constant liar keeps workers that ask at the same time apart.
            return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=turn_seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=population, seed=turn_seed)
        if name == "nsga3":
            return optuna.samplers.NSGAIIISampler(population_size=population, seed=turn_seed)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=turn_seed, warn_independent_sampling=False)
        if name == "qmc":
            return SobolSampler(parameters, position=turn, seed=study_seed)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=turn_seed)
    raise BadInput(f"unknown sampler {name!r}: use {', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}")


def generation_attribute(name: str) -> str | None:
    """Attribute in which a genetic sampler keeps a trial's generation; None for the others.

    Trials that were not asked for, from an earlier study, belong to no generation, and would never be parents.
    """
    classes: dict[str, type[optuna.samplers.BaseGASampler]] = {
        "nsga2": optuna.samplers.NSGAIISampler,
        "nsga3": optuna.samplers.NSGAIIISampler,
    }
    return optuna_adapter.generation_attribute(classes[name]) if name in classes else None


class SobolSampler(BaseSampler):
    """Proposes one point of a scrambled Sobol sequence over the whole space.

    Optuna's ``QMCSampler`` draws its first trial, and every parameter that this trial did not have, at random,
    and its place in the sequence moves on when a trial is repeated. Here each parameter has its dimension, also
    where a condition rests it in some trials, and the place is the turn.

    Args:
        parameters: names of the parameters, one a dimension.
        position: place in the sequence, from 0.
        seed: of the scrambling; another seed is another sequence.
    """

    def __init__(self, parameters: Sequence[str], *, position: int, seed: int) -> None:
        from scipy.stats import qmc  # takes half a second to import

        sequence = qmc.Sobol(max(1, len(parameters)), scramble=True, seed=seed)
        if position:
            sequence.fast_forward(position)
        self._shares = dict(zip(parameters, sequence.random(1)[0].tolist(), strict=False))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is looked up when it is asked for."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, see ``infer_relative_search_space``."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Value of one parameter at this place of the sequence."""
        return _value_at(self._shares[param_name], param_distribution)


def _value_at(share: float, distribution: BaseDistribution) -> Any:
    """Value that lies ``share``, in [0, 1), of the way through a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    whole = isinstance(distribution, IntDistribution)
    if distribution.log:
        # A whole number stands for the half on either side of it.
        half = 0.5 if whole else 0.0
        value = math.exp(math.log(low - half) + share * (math.log(high + half) - math.log(low - half)))
        return min(max(round(value) if whole else value, low), high)
    if step is not None:
        value = low + step * int(share * (round((high - low) / step) + 1))
        return int(value) if whole else min(value, high)
    return low + share * (high - low)

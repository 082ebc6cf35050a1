"""How much each parameter of the search decides about each objective: PED-ANOVA, by Optuna.

PED-ANOVA (Watanabe et al., IJCAI 2023) compares where the best trials lie along a parameter with where all lie. With
few trials chance alone gives some parameter a large share, so each share comes with what chance would give it: the
95th percentile over shuffled objectives. A share below that says nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gs_search.study.space import Parameter, SearchSpace

if TYPE_CHECKING:
    import optuna

__all__ = ["MIN_TRIALS", "Importance", "parameter_importance"]

MIN_TRIALS = 10
"""With fewer there are too few best ones to lie anywhere."""
BEST_SHARE, BEST_COUNT = 0.1, 6
"""The best trials: a tenth of all, which is Optuna's habit, but so many at least."""
SHUFFLES, LEAST_SHUFFLES, SHUFFLED_TRIALS = 60, 20, 6000
"""How often objectives are shuffled; less often with many trials, where it takes long and chance gives little."""
CHANCE = 95
"""Percentile of the shuffled shares that counts as chance."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """One parameter's part in one objective."""

    parameter: str
    share: float
    """0..1; the shares of all parameters add up to one."""
    chance: float
    """What a parameter without any influence reaches one time in twenty."""
    trials: int
    """Trials that have this parameter."""

    @property
    def is_clear(self) -> bool:
        """Whether the share is more than chance gives."""
        return self.share > self.chance


def parameter_importance(
    points: Sequence[Mapping[str, Any]], objectives: Mapping[str, Sequence[float]], space: SearchSpace
) -> dict[str, tuple[Importance, ...]]:
    """Rank the parameters of a space for each objective, the most important first.

    A parameter with conditions is judged by the trials that have it.

    Args:
        points: of the trials.
        objectives: name of an objective to its values, one a trial; all are minimised.

    Returns:
        name of an objective to its ranking; an empty one with fewer than ``MIN_TRIALS`` trials.
    """
    if len(points) < MIN_TRIALS:
        return {name: () for name in objectives}
    raw: dict[str, dict[str, float]] = {name: {} for name in objectives}
    chance: dict[str, float] = {}
    counts: dict[str, int] = {}
    for parameter in space.parameters:
        having = [index for index, point in enumerate(points) if parameter.problem(point.get(parameter.name)) is None]
        values = [points[index][parameter.name] for index in having]
        counts[parameter.name], chance[parameter.name] = len(having), 0.0
        if len(having) < MIN_TRIALS or len(set(values)) < 2:
            for found in raw.values():
                found[parameter.name] = 0.0
            continue
        judge = _Judge(parameter, values)
        for name, column in objectives.items():
            raw[name][parameter.name] = judge(np.array([column[index] for index in having]))
        chance[parameter.name] = judge.chance()
    return {name: _ranked(found, chance, counts) for name, found in raw.items()}


def _ranked(raw: Mapping[str, float], chance: Mapping[str, float], counts: Mapping[str, int]) -> tuple[Importance, ...]:
    total = sum(raw.values()) or 1.0
    shares = [
        Importance(parameter=name, share=value / total, chance=chance[name] / total, trials=counts[name])
        for name, value in raw.items()
    ]
    return tuple(sorted(shares, key=lambda importance: -importance.share))


class _Judge:
    """Gives the raw importance of one parameter for any objective of the same trials."""

    def __init__(self, parameter: Parameter, values: Sequence[Any]) -> None:
        import optuna

        from gs_search.search.storage import quiet

        self._name, self._count = parameter.name, len(values)
        distribution = _distribution(parameter)
        best = min(0.5, max(BEST_SHARE, BEST_COUNT / len(values)))
        with quiet():
            self._evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
            self._study = optuna.create_study()
            self._study.add_trials(
                [
                    optuna.trial.create_trial(
                        params={parameter.name: value}, distributions={parameter.name: distribution}, value=0.0
                    )
                    for value in values
                ]
            )

    def __call__(self, objective: np.ndarray) -> float:
        values = objective.tolist()
        with warnings.catch_warnings():
            # It says at every call that low values are good ones; they are.
            warnings.simplefilter("ignore", UserWarning)
            found = self._evaluator.evaluate(
                self._study, params=[self._name], target=lambda trial: float(values[trial.number])
            )
        return float(found[self._name])

    def chance(self) -> float:
        """Raw importance that an objective without any relation stays below nineteen times of twenty.

        It serves all objectives, because only their ranks count.
        """
        dice = np.random.default_rng(0)  # the same report twice is the same report
        shuffles = max(LEAST_SHUFFLES, min(SHUFFLES, SHUFFLED_TRIALS // self._count))
        return float(np.percentile([self(dice.permutation(self._count)) for _ in range(shuffles)], CHANCE))


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna

    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution(parameter.choices)
    if parameter.kind == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        return optuna.distributions.IntDistribution(
            int(parameter.low), int(parameter.high), log=parameter.log, step=step
        )
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)

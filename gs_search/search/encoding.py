"""Points of a search space as numbers, and back: what models of the trials compute with. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gs_search.study.space import Parameter, SearchSpace

__all__ = ["Coordinates"]

Array = NDArray[np.float64]


class Coordinates:
    """Points of a space as numbers: a share of its range, in 0..1, for each parameter, and from these model inputs.

    A share is what ``SobolSampler`` turns into a value. It is NaN where a parameter's condition does not hold; to a
    model that is the middle of the range.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.names = [parameter.name for parameter in space.parameters]

    def shares(self, point: Mapping[str, Any]) -> Array:
        """One share a parameter. Values beyond the range, as of a space that was narrowed, lie beyond 0..1."""
        full = {**self.space.constants, **point}
        active = {parameter.name for parameter in self.space.active(full)}
        found = [_share(p, full[p.name]) if p.name in active and p.name in full else np.nan
                 for p in self.space.parameters]  # fmt: skip
        return np.array(found, np.float64)

    def at(self, shares: Array) -> Array:
        """n x parameters shares with those in between legal values moved to one, and idle ones made NaN."""
        found = np.asarray(shares, np.float64).copy()
        kept: dict[str, NDArray[Any]] = {name: np.full(len(found), value) for name, value in self._conditions().items()}
        for k, parameter in enumerate(self.space.parameters):
            found[:, k] = _legal(parameter, found[:, k])
            idle = np.zeros(len(found), bool)
            for name, values in parameter.when:
                idle |= ~np.isin(kept[name], values) if name in kept else True
            found[idle, k] = np.nan
            if parameter.kind == "choice":
                chosen = np.array(parameter.choices, dtype=object)[_place(found[:, k], len(parameter.choices))]
                chosen[idle] = None
                kept[parameter.name] = chosen
        return found

    def _conditions(self) -> dict[str, Any]:
        """Constants on which a parameter depends."""
        asked = {name for parameter in self.space.parameters for name, _ in parameter.when}
        return {name: value for name, value in self.space.constants.items() if name in asked}

    def inputs(self, shares: Array) -> Array:
        """n x parameters shares as n x d inputs of a model: choices that are no numbers get an input each."""
        columns: list[Array] = []
        for k, parameter in enumerate(self.space.parameters):
            column, idle = shares[:, k], np.isnan(shares[:, k])
            if parameter.kind != "choice":
                columns.append(np.where(idle, 0.5, column))
                continue
            place = _place(column, len(parameter.choices))
            columns += [np.where(idle, 0.5, line[place]) for line in _scales(parameter)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(shares), 1))


def _share(parameter: Parameter, value: Any) -> float:
    """Where a value lies in the range of its parameter; the inverse of what ``SobolSampler`` does."""
    if parameter.kind == "choice":
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    low, high = parameter.low, parameter.high
    whole = parameter.kind == "int"
    if parameter.log:
        half = 0.5 if whole else 0.0
        low, high, value = math.log(low - half), math.log(high + half), math.log(value)
    elif whole or parameter.step is not None:
        step = parameter.step or 1
        return ((value - low) / step + 0.5) / (round((high - low) / step) + 1)
    return float((value - low) / (high - low)) if high > low else 0.5


def _legal(parameter: Parameter, shares: Array) -> Array:
    """Shares of the values that these shares stand for."""
    if parameter.kind == "choice":
        count = len(parameter.choices)
    elif parameter.kind == "int" and parameter.log:
        low, high = math.log(parameter.low - 0.5), math.log(parameter.high + 0.5)
        values = np.round(np.exp(low + np.nan_to_num(shares, nan=0.5) * (high - low)))
        return np.asarray((np.log(np.clip(values, parameter.low, parameter.high)) - low) / (high - low))
    elif parameter.kind == "int" or parameter.step is not None:
        count = round((parameter.high - parameter.low) / (parameter.step or 1)) + 1
    else:
        return np.nan_to_num(shares, nan=0.5)
    return np.asarray((_place(shares, count) + 0.5) / count)


def _place(shares: Array, count: int) -> NDArray[np.int64]:
    """Which of ``count`` values each share stands for; of an idle parameter the first."""
    return np.asarray(np.clip((np.nan_to_num(shares) * count).astype(np.int64), 0, count - 1))


def _scales(parameter: Parameter) -> list[Array]:
    """Model inputs of each choice: numbers keep their distances, of other choices each has an input of its own."""
    choices = parameter.choices
    if all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in choices):
        numbers = np.array(choices, np.float64)
        return [(numbers - numbers.min()) / (np.ptp(numbers) or 1.0)]
    return list(np.eye(len(choices)))

"""The search space: which settings a search may vary, how far, and under which conditions.

A space proposes values through the three ``suggest_*`` methods of a trial, checks points, and gives each
point one canonical key, by which equal points are recognised. ``space_file`` reads it from YAML. It knows no
optimizer, no torch, and nothing of what a setting does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from gs_search.study.settings import Legal, Point, Value
from gs_search.study.yaml_file import nearest, quote

__all__ = ["Parameter", "SearchSpace", "Suggests", "word"]


class Suggests(Protocol):
    """What a space needs of a trial; an Optuna trial has it."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting that the search varies."""

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    """Smallest value, included; numbers only."""
    high: float = 0.0
    """Largest value, included; numbers only."""
    step: float | None = None
    """Distance of neighbouring values, counted from ``low``."""
    log: bool = False
    """Whether values are drawn evenly in their logarithm."""
    choices: tuple[Value, ...] = ()
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Conditions, all of which must hold: a parameter above this one has one of these values."""

    def suggest(self, trial: Suggests) -> Value:
        """Ask ``trial`` for a value."""
        if self.kind == "choice":
            value: Value = trial.suggest_categorical(self.name, self.choices)
            return value
        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def problem(self, value: object) -> str | None:
        """Say why ``value`` is none that this parameter proposes, or return None."""
        if self.kind == "choice":
            legal = Legal(choices=self.choices)
            return legal.problem(value)
        wrong = Legal(self.low, self.high, integer=self.kind == "int").problem(value)
        if wrong or not self.step:
            return wrong
        assert isinstance(value, (int, float))
        steps = (value - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6:
            return f"must be {self.low:g} plus a multiple of {self.step:g}, not {value!r}"
        return None

    def canonical(self, value: Value) -> str:
        """Write ``value`` so that equal values are written alike."""
        if self.kind == "choice":
            same = (c for c in self.choices if c == value and isinstance(c, bool) == isinstance(value, bool))
            return word(next(same, value))
        if self.kind == "int":
            return str(int(value))
        return f"{float(value) + 0.0:.6g}"

    def to_dict(self) -> dict[str, Any]:
        """Write the parameter as the YAML file has it."""
        if self.kind == "choice":
            entry: dict[str, Any] = {"type": "choice", "choices": list(self.choices)}
        else:
            entry = {"type": self.kind, "low": self.low, "high": self.high}
            entry |= {"log": True} if self.log else {}
            entry |= {} if self.step is None else {"step": self.step}
        return entry | ({"when": {name: list(values) for name, values in self.when}} if self.when else {})


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Parameters in the order in which they are proposed, constants, and the points to try first."""

    parameters: tuple[Parameter, ...]
    constants: Mapping[str, Value]
    """Settings that have one value in all trials of the space; they are part of every point."""
    start_points: tuple[Point, ...] = ()
    """Complete points (constants included), tried first and in this order."""
    source: Path | None = None

    def suggest(self, trial: Suggests) -> dict[str, Value]:
        """Propose a point: every constant, and every parameter whose conditions hold."""
        point = dict(self.constants)
        for parameter in self.parameters:
            if _active(parameter, point):
                point[parameter.name] = parameter.suggest(trial)
        return point

    def active(self, point: Point) -> list[Parameter]:
        """Parameters that count at ``point``: those whose conditions hold there, in order."""
        seen: dict[str, Value] = dict(self.constants)
        kept = []
        for parameter in self.parameters:
            if _active(parameter, seen):
                kept.append(parameter)
                if parameter.name in point:
                    seen[parameter.name] = point[parameter.name]
        return kept

    def check_point(self, point: Point) -> list[str]:
        """Say everything that keeps ``point`` from being one of this space; constants may be left out."""
        missing = [parameter.name for parameter in self.active(point) if parameter.name not in point]
        return self.check_values(point) + [f"{name}: is missing" for name in missing]

    def check_values(self, point: Point) -> list[str]:
        """Say what is wrong about the values that ``point`` has; a part of a point will do."""
        problems = []
        names = [parameter.name for parameter in self.parameters]
        active = {parameter.name: parameter for parameter in self.active(point)}
        for name, value in point.items():
            if name in active:
                wrong = active[name].problem(value)
                problems += [f"{name}: {wrong}"] if wrong else []
            elif name in self.constants:
                if value != self.constants[name]:
                    problems.append(f"{name}: is fixed to {word(self.constants[name])}, not {quote(value)}")
            elif name in names:
                problems.append(f"{name}: its condition does not hold at this point")
            else:
                hint = nearest(name, [*names, *self.constants])
                problems.append(f"{name}: is not in this search space" + (f"; {hint}" if hint else ""))
        return problems

    def key(self, point: Point) -> str:
        """Name a point canonically, ``name=value`` joined by commas.

        Names are sorted, floats have 6 significant digits; constants, and parameters whose conditions do not
        hold are left out. Points with equal keys are the same trial.
        """
        written = {p.name: p.canonical(point[p.name]) for p in self.active(point) if p.name in point}
        return ",".join(f"{name}={written[name]}" for name in sorted(written))

    def tunable(self, point: Point) -> dict[str, Value]:
        """Keep the part of a point that a trial suggests: no constants, no idle parameters."""
        return {p.name: point[p.name] for p in self.active(point) if p.name in point}

    def to_dict(self) -> dict[str, Any]:
        """Write the space as plain data; ``space_file.space_from_dict`` reads it back."""
        parameters = {parameter.name: parameter.to_dict() for parameter in self.parameters}
        written = {"parameters": {**self.constants, **parameters}}
        return written | {"start_points": [dict(point) for point in self.start_points]}


def word(value: Value) -> str:
    """Write one value as a person would in the YAML file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _active(parameter: Parameter, seen: Mapping[str, Value]) -> bool:
    return all(name in seen and seen[name] in values for name, values in parameter.when)

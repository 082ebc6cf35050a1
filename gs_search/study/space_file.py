"""Reads search-space files: YAML in, a :class:`gs_search.study.space.SearchSpace` or every mistake out.

``search_spaces/README.md`` describes the file. All entries are read before anything is reported, so that
one look at the messages is enough to repair a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gs_search.study.settings import GROUPS, LEGAL, Legal, Point, Value
from gs_search.study.space import Parameter, SearchSpace, word
from gs_search.study.yaml_file import Document, FileErrors, Key, Problem, nearest, quote, read_yaml

__all__ = ["legal_of", "load_space", "parse_space", "setting_names", "space_from_dict"]


def load_space(path: Path) -> SearchSpace:
    """Read a search-space file; raises ConfigError with a line for each mistake in it."""
    space, problems = parse_space(read_yaml(path, what="search-space file"), source=path.resolve())
    if problems or space is None:
        raise FileErrors(problems)
    return space


def space_from_dict(data: Mapping[str, Any], *, source: Path | None = None) -> SearchSpace:
    """Rebuild a space from ``SearchSpace.to_dict``; raises ConfigError where the data is damaged."""
    space, problems = parse_space(Document("search space", dict(data)), source=source)
    if problems or space is None:
        raise FileErrors(problems)
    return space


def legal_of(name: str) -> Legal | None:
    """Legal values of a setting or of ``setting.group``; None where there is no such setting."""
    base, dot, group = name.partition(".")
    legal = LEGAL.get(base)
    if legal is None or dot and not (legal.per_group and group in GROUPS):
        return None
    return legal


def setting_names() -> list[str]:
    """Every legal name, ``setting`` and ``setting.group``."""
    grouped = [f"{name}.{group}" for name, legal in LEGAL.items() if legal.per_group for group in GROUPS]
    return [*LEGAL, *grouped]


def parse_space(document: Document, *, source: Path | None = None) -> tuple[SearchSpace | None, list[Problem]]:
    """Turn a document into a space; with problems, the space is None or lacks what is wrong."""
    reader = _Reader(document)
    for name in document.value:
        if name not in ("parameters", "start_points"):
            reader.report((name,), "unknown key", nearest(name, ["parameters", "start_points"]))
    entries = document.value.get("parameters")
    if not isinstance(entries, dict) or not entries:
        reader.report(("parameters",), "must hold at least one setting", "see search_spaces/README.md")
        return None, reader.problems
    for name, entry in entries.items():
        reader.read(name, entry)
    if not reader.parameters and not reader.problems:
        reader.report(("parameters",), "holds constants only", "give at least one setting a range")
    parameters = tuple(reader.parameters.values())
    space = SearchSpace(parameters=parameters, constants=reader.constants, source=source)
    points = reader.start_points(space, document.value.get("start_points"))
    return dataclasses.replace(space, start_points=points), reader.problems


class _Reader:
    """Reads the entries of a space in order and gathers what is wrong with them."""

    FIELDS = {
        "float": ("type", "low", "high", "step", "log", "when"),
        "int": ("type", "low", "high", "step", "log", "when"),
        "choice": ("type", "choices", "when"),
    }

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Value] = {}
        self.broken: set[str] = set()

    def report(self, key: Key, message: str, hint: str | None = None) -> None:
        self.problems.append(self.document.problem(key, message, hint))

    def read(self, name: str, entry: object) -> None:
        """Read one entry of ``parameters``: a range, choices, or a constant."""
        legal, before, key = legal_of(name), len(self.problems), ("parameters", name)
        if legal is None:
            self.report(key, "unknown setting", nearest(name, setting_names()))
        elif not isinstance(entry, dict):
            wrong = f"must have a value, not {quote(entry)}" if entry is None else legal.problem(entry)
            if isinstance(entry, list):
                wrong = "must be one value or a range"
                self.report(key, wrong, f"write {{type: choice, choices: {entry!r}}}"[:120])
            elif wrong:
                self.report(key, wrong)
            else:
                assert isinstance(entry, (bool, int, float, str))
                self.constants[name] = entry
        else:
            parameter = self._parameter(name, entry, legal)
            if parameter and len(self.problems) == before:
                self.parameters[name] = parameter
        if len(self.problems) > before:
            self.broken.add(name)

    def _parameter(self, name: str, entry: dict[str, Any], legal: Legal) -> Parameter | None:
        key = ("parameters", name)
        kind = entry.get("type")
        if not isinstance(kind, str) or kind not in self.FIELDS:
            found = f"must be float, int or choice, not {quote(kind)}" if "type" in entry else "is missing"
            hint = nearest(kind, self.FIELDS) if "type" in entry else "type: float, int or choice"
            self.report((*key, "type"), found, hint)
            return None
        for field in entry:
            if field not in self.FIELDS[kind]:
                self.report((*key, field), f"unknown key for type {kind}", nearest(field, self.FIELDS[kind]))
        when = self._when(key, entry.get("when", {}))
        if kind == "choice":
            choices = self._choices((*key, "choices"), entry.get("choices"), legal)
            return Parameter(name=name, kind="choice", choices=choices, when=when)
        return self._range(name, "int" if kind == "int" else "float", entry, legal, when)

    def _range(
        self, name: str, kind: Literal["int", "float"], entry: dict[str, Any], legal: Legal, when: Any
    ) -> Parameter | None:
        key, before = ("parameters", name), len(self.problems)
        if legal.choices is not None:
            words = ", ".join(map(word, legal.choices))
            self.report((*key, "type"), f"must be choice: legal values are {words}")
            return None
        if legal.integer and kind == "float":
            self.report((*key, "type"), "must be int: the setting takes whole numbers")
        for field in ("low", "high"):
            if field not in entry:
                self.report((*key, field), "is missing")
            elif wrong := (Legal(legal.low, legal.high, integer=kind == "int").problem(entry[field])):
                self.report((*key, field), wrong)
        log, step = entry.get("log", False), entry.get("step")
        if not isinstance(log, bool):
            self.report((*key, "log"), f"must be true or false, not {quote(log)}")
        if step is not None and (wrong := Legal(-math.inf, math.inf, integer=kind == "int").problem(step)):
            self.report((*key, "step"), wrong)
        if len(self.problems) > before:
            return None
        low, high = entry["low"], entry["high"]
        if low >= high:
            hint = "swap them" if low > high else "write the one value"
            self.report((*key, "low"), f"{low:g} is not below high, {high:g}", hint)
        if log and low <= 0:
            self.report((*key, "low"), "must be above 0 where log is true")
        if step is not None and (log or not 0 < step <= high - low):
            message = "cannot be combined with log" if log else f"must lie above 0 and within {high - low:g}"
            self.report((*key, "step"), message)
        cast = int if kind == "int" else float
        return Parameter(
            name=name, kind=kind, low=cast(low), high=cast(high), log=log, when=when,
            step=None if step is None else cast(step),
        )  # fmt: skip

    def _choices(self, key: Key, choices: object, legal: Legal) -> tuple[Value, ...]:
        if not isinstance(choices, list) or not choices:
            self.report(key, "must be a list of at least one value")
            return ()
        for index, choice in enumerate(choices):
            wrong = "must have a value" if choice is None else legal.problem(choice)
            if wrong:
                self.report((*key, index), wrong)
            elif choice in choices[:index]:
                self.report((*key, index), f"{word(choice)} is given twice")
        return tuple(choices)

    def _when(self, key: Key, when: object) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        if not isinstance(when, dict):
            self.report((*key, "when"), "must map a parameter above to its values", "as {schedule: proximal}")
            return ()
        conditions = []
        for name, wanted in when.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            parent = self.parameters.get(name)
            known = [n for n, p in self.parameters.items() if p.kind == "choice"]
            if parent is None or parent.kind != "choice":
                if name not in self.broken:
                    self.report((*key, "when", name), "is no parameter of type choice above this one",
                                nearest(name, known))  # fmt: skip
                continue
            for value in values:
                if wrong := parent.problem(value):
                    self.report((*key, "when", name), wrong)
            conditions.append((name, tuple(values)))
        return tuple(conditions)

    def start_points(self, space: SearchSpace, entries: object) -> tuple[Point, ...]:
        """Read and complete the start points; points are judged only where all parameters are sound."""
        if entries is None:
            return ()
        if not isinstance(entries, list):
            self.report(("start_points",), f"must be a list of points, not {quote(entries)}")
            return ()
        points: list[Point] = []
        keys: dict[str, int] = {}
        for index, entry in enumerate(entries):
            place = ("start_points", index)
            if not isinstance(entry, dict):
                self.report(place, f"must map settings to values, not {quote(entry)}")
                continue
            if self.broken:
                continue
            wrong = space.check_point(entry)
            for name, _, message in (line.partition(": ") for line in wrong):
                self.report((*place, name), message)
            if wrong:
                continue
            first = keys.setdefault(space.key(entry), index)
            if first != index:
                self.report(place, f"is the same point as start_points[{first}]", "remove one")
            points.append({**space.constants, **entry})
        return tuple(points)

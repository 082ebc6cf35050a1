"""Reads YAML files that people write, and remembers the line of every key.

Study and search-space files are plain data, so this reader accepts plain data only: one mapping, text keys,
no aliases, tags or duplicate keys, at most 256 KB. Scalars follow YAML 1.2 (``1e-4`` is a number, ``on`` is
a word). Nothing is built before the whole file is checked, and nothing in a file can run code.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gs_search.errors import ConfigError

__all__ = ["Document", "FileErrors", "Key", "Problem", "nearest", "quote", "read_yaml"]

Key = tuple[str | int, ...]
"""Way from the top of a document to a value: keys of mappings and positions in lists."""

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# 18 digits: no setting needs more, and Python refuses to print integers of thousands of digits.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Problem:
    """One mistake in a file; its text is ``file:line: key: what is wrong; what to do``."""

    file: str
    line: int
    key: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        return where + key + self.message + (f"; {self.hint}" if self.hint else "")


class FileErrors(ConfigError):
    """Everything that is wrong with one or more files; ``details`` holds the parts of each line."""

    def __init__(self, details: Iterable[Problem]) -> None:
        self.details = sorted(set(details), key=lambda p: (p.file, p.line, p.key, p.message))
        super().__init__([str(problem) for problem in self.details])


@dataclass(frozen=True)
class Document:
    """The content of a file, and the line on which each of its keys stands (empty where there is no file)."""

    file: str
    value: dict[str, Any]
    lines: Mapping[Key, int] = field(default_factory=dict)

    def problem(self, key: Key, message: str, hint: str | None = None) -> Problem:
        """Name a mistake at ``key``; a key that is not in the file stands at the line of its parent."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")
        return Problem(self.file, self.lines.get(known, 1 if self.lines else 0), name, message, hint)


def nearest(word: object, legal: Iterable[str]) -> str | None:
    """Hint at the legal word that is most like ``word``, or list the legal words when they are few."""
    words = list(legal)
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in words}
    match = difflib.get_close_matches(str(word)[:80].lower().replace("-", "_"), folded, n=1, cutoff=0.55)
    if match:
        return f"did you mean {folded[match[0]]}?"
    return f"legal here: {', '.join(words)}" if words and len(words) <= 20 else None


def quote(value: object) -> str:
    """Write a value the way a message can carry it: on one line, at most 60 characters."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_yaml(path: Path, *, what: str = "file") -> Document:
    """Read one file of plain YAML.

    Args:
        path: the file; it is named in messages as it is given here.
        what: the kind of file, for the message about a missing one (``study file``).

    Raises:
        FileErrors: it cannot be read, or is no plain YAML mapping; one line for each mistake found.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileErrors([Problem(file, 0, "", f"no such {what}")]) from None
    except IsADirectoryError:
        raise FileErrors([Problem(file, 0, "", f"is a folder, not a {what}")]) from None
    except OSError as error:
        raise FileErrors([Problem(file, 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > MAX_BYTES:
        raise FileErrors([Problem(file, 0, "", f"is larger than {MAX_BYTES // 1024} KB; is it a {what}?")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise FileErrors([Problem(file, line, "", f"is not UTF-8 text; is it a {what}?")]) from None
    builder = _Builder(file)
    try:
        value = builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise FileErrors([*builder.problems, _syntax_problem(file, text, error)]) from None
    except yaml.YAMLError as error:
        message = str(error).splitlines()[0]
        raise FileErrors([*builder.problems, Problem(file, 1, "", f"is not YAML: {message}")]) from None
    if not builder.problems and not isinstance(value, dict):
        found = "is empty" if value is None else "does not hold `key: value` lines"
        builder.problems.append(Problem(file, 1, "", found, f"a {what} is a YAML mapping"))
    if builder.problems:
        raise FileErrors(builder.problems)
    return Document(file, value, builder.lines)


def _syntax_problem(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    """Turn the parser's complaint into one line; a tab gets the advice that it needs."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    source = (text.splitlines()[line - 1 : line] or [""])[0]
    if "\t" in source[: len(source) - len(source.lstrip())] or "\\t" in str(error.problem):
        return Problem(file, line, "", "a tab is used for indentation", "use spaces")
    message = " ".join(filter(None, [error.context, error.problem]))
    hint = "check the indentation, quotes and colons near this line"
    return Problem(file, line, "", f"is not YAML: {message}", hint)


class _Builder:
    """Builds values from the parser's events, and gathers what plain data may not contain."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Key, int] = {}
        self.problems: list[Problem] = []

    def build(self, events: Iterable[yaml.Event]) -> Any:
        stream = iter(events)
        value: Any = None
        documents = 0
        for event in stream:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    self._refuse(event, (), "a second document starts here", "keep one in a file")
            elif isinstance(event, yaml.NodeEvent):
                built = self._node(event, stream, ())
                value = built if documents == 1 else value
        return value

    def _refuse(self, event: yaml.Event, key: Key, message: str, hint: str) -> None:
        document = Document(self.file, {}, {key: _line(event)})
        self.problems.append(document.problem(key, message, hint))

    def _node(self, event: yaml.Event, stream: Any, key: Key) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(event, key, f"alias *{event.anchor} is not allowed", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(event, key, f"tag {tag} is not allowed", "write a plain value")
        if len(key) > MAX_DEPTH:
            # Nothing legal is nested so deeply; reading on would only invite a stack overflow.
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(stream, key)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(stream, key)
        assert isinstance(event, yaml.ScalarEvent)
        if _CONTROL.search(event.value):
            # Such text can be neither printed nor be part of a path.
            return self._refuse(event, key, "holds a character that is no text", "remove it")
        return _scalar(event.value) if event.implicit[0] else event.value

    def _sequence(self, stream: Any, key: Key) -> list[Any]:
        values: list[Any] = []
        for event in stream:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            place = (*key, len(values))
            self.lines[place] = _line(event)
            values.append(self._node(event, stream, place))
        return values

    def _mapping(self, stream: Any, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in stream:
            if isinstance(event, yaml.MappingEndEvent):
                break
            name = event.value if isinstance(event, yaml.ScalarEvent) and event.value.isprintable() else None
            if name is None or name == "<<":
                self._refuse(event, key, "a key must be a word", "write it out")
                if not isinstance(event, yaml.ScalarEvent):
                    self._node(event, stream, (*key, "?"))
                name = f"?{len(values)}"
            place = (*key, name)
            if name in values:
                first = self.lines[place]
                self._refuse(event, place, f"is given twice (first on line {first})", "remove one")
            self.lines.setdefault(place, _line(event))
            values[name] = self._node(next(stream), stream, place)
        return values


def _line(event: yaml.Event) -> int:
    mark: Any = event.start_mark
    return int(mark.line) + 1


def _scalar(text: str) -> Any:
    """Read a plain scalar as YAML 1.2's core schema does (decimal numbers only)."""
    if _NULL.fullmatch(text):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit():
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text

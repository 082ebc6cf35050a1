"""The raw numbers of a benchmark: measured in several processes, one JSON line each, so that it can be stopped.

A *case* says what is measured (settings, seed), a *row* is the case with what was found. A benchmark that was
stopped continues with the cases that have no line yet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click

__all__ = ["Case", "Row", "Rows", "curve", "distinct", "grouped"]

Case = Mapping[str, Any]
"""What is measured: names to numbers, strings, booleans or None."""

Row = dict[str, Any]
"""A case, and what was found."""


class Rows:
    """The rows in ``folder/rows.jsonl``.

    Args:
        folder: is made if it is not there.
        setup: what all rows depend on and no case says; a folder made with another one is refused.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "rows.jsonl"
        stored = folder / "setup.json"
        text = json.dumps(setup, sort_keys=True)
        if stored.is_file() and stored.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"{folder} was made with other arguments (see {stored.name}); use another --out")
        stored.write_text(text, encoding="utf-8")

    def read(self) -> dict[str, Row]:
        """Rows by the key of their case. A line that was torn by a kill is dropped from the file."""
        if not self.path.is_file():
            return {}
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        entries = [json.loads(line) for line in whole.splitlines()]
        return {_key(entry["case"]): {**entry["case"], **entry["found"]} for entry in entries}

    def add(self, case: Case, found: Mapping[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"case": dict(case), "found": dict(found)}) + "\n")

    def of(self, cases: Sequence[Case]) -> list[Row]:
        """The rows of those cases that have one, in their order."""
        known = self.read()
        return [known[_key(case)] for case in cases if _key(case) in known]

    def measure(
        self, cases: Sequence[Case], function: Callable[[Case], Mapping[str, Any]], *, processes: int
    ) -> list[Row]:
        """Measure the cases that have no row yet, in their order, ``processes`` at a time.

        Args:
            cases: of which a repeated one is measured once.
            function: importable (it is sent to fresh processes); returns what was found.
            processes: each computes with one thread: two threads on busy cores are slower than one.

        Returns:
            all rows, in the order of ``cases``.
        """
        known = self.read()
        todo = [case for case in distinct(cases) if _key(case) not in known]
        if not todo:
            return self.of(cases)
        os.environ["OMP_NUM_THREADS"] = "1"  # read when a fresh process imports torch
        clock = time.monotonic()
        with ProcessPoolExecutor(min(processes, len(todo)), multiprocessing.get_context("spawn")) as pool:
            running: dict[Future[Mapping[str, Any]], Case] = {pool.submit(function, case): case for case in todo}
            try:
                for done, future in enumerate(as_completed(running), start=1):
                    self.add(running[future], future.result())
                    seconds = time.monotonic() - clock
                    left = seconds / done * (len(todo) - done)
                    click.echo(f"{done}/{len(todo)}  {seconds:.0f} s, about {left:.0f} s left", err=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return self.of(cases)


def distinct(cases: Sequence[Case]) -> list[Case]:
    """The cases without repetitions, each where it came first."""
    return list({_key(case): case for case in cases}.values())


def grouped(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of ``names``, in the order in which these appear; rows that failed are left out."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if "failed" not in row:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def curve(rows: Sequence[Row], x: str, y: str) -> dict[float, list[float]]:
    """Value of ``x`` to the values of ``y``, one a seed."""
    return {key[0]: [row[y] for row in group] for key, group in grouped(rows, x).items()}


def _key(case: Case) -> str:
    return json.dumps(dict(case), sort_keys=True)

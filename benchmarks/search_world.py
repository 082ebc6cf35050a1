"""The world in which searches are simulated: what a trial tells and costs, at any point of the space of a table.

A table has trained points. Each of its columns (distance to the teacher at every rung, FID, multiply-adds, bytes,
processor seconds of every stretch) is learned by a Gaussian process, which is then the noise-free truth. On top of
it a trial gets what two seeds of one table point differ by, in all columns at once, so that a rung knows of the end
what it really knows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_process import Process
from gs_search.results.pareto import OBJECTIVES, reference_point
from gs_search.results.record import Baselines
from gs_search.search.encoding import Coordinates
from gs_search.search.study_database import derived_seed
from gs_search.study.space import Parameter, SearchSpace

__all__ = ["END", "Outcome", "Table", "World"]

Array = NDArray[np.float64]

NEIGHBOURS = 16
"""Noise is that of one of so many table points of nearest FID: a poor student's FID repeats less well."""

END = -1
"""Step that stands for the end of a trial."""


@dataclass(frozen=True)
class Outcome:
    """What a trial tells at its rungs, and its end."""

    rungs: tuple[dict[str, float], ...]
    """``step``, ``psnr_to_teacher``, ``gflops``, ``size_mb``, ``seconds`` so far: as a trial reports them."""
    objectives: dict[str, float]
    psnr_to_teacher: float
    seconds: float


@dataclass(frozen=True)
class Table:
    """Trained points: n points x s seeds x columns, NaN where a row failed or is missing."""

    space: SearchSpace
    points: tuple[dict[str, Any], ...]
    steps: tuple[int, ...]
    """Rungs."""
    columns: tuple[tuple[int, str], ...]
    """Step (or END) and quantity."""
    values: Array
    """All but decibels as logarithms."""
    reference: tuple[float, float, float]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], space: SearchSpace, baselines: Mapping[str, Any]) -> Table:
        """Take the rows of ``search_table`` together; points of which every seed failed are left out."""
        whole = [row for row in rows if "failed" not in row]
        steps = tuple(int(rung["step"]) for rung in whole[0]["rungs"])
        numbers = sorted({row["point"] for row in whole})
        seeds = sorted({row["seed"] for row in whole})
        columns = [(step, name) for step in (*steps, END) for name in ("psnr_to_teacher", "gflops", "size_mb")]
        columns += [(END, "fid"), *((step, "seconds") for step in (*steps, END))]
        values = np.full((len(numbers), len(seeds), len(columns)), np.nan)
        points: dict[int, dict[str, Any]] = {}
        for row in whole:
            points[row["point"]] = dict(row["parameters"])
            values[numbers.index(row["point"]), seeds.index(row["seed"])] = [_cell(row, *column) for column in columns]
        return cls(
            space=_space_of(space, list(points.values())),
            points=tuple(points[number] for number in numbers),
            steps=steps,
            columns=tuple(columns),
            values=values,
            reference=reference_point(Baselines.from_json({"noise": {}, **baselines, "protocol": {"id": "table"}})),
        )

    def of_points(self) -> SearchSpace:
        """The space with those of its start points that the table has."""
        known = {self.space.key(point) for point in self.points}
        starts = tuple(point for point in self.space.start_points if self.space.key(point) in known)
        return dataclasses.replace(self.space, start_points=starts)

    def digest(self) -> str:
        """Names the table: results of another one are not comparable."""
        text = json.dumps([self.points, self.values.tolist(), self.reference], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def inputs(self, points: Sequence[Mapping[str, Any]]) -> Array:
        """Points as n x d numbers in 0..1."""
        coordinates = Coordinates(self.space)
        return coordinates.inputs(np.array([coordinates.shares(point) for point in points]))

    def outcome(self, cells: Array) -> Outcome:
        """What a trial with these columns tells."""
        told = dict(zip(self.columns, cells.tolist(), strict=True))
        clock, rungs = 0.0, []
        for step in self.steps:
            clock += math.exp(told[step, "seconds"])
            costs = {name: math.exp(told[step, name]) for name in ("gflops", "size_mb")}
            rungs.append({"step": step, "psnr_to_teacher": told[step, "psnr_to_teacher"], **costs, "seconds": clock})
        return Outcome(
            rungs=tuple(rungs),
            objectives={name: math.exp(told[END, name]) for name in OBJECTIVES},
            psnr_to_teacher=told[END, "psnr_to_teacher"],
            seconds=clock + math.exp(told[END, "seconds"]),
        )

    def column(self, step: int, name: str) -> int:
        return self.columns.index((step, name))


class World:
    """What would be measured at any point.

    Args:
        rugged: add, at every point, what the processes got wrong about one of the table's points when they were
            fitted without it: a truth with as much in it that cannot be foreseen as there can be at most.
    """

    def __init__(self, table: Table, *, rugged: bool = False) -> None:
        self.table, self.rugged = table, rugged
        self.means = np.nanmean(table.values, axis=1)
        self._inputs = table.inputs(table.points)
        self._fid = table.column(END, "fid")
        self.noise = self._noise()
        self._least = np.sqrt((self.noise**2).mean(axis=0) / table.values.shape[1])
        # Multiply-adds and bytes are the same at all rungs where the student is cut before the first step.
        self._of: list[int] = []
        self.processes: dict[int, Process] = {}
        for k in range(len(table.columns)):
            same = [j for j in self.processes if np.allclose(self.means[:, j], self.means[:, k], rtol=0, atol=1e-7)]
            self._of.append(same[0] if same else k)
            if not same:
                self.processes[k] = Process(self._inputs, self.means[:, k], least_noise=self._least[k])
        self.errors = np.stack([self.means[:, k] - self.processes[j].left_out() for k, j in enumerate(self._of)], 1)

    def true(self, point: Mapping[str, Any]) -> dict[str, float]:
        """Objectives without noise."""
        return self.table.outcome(self._expected(point)).objectives

    def outcome(self, point: Mapping[str, Any], seed: int) -> Outcome:
        """What a trial of ``seed`` tells."""
        expected = self._expected(point)
        noise = self._drawn(self.noise, self._noise_fid, expected[self._fid], "noise", seed)
        return self.table.outcome(expected + noise)

    def _expected(self, point: Mapping[str, Any]) -> Array:
        x = self.table.inputs([point])
        single = {k: float(process(x)[0]) for k, process in self.processes.items()}
        expected = np.array([single[j] for j in self._of])
        if self.rugged:
            key = self.table.space.key(point)
            expected = expected + self._drawn(self.errors, self.means[:, self._fid], expected[self._fid], "rugged", key)
        return expected

    def _noise(self) -> Array:
        """m x columns: what one seed is off the mean of many, for every pair of seeds of a point."""
        known = self.table.values[~np.isnan(self.table.values[..., 0]).any(axis=1)]
        self._noise_fid = known[..., self._fid].mean(axis=1)
        # The difference of two seeds has twice the variance of one.
        return np.asarray((known[:, 0] - known[:, 1]) / math.sqrt(2.0))

    def _drawn(self, vectors: Array, at: Array, fid: float, *seed: object) -> Array:
        """One of the vectors from where ``at`` is near ``fid``, with either sign."""
        which = derived_seed(*seed)
        near = np.argsort(np.abs(at - fid), kind="stable")[:NEIGHBOURS]
        return np.asarray(vectors[near[which // 2 % len(near)]] * (1.0 if which % 2 else -1.0))

    def foretold(self, folds: int) -> dict[int, tuple[Array, Array]]:
        """Column to the means of the table's points and what processes foretell that were fitted without them.

        A fold is left out whole, both seeds; its processes are fitted anew, lengths and all.
        """
        fold = np.arange(len(self._inputs)) % folds
        found = {}
        for k in self.processes:
            guess = np.empty(len(fold))
            for out in range(folds):
                kept = fold != out
                process = Process(self._inputs[kept], self.means[kept, k], least_noise=self._least[k])
                guess[~kept] = process(self._inputs[~kept])
            found[k] = (self.means[:, k], guess)
        return found


def _cell(row: Mapping[str, Any], step: int, name: str) -> float:
    """One quantity of a row: decibels, or the logarithm of what is positive. Seconds: since the rung before."""
    rungs = {int(rung["step"]): rung for rung in row["rungs"]}
    if name == "seconds":
        marks = [0.0, *(rung["seconds"] for rung in row["rungs"]), row["seconds"]]
        place = len(marks) - 1 if step == END else 1 + list(rungs).index(step)
        return math.log(marks[place] - marks[place - 1])
    told = rungs[step] if step != END else {**row["objectives"], "psnr_to_teacher": row["psnr_to_teacher"]}
    return float(told[name]) if name == "psnr_to_teacher" else math.log(told[name])


def _space_of(space: SearchSpace, points: Sequence[Mapping[str, Any]]) -> SearchSpace:
    """The space without parameters that the points do not have; with those that only the points have, as floats."""
    known = [parameter for parameter in space.parameters if any(parameter.name in point for point in points)]
    names = [name for name in points[0] if name not in {p.name for p in space.parameters} | set(space.constants)]
    for name in names:
        low, high = (float(choose(point[name] for point in points)) for choose in (min, max))
        log = low > 0 and high > 10 * low
        known.append(Parameter(name=name, kind="float", low=low, high=high, log=log))
    starts = tuple(point for point in space.start_points) if not names else ()
    return SearchSpace(parameters=tuple(known), constants=space.constants, start_points=starts)

"""What a plot of the front has besides its students: staircase, ties, noise, limits, and trials without a FID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gs_search.report.content import Content
from gs_search.report.marks import NOISE_WIDTH, SILENT, TOLD, Cost, Figure, costs_of, told
from gs_search.report.theme import Theme
from gs_search.report.trials import Student
from gs_search.results.pareto import front_indices

__all__ = ["endings", "limits", "noise_band", "repeats", "staircase", "ties"]

LIMITS = {"gflops": "max_gflops", "size_mb": "max_mb", "fid": "max_fid"}
ENDINGS = {
    "stopped": ("stopped early", "line-ns-open"),
    "failed": ("failed", "x-thin-open"),
    "refused": ("never started", "triangle-down-open"),
}
"""Kind of an ending to its name and its symbol."""


def _corners(content: Content, cost: Cost) -> list[Student]:
    """The students at the staircase's corners, from the cheapest to the dearest."""
    pairs = np.array([[getattr(student, cost), student.fid] for student in content.front])
    return sorted((content.front[index] for index in front_indices(pairs)), key=lambda s: float(getattr(s, cost)))


def staircase(content: Content, cost: Cost, end: float, theme: Theme) -> Figure:
    """The edge of what is reached in this pair of objectives: the best FID at most at this cost."""
    corners = [(getattr(student, cost), student.fid) for student in _corners(content, cost)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*(corner[0] for corner in corners), end],
        "y": [*(corner[1] for corner in corners), corners[-1][1]],
        "line": {"shape": "hv", "color": theme.front, "width": 1.5},
        "opacity": 0.55,
        "showlegend": False,
        **SILENT,
    }


def ties(content: Content, cost: Cost, theme: Theme) -> list[Figure]:
    """Bars between neighbours on the staircase whose FIDs chance may tell apart."""
    corners = _corners(content, cost)
    tied = [(a, b) for a, b in zip(corners, corners[1:], strict=False) if b.number in a.ties]
    if not tied:
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    for a, b in tied:
        x += [getattr(a, cost), getattr(b, cost), None]
        y += [a.fid, b.fid, None]
    return [
        {
            "type": "scatter",
            "name": "tied within the noise",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": theme.front, "width": 20},
            "opacity": 0.2,
            **SILENT,
        }
    ]


def repeats(content: Content, cost: Cost, theme: Theme) -> list[Figure]:
    """FIDs of other seeds: the mean as a dash, its interval as a line. The first run was chosen, and may lie below."""
    again = [(student, student.again) for student in content.front if student.again]
    if not again:
        return []
    places = [getattr(student, cost) for student, _ in again]
    x: list[float | None] = []
    y: list[float | None] = []
    for place, (_, other) in zip(places, again, strict=True):
        if other.low is not None and other.high is not None:
            x += [place, place, None]
            y += [other.low, other.high, None]
    line = {"color": theme.front, "width": 2}
    mark = {"symbol": "line-ew-open", "size": 14, "color": theme.front, "line": {"width": 2, "color": theme.front}}
    return [
        {"type": "scatter", "name": "interval of other seeds", "mode": "lines", "x": x, "y": y, "line": line}
        | {"showlegend": False}
        | SILENT,
        {"type": "scatter", "name": "other seeds", "mode": "markers", "x": places, "marker": mark}
        | {"y": [other.mean for _, other in again]}
        | SILENT,
    ]


def noise_band(content: Content, ends: Sequence[float], theme: Theme) -> Figure:
    half = NOISE_WIDTH * content.baselines.noise
    bottom, top = content.baselines.fid - half, content.baselines.fid + half
    return {
        "type": "scatter",
        "name": f"teacher ± {half:.3g}: noise of FID",
        "mode": "lines",
        "x": [ends[0], ends[1], ends[1], ends[0]],
        "y": [bottom, bottom, top, top],
        "fill": "toself",
        "opacity": 0.22,
        "fillcolor": theme.teacher,
        "line": {"width": 0},
        **SILENT,
    }


def limits(content: Content, theme: Theme, ends: Mapping[str, Sequence[float]], *, x: str, y: str) -> list[Figure]:
    """The study's constraints as lines, where they lie inside of the plot."""
    lines = []
    for way, name in ((x, LIMITS[x]), (y, LIMITS[y])):
        limit = content.limits.get(name)
        if limit is None or not ends[way][0] < limit < ends[way][1]:
            continue
        across = {"x": [limit] * 2, "y": ends[y]} if way == x else {"x": ends[x], "y": [limit] * 2}
        dash = {"color": theme.second, "width": 1.5, "dash": "dashdot"}
        named = {"type": "scatter", "name": f"{name} {limit:.4g}", "mode": "lines", "line": dash}
        lines.append(named | across | SILENT)
    return lines


def endings(content: Content, cost: Cost, theme: Theme, ends: Sequence[float], height: float) -> list[Figure]:
    """Trials without a FID, at the lower edge: what stopped ones cost, what failed ones asked for."""
    traces = []
    for kind, (name, symbol) in ENDINGS.items():
        known = [(e, costs_of(e, content)) for e in content.endings if e.kind == kind]
        marks = [(costs[cost], told(e)) for e, costs in known if ends[0] <= costs.get(cost, -1) <= ends[1]]
        if marks:
            colour = theme.second if kind == "failed" else theme.faint
            traces.append(
                {
                    "type": "scatter",
                    "name": name,
                    "mode": "markers",
                    "x": [place for place, _ in marks],
                    "y": [height] * len(marks),
                    "marker": {"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.5, "color": colour}},
                    "customdata": [words["customdata"] for _, words in marks],
                    "text": [words["text"] for _, words in marks],
                    **TOLD,
                }
            )
    return traces

"""Figures of the front: FID against each cost, the two costs against each other, and all three together.

Plain dictionaries, the JSON that plotly.js draws; ``plotly.graph_objects.Figure`` takes them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gs_search.report.content import Content
from gs_search.report.front_lines import endings, limits, noise_band, repeats, staircase, ties
from gs_search.report.labels import place_labels
from gs_search.report.marks import (
    NOISE_WIDTH,
    SILENT,
    TOLD,
    Cost,
    Figure,
    costs_of,
    identity,
    input_mark,
    marker,
    off_scale,
    spread,
    teacher_mark,
    told,
)
from gs_search.report.theme import LIGHT, Theme, axis, layout, log_axis, log_range
from gs_search.report.trials import Student

__all__ = ["cost_pair", "front_pair", "front_space"]

SIZE = "size, MB (10⁶ bytes, packed)"
FID_COLOURS = "Cividis"
"""Rises in lightness, and looks the same to colour-blind readers."""


def front_pair(content: Content, cost: Cost, theme: Theme = LIGHT) -> Figure:
    """FID against one cost: front with its staircase and ties, other students, teacher, input, noise of FID.

    Members of the front above the staircase are there for the objective that this plot does not show.
    Students far above both baselines are drawn at the upper edge, so that one wreck does not flatten the
    rest; trials without a student stand at the lower edge, at what they cost or asked for. Hovering tells more.
    """
    base = content.baselines
    low, high = log_range([getattr(student, cost) for student in content.students] + [getattr(base, cost)])
    bottom, top = _fid_range(content)
    ends = [10**low, 10**high]

    def points(students: Sequence[Student], name: str, labels: Sequence[str] | None = None, **more: Any) -> Figure:
        x, y = [getattr(student, cost) for student in students], [student.fid for student in students]
        own = {"type": "scatter", "name": name, "mode": "markers", "x": x, "y": y}
        return own | identity(students, content, labels) | more

    places = [
        ((_log(getattr(student, cost), low) - low) / (high - low), (student.fid - bottom) / (top - bottom))
        for student in content.front
    ]
    labels, sides = _labels(content, places)
    others = spread(content)
    traces = [
        *([noise_band(content, ends, theme)] if base.noise else []),
        *limits(content, theme, {cost: ends, "fid": [bottom, top]}, x=cost, y="fid"),
        *(
            points([s for s in students if s.fid <= top], kind, marker=marker(kind, theme, 7))
            for kind, students in others.items()
        ),
        *ties(content, cost, theme),
        staircase(content, cost, ends[1], theme),
        *repeats(content, cost, theme),
        points([content.knee], "knee", marker=_ring(theme)) | SILENT,
        points(content.front, "front", labels, mode="markers+text", marker={"color": theme.front, "size": 11})
        | {"texttemplate": "%{customdata[1]}", "textposition": sides, "textfont": {"size": 11}},
        teacher_mark(content, theme, {"x": [getattr(base, cost)], "y": [base.fid]}, size=13),
        input_mark(content, theme, {"x": ends, "y": [base.input_fid] * 2}, {"dash": "dash", "width": 2}),
    ]
    for kind, students in others.items():
        if above := [student for student in students if student.fid > top]:
            edge = {"y": [bottom + 0.985 * (top - bottom)] * len(above)}
            mark = marker(kind, theme, 9) | {"symbol": "triangle-up"}
            traces.append(points(above, off_scale(kind), marker=mark) | edge)
    traces += endings(content, cost, theme, ends, bottom + 0.02 * (top - bottom))
    title = f"GFLOPs a picture at {content.image_px} px (10⁹ multiply-adds)" if cost == "gflops" else SIZE
    fit = {"automargin": True}
    axes = {
        "xaxis": log_axis(theme, title, low, high) | fit,
        "yaxis": axis(theme, "FID (lower is better)") | {"range": [bottom, top]} | fit,
    }
    return {"data": traces, "layout": layout(theme) | axes}


def cost_pair(content: Content, theme: Theme = LIGHT) -> Figure:
    """GFLOPs against MB, FID as colour: which students are cheap in both, and what that costs in FID."""
    base = content.baselines
    partial = [(ending, costs_of(ending, content)) for ending in content.endings if ending.partial]
    flops = log_range([s.gflops for s in content.students] + [c["gflops"] for _, c in partial] + [base.gflops])
    sizes = log_range([s.size_mb for s in content.students] + [c["size_mb"] for _, c in partial] + [base.size_mb])
    bottom, top = _fid_range(content)

    def points(students: Sequence[Student], name: str, labels: Sequence[str] | None = None, **more: Any) -> Figure:
        x, y = [student.gflops for student in students], [student.size_mb for student in students]
        own = {"type": "scatter", "name": name, "mode": "markers", "x": x, "y": y}
        return own | identity(students, content, labels) | more

    places = [
        (
            (_log(student.gflops, flops[0]) - flops[0]) / (flops[1] - flops[0]),
            (_log(student.size_mb, sizes[0]) - sizes[0]) / (sizes[1] - sizes[0]),
        )
        for student in content.front
    ]
    labels, sides = _labels(content, places)
    colours = {
        "color": [student.fid for student in content.front],
        "colorscale": FID_COLOURS,
        "cmin": bottom,
        "cmax": min(top, max(student.fid for student in content.front)),
        "size": 13,
        "line": {"color": theme.text, "width": 1},
        "colorbar": {
            "title": {"text": "FID of the front", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "ticks": "outside",
            "ticklen": 3,
        },
    }
    stopped = [told(ending) for ending, _ in partial]
    ends = {"gflops": [10**end for end in flops], "size_mb": [10**end for end in sizes]}
    traces = [
        *limits(content, theme, ends, x="gflops", y="size_mb"),
        *(points(students, kind, marker=marker(kind, theme, 7)) for kind, students in spread(content).items()),
        points([content.knee], "knee", marker=_ring(theme) | {"size": 22}) | SILENT,
        points(content.front, "front", labels, mode="markers+text", marker=colours)
        | {"texttemplate": "%{customdata[1]}", "textposition": sides, "textfont": {"size": 11}},
        teacher_mark(content, theme, {"x": [base.gflops], "y": [base.size_mb]}, size=13),
    ]
    if partial:
        traces.append(
            {
                "type": "scatter",
                "name": "stopped early",
                "mode": "markers",
                "x": [costs["gflops"] for _, costs in partial],
                "y": [costs["size_mb"] for _, costs in partial],
                "marker": {"symbol": "x-thin-open", "size": 8, "color": theme.faint, "line": {"width": 1.5}},
                "customdata": [entry["customdata"] for entry in stopped],
                "text": [entry["text"] for entry in stopped],
                **TOLD,
            }
        )
    axes = {
        "xaxis": log_axis(theme, f"GFLOPs a picture at {content.image_px} px", *flops) | {"automargin": True},
        "yaxis": log_axis(theme, SIZE, *sizes) | {"automargin": True},
    }
    return {"data": traces, "layout": layout(theme) | axes}


def front_space(content: Content, theme: Theme = LIGHT) -> Figure:
    """All three objectives: front with drop lines, other students, teacher with noise, input as frame."""
    base = content.baselines
    bottom, top = _fid_range(content)
    flops = log_range([student.gflops for student in content.students] + [base.gflops])
    sizes = log_range([student.size_mb for student in content.students] + [base.size_mb])

    def points(students: Sequence[Student], name: str, labels: Sequence[str] | None = None, **more: Any) -> Figure:
        places = {
            "x": [student.gflops for student in students],
            "y": [student.size_mb for student in students],
            "z": [student.fid for student in students],
        }
        own = {"type": "scatter3d", "name": name, "mode": "markers"} | places
        return own | identity(students, content, labels) | more

    drops: dict[str, list[float | None]] = {"x": [], "y": [], "z": []}
    for student in content.front:
        drops["x"] += [student.gflops, student.gflops, None]
        drops["y"] += [student.size_mb, student.size_mb, None]
        drops["z"] += [student.fid, bottom, None]
    # A little inside the box, because Plotly cuts off what lies on its walls.
    left, right = 10 ** (flops[0] + 0.01), 10 ** (flops[1] - 0.01)
    near, far = 10 ** (sizes[0] + 0.01), 10 ** (sizes[1] - 0.01)
    frame = {
        "x": [left, right, right, left, left],
        "y": [near, near, far, far, near],
        "z": [base.input_fid] * 5,
    }
    noise = {
        "type": "data",
        "array": [NOISE_WIDTH * base.noise],
        "color": theme.teacher,
        "thickness": 4,
        "width": 4,
    }
    crowded = len(content.front) > MOST_LABELS
    labels = [str(s.number) if not crowded or s.is_knee else "" for s in content.front]
    traces = [
        {
            "type": "scatter3d",
            "mode": "lines",
            **drops,
            "line": {"color": theme.front, "width": 2},
            "opacity": 0.45,
            "showlegend": False,
            **SILENT,
        },
        *(
            points([s for s in students if s.fid <= top], kind, marker=_solid(marker(kind, theme, 4), theme))
            for kind, students in spread(content).items()
        ),
        points(content.front, "front", labels, mode="markers+text", marker={"color": theme.front, "size": 6})
        | {
            "texttemplate": "%{customdata[1]}",
            "textposition": "top center",
            "textfont": {"color": theme.text, "size": 11},
        },
        teacher_mark(content, theme, {"x": [base.gflops], "y": [base.size_mb], "z": [base.fid]}, size=7)
        | ({"error_z": noise} if base.noise else {}),
        input_mark(content, theme, frame, {"width": 4}),
    ]
    walls = {"showbackground": False, "showspikes": False}
    scene = {
        "xaxis": log_axis(theme, "GFLOPs", *flops) | walls,
        "yaxis": log_axis(theme, "size, MB", *sizes) | walls,
        "zaxis": axis(theme, "FID") | walls | {"range": [bottom, top]},
        "camera": {"eye": {"x": 1.4, "y": -1.56, "z": 0.7}, "center": {"x": 0, "y": 0, "z": -0.2}},
        "aspectmode": "cube",
    }
    return {
        "data": traces,
        "layout": layout(theme) | {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}},
    }


MOST_LABELS = 40
"""Numbers that can be told apart in the turning view."""


def _labels(content: Content, places: Sequence[tuple[float, float]]) -> tuple[list[str], list[str]]:
    """Number and side of each member's label; no number where it would lie on others, the knee's excepted."""
    found = place_labels(places, [str(student.number) for student in content.front])
    shown = [side is not None or student.is_knee for side, student in zip(found, content.front, strict=True)]
    labels = [str(s.number) if show else "" for s, show in zip(content.front, shown, strict=True)]
    return labels, [side or "top center" for side in found]


def _log(value: float, otherwise: float) -> float:
    return math.log10(value) if value > 0 else otherwise


def _ring(theme: Theme) -> Figure:
    return {"color": theme.knee, "size": 20, "symbol": "circle-open", "line": {"width": 3}}


def _solid(mark: Figure, theme: Theme) -> Figure:
    """Three-dimensional plots have no dotted circles, and show little of what is transparent."""
    colour = theme.soft if mark["color"] == theme.faint else mark["color"]
    return mark | {"symbol": mark["symbol"].removesuffix("-dot"), "color": colour}


def _fid_range(content: Content) -> tuple[float, float]:
    """Room for the front, both baselines and the noise, with 8 % to spare."""
    base, half = content.baselines, NOISE_WIDTH * content.baselines.noise
    shown = [student.fid for student in content.front] + [base.fid - half, base.fid + half, base.input_fid]
    again = [student.again for student in content.front if student.again]
    shown += [end for other in again for end in (other.low, other.mean, other.high) if end is not None]
    spare = 0.08 * (max(shown) - min(shown)) or 1.0
    return min(shown) - spare, max(shown) + spare

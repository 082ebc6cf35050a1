"""Plotly figures of a front, as plain dictionaries: the JSON that plotly.js draws.

A figure is built for one theme, so that a page can hold both and switch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from gs_search.front import front_indices
from gs_search.report.content import Content, Student
from gs_search.report.labels import place_labels
from gs_search.report.theme import Theme, axis, layout, log_axis, log_range

__all__ = ["front_pair", "front_space"]

Cost = Literal["gflops", "size_mb"]
Figure = dict[str, Any]

NOISE_WIDTH = 2  # standard deviations shown to either side of the teacher's FID
TOLD = {"hovertemplate": "%{text}<extra></extra>"}
SILENT = {"hoverinfo": "skip"}


def front_pair(content: Content, cost: Cost, theme: Theme) -> Figure:
    """FID against one cost: front with its staircase, dominated students, teacher, input, noise of FID.

    Members of the front above the staircase are there for the objective that this plot does not show.
    Dominated students far above both baselines are drawn at the upper edge, so that one wreck does not
    flatten the rest; hovering tells their FID.
    """
    base = content.baselines
    low, high = log_range([getattr(student, cost) for student in content.students] + [getattr(base, cost)])
    bottom, top = _fid_range(content)
    ends = [10**low, 10**high]

    def points(students: Sequence[Student], name: str, **more: Any) -> Figure:
        x, y = [getattr(student, cost) for student in students], [student.fid for student in students]
        return {
            "type": "scatter",
            "name": name,
            "mode": "markers",
            "x": x,
            "y": y,
            **_identity(students, content),
        } | more

    knees = [student for student in content.front if student.is_knee]
    dominated = [student for student in content.students if not student.on_front]
    inside = [student for student in dominated if student.fid <= top]
    above = [student for student in dominated if student.fid > top]
    sides = place_labels(
        [
            (
                (math.log10(getattr(student, cost)) - low) / (high - low),
                (student.fid - bottom) / (top - bottom),
            )
            for student in content.front
        ],
        [str(student.number) for student in content.front],
    )
    traces = [
        *([_noise_band(content, ends, theme)] if base.noise else []),
        points(inside, "dominated", marker={"color": theme.faint, "size": 7, "symbol": "circle-open"}),
        _staircase(content, cost, ends[1], theme),
        points(
            knees,
            "knee",
            marker={"color": theme.knee, "size": 20, "symbol": "circle-open", "line": {"width": 3}},
        )
        | SILENT,
        points(content.front, "front", mode="markers+text", marker={"color": theme.front, "size": 11})
        | {"texttemplate": "%{customdata[0]}", "textposition": sides, "textfont": {"size": 11}},
        _teacher(content, theme, {"x": [getattr(base, cost)], "y": [base.fid]}, size=13),
        _input(content, theme, {"x": ends, "y": [base.input_fid] * 2}, {"dash": "dash", "width": 2}),
    ]
    if above:
        edge = {"y": [bottom + 0.985 * (top - bottom)] * len(above)}
        marker = {"color": theme.faint, "size": 9, "symbol": "triangle-up"}
        traces.append(points(above, "dominated, off the scale", marker=marker) | edge)
    title = f"GFLOPs a picture at {content.image_px} px (10⁹ multiply-adds)"
    fit = {"automargin": True}
    axes = {
        "xaxis": log_axis(theme, title if cost == "gflops" else "size, MB (10⁶ bytes, packed)", low, high) | fit,
        "yaxis": axis(theme, "FID (lower is better)") | {"range": [bottom, top]} | fit,
    }
    return {"data": traces, "layout": layout(theme) | axes}


def front_space(content: Content, theme: Theme) -> Figure:
    """All three objectives: front with drop lines, dominated students, teacher with noise, input as frame."""
    base = content.baselines
    bottom, top = _fid_range(content)
    flops = log_range([student.gflops for student in content.students] + [base.gflops])
    sizes = log_range([student.size_mb for student in content.students] + [base.size_mb])

    def points(students: Sequence[Student], name: str, **more: Any) -> Figure:
        places = {
            "x": [student.gflops for student in students],
            "y": [student.size_mb for student in students],
            "z": [student.fid for student in students],
        }
        return {
            "type": "scatter3d",
            "name": name,
            "mode": "markers",
            **places,
            **_identity(students, content),
        } | more

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
    dominated = [student for student in content.students if not student.on_front and student.fid <= top]
    noise = {
        "type": "data",
        "array": [NOISE_WIDTH * base.noise],
        "color": theme.teacher,
        "thickness": 4,
        "width": 4,
    }
    traces = [
        points(dominated, "dominated", marker={"color": theme.faint, "size": 4, "symbol": "circle-open"}),
        {
            "type": "scatter3d",
            "mode": "lines",
            **drops,
            "line": {"color": theme.front, "width": 2},
            "opacity": 0.45,
        }
        | {"showlegend": False}
        | SILENT,
        points(content.front, "front", mode="markers+text", marker={"color": theme.front, "size": 6})
        | {
            "texttemplate": "%{customdata[0]}",
            "textposition": "top center",
            "textfont": {"color": theme.text, "size": 11},
        },
        _teacher(content, theme, {"x": [base.gflops], "y": [base.size_mb], "z": [base.fid]}, size=7)
        | ({"error_z": noise} if base.noise else {}),
        _input(content, theme, frame, {"width": 4}),
    ]
    walls = {"showbackground": False, "showspikes": False}
    scene = {
        "xaxis": log_axis(theme, "GFLOPs", *flops) | walls,
        "yaxis": log_axis(theme, "size, MB", *sizes) | walls,
        "zaxis": axis(theme, "FID") | walls | {"range": [bottom, top]},
        "camera": {"eye": {"x": 1.3, "y": -1.45, "z": 0.7}, "center": {"x": 0, "y": 0, "z": -0.1}},
        "aspectmode": "cube",
    }
    return {
        "data": traces,
        "layout": layout(theme) | {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}},
    }


def _identity(students: Sequence[Student], content: Content) -> Figure:
    """What every point of a student carries: its number, for the page, and what hovering tells."""
    return {
        "customdata": [[student.number] for student in students],
        "text": [_describe(student, content) for student in students],
        **TOLD,
    }


def _staircase(content: Content, cost: Cost, end: float, theme: Theme) -> Figure:
    """The edge of what is reached in this pair of objectives: the best FID at most at this cost."""
    pairs = np.array([[getattr(student, cost), student.fid] for student in content.front])
    corners = sorted(pairs[front_indices(pairs)].tolist())
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


def _noise_band(content: Content, ends: Sequence[float], theme: Theme) -> Figure:
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


def _teacher(content: Content, theme: Theme, place: Figure, *, size: float) -> Figure:
    base = content.baselines
    noise = f" ± {base.noise:.1f} (1 standard deviation)" if base.noise else ""
    text = f"<b>teacher</b><br>FID {base.fid:.1f}{noise}<br>{base.gflops:.3g} GFLOPs<br>{base.size_mb:.3g} MB"
    return {
        "type": "scatter3d" if "z" in place else "scatter",
        "name": "teacher",
        "mode": "markers",
        "marker": {"symbol": "diamond", "size": size, "color": theme.teacher},
        "text": [text],
        **place,
        **TOLD,
    }


def _input(content: Content, theme: Theme, place: Figure, line: Figure) -> Figure:
    base = content.baselines
    psnr = f"<br>{base.input_psnr:.1f} dB to the teacher's pictures" if base.input_psnr is not None else ""
    return {
        "type": "scatter3d" if "z" in place else "scatter",
        "name": "untranslated input",
        "mode": "lines",
        "line": {"color": theme.input, **line},
        "text": [f"<b>untranslated input</b><br>FID {base.input_fid:.1f}{psnr}"] * len(place["x"]),
        **place,
        **TOLD,
    }


def _describe(student: Student, content: Content) -> str:
    base = content.baselines
    lines = [
        f"<b>trial {student.number}</b>" + (" (knee)" if student.is_knee else ""),
        f"FID {student.fid:.1f} ({student.fid - base.fid:+.1f} to the teacher)",
        f"{student.gflops:.3g} GFLOPs ({base.gflops / student.gflops:.1f}× fewer)",
        f"{student.size_mb:.3g} MB ({base.size_mb / student.size_mb:.1f}× smaller)",
    ]
    optional: list[tuple[float | None, Callable[[float], str]]] = [
        (student.kid, lambda kid: f"KID {1000 * kid:.1f} ×10⁻³"),
        (student.psnr, lambda psnr: f"{psnr:.1f} dB to the teacher's pictures"),
        (student.latency_ms, lambda latency: f"{latency:.1f} ms a picture, one CPU thread"),
    ]
    lines += [say(value) for value, say in optional if value is not None]
    if student.layers:
        lines += [f"weights {student.bits('weight_bits')} bits, activations {student.bits('activation_bits')} bits"]
    return "<br>".join(lines)


def _fid_range(content: Content) -> tuple[float, float]:
    """Room for the front, both baselines and the noise, with 8 % to spare."""
    base, half = content.baselines, NOISE_WIDTH * content.baselines.noise
    told = [student.fid for student in content.front] + [base.fid - half, base.fid + half, base.input_fid]
    spare = 0.08 * (max(told) - min(told)) or 1.0
    return min(told) - spare, max(told) + spare

"""Figures of the search: what it reached for its cost, what each worker did, how students learned, what mattered.

Plain dictionaries like those of ``front_figures``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gs_search.report.content import Content
from gs_search.report.curves import Curve, terms_of
from gs_search.report.marks import SILENT, TOLD, Figure, striped
from gs_search.report.theme import LIGHT, Theme, axis, layout, log_axis, log_range
from gs_search.report.trials import KINDS
from gs_search.system.text import duration

__all__ = ["hypervolume_against_cost", "importance_bars", "learning_curve", "rung_distances", "worker_timeline"]

HOUR, MINUTE = 3600, 60
FIT = {"automargin": True}
MANY = 100
"""Points that are drawn smaller, where there are more."""


def hypervolume_against_cost(content: Content, theme: Theme = LIGHT) -> Figure:
    """Hypervolume of the front after each trial, against the time of all trials so far; full marks are gains."""
    total = content.gains[-1].seconds if content.gains else 0.0
    unit, words = time_unit(total)
    if total:
        costs = [gain.seconds / unit for gain in content.gains]
        title = f"compute, {words} of one worker"
    else:  # no trial says how long it took
        costs, title = [float(gain.trials) for gain in content.gains], "trials"
    texts = [
        f"<b>trial {gain.number}</b>: {100 * gain.hypervolume:.2f} %"
        + (f" ({100 * gain.gained:+.2f})" if gain.gained else ", no gain")
        + f"<br>after {gain.trials} trials, {duration(gain.seconds)} of compute"
        for gain in content.gains
    ]
    raised = [gain.gained > 0 for gain in content.gains]
    shares = [100 * gain.hypervolume for gain in content.gains]
    small = 9 if len(costs) <= MANY else 5
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0.0, *costs],
            "y": [0.0, *shares],
            "line": {"shape": "hv", "color": theme.front, "width": 2},
            "showlegend": False,
            **SILENT,
        },
        *(
            {
                "type": "scatter",
                "name": name,
                "mode": "markers",
                "x": [cost for cost, up in zip(costs, raised, strict=True) if up == wanted],
                "y": [share for share, up in zip(shares, raised, strict=True) if up == wanted],
                "customdata": [[g.number, ""] for g, up in zip(content.gains, raised, strict=True) if up == wanted],
                "text": [text for text, up in zip(texts, raised, strict=True) if up == wanted],
                "marker": mark,
                **TOLD,
            }
            for name, wanted, mark in (
                ("no gain", False, {"color": theme.faint, "size": small * 2 / 3, "symbol": "circle-open"}),
                ("the front gained", True, {"color": theme.front, "size": small}),
            )
        ),
    ]
    axes = {
        "xaxis": axis(theme, title) | {"rangemode": "tozero"} | FIT,
        "yaxis": axis(theme, "hypervolume, % of the box") | {"rangemode": "tozero"} | FIT,
    }
    return {"data": traces, "layout": layout(theme) | axes}


def worker_timeline(content: Content, theme: Theme = LIGHT) -> Figure:
    """What each worker did when: one bar a trial, in a colour and a pattern of its kind."""
    kinds = {trial.number: trial.kind for trial in content.trials}
    unit, words = time_unit(max((span.start + span.seconds for span in content.spans), default=0.0))
    traces = []
    for name, wanted, colour, pattern in (
        ("on the front", ("front",), theme.front, ""),
        ("finished, off the front", ("dominated", "infeasible"), theme.faint, ""),
        ("stopped early", ("stopped", "refused"), theme.knee, "/"),
        ("failed", ("failed",), theme.second, "x"),
    ):
        spans = [span for span in content.spans if kinds.get(span.number) in wanted]
        if spans:
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "base": [span.start / unit for span in spans],
                    "x": [span.seconds / unit for span in spans],
                    "y": [f"worker {span.worker + 1}" for span in spans],
                    "customdata": [[span.number, str(span.number)] for span in spans],
                    "text": [
                        f"<b>trial {span.number}</b>, {KINDS[kinds[span.number]]}<br>{duration(span.seconds)}, "
                        f"from {duration(span.start)} on"
                        for span in spans
                    ],
                    "texttemplate": "%{customdata[1]}",
                    "textposition": "inside",
                    "insidetextanchor": "middle",
                    "textangle": 0,
                    **({"insidetextfont": {"color": theme.text}} if colour == theme.faint else {}),
                    "marker": {
                        "color": colour,
                        "pattern": striped(pattern, theme),
                        "line": {"color": theme.hover, "width": 1},
                    },
                    **TOLD,
                }
            )
    workers = max((span.worker for span in content.spans), default=0) + 1
    names = [f"worker {index + 1}" for index in range(workers)]
    axes = {
        "xaxis": axis(theme, f"{words} since the first trial began") | {"rangemode": "tozero"} | FIT,
        "yaxis": axis(theme, "") | {"autorange": "reversed", "categoryorder": "array", "categoryarray": names} | FIT,
    }
    looks = {"height": 90 + 36 * min(workers, 24), "bargap": 0.25, "barmode": "overlay"}
    return {"data": traces, "layout": layout(theme) | axes | looks | {"uniformtext": {"minsize": 9, "mode": "hide"}}}


def importance_bars(content: Content, objective: str, theme: Theme = LIGHT) -> Figure:
    """Share of each parameter in one objective; a line marks what chance gives, hollow bars do not pass it."""
    totals: dict[str, float] = {}
    for entries in content.importance.values():
        for entry in entries:
            totals[entry.parameter] = totals.get(entry.parameter, 0.0) + entry.share
    order = sorted(totals, key=lambda name: totals[name])  # the same in all objectives, to compare them
    found = {entry.parameter: entry for entry in content.importance[objective]}
    ranking = [found[name] for name in order]
    names = [entry.parameter for entry in ranking]
    texts = [
        f"<b>{entry.parameter}</b><br>share {entry.share:.0%}, by chance up to {entry.chance:.0%}"
        f"<br>{entry.trials} trials" + ("" if entry.is_clear else "<br>not more than chance")
        for entry in ranking
    ]
    clear = [entry.is_clear for entry in ranking]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": "share",
            "x": [100 * entry.share for entry in ranking],
            "y": names,
            "text": texts,
            "textposition": "none",
            "marker": {
                "color": [theme.front if passed else theme.hover for passed in clear],
                "line": {"color": theme.front, "width": 1.5},
            },
            **TOLD,
        },
        {
            "type": "scatter",
            "name": "by chance, up to",
            "mode": "markers",
            "x": [min(105.0, 100 * entry.chance) for entry in ranking],
            "y": names,
            "text": texts,
            "marker": {"symbol": "line-ns-open", "size": 16, "color": theme.teacher, "line": {"width": 2.5}},
            **TOLD,
        },
    ]
    axes = {
        "xaxis": axis(theme, "share of the influence, %") | {"range": [0, 108]} | FIT,
        "yaxis": axis(theme, "") | FIT,
    }
    return {"data": traces, "layout": layout(theme) | axes | {"height": 100 + 26 * len(names), "bargap": 0.35}}


def learning_curve(content: Content, term: str, theme: Theme = LIGHT) -> Figure:
    """One term of the losses by training step: the front's students, and others behind them."""
    curves = [curve for curve in content.curves if term in curve.values]
    members = {student.number for student in content.front}
    knee = content.knee.number
    traces = [
        _lines([c for c in curves if c.number not in members], term, "other students", theme.faint, 1.0),
        _lines([c for c in curves if c.number in members - {knee}], term, "front", theme.front, 1.5),
        _lines([c for c in curves if c.number == knee], term, "knee", theme.knee, 3.0),
    ]
    values = [value for curve in curves for value in curve.values[term] if value is not None]
    title = terms_of(curves)[term]
    wide = min(values) > 0 and max(values) > 20 * min(values)
    vertical = log_axis(theme, title, *log_range(values)) if wide else axis(theme, title)
    axes = {"xaxis": axis(theme, "training step") | FIT, "yaxis": vertical | FIT}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout(theme) | axes}


def rung_distances(content: Content, theme: Theme = LIGHT) -> Figure:
    """Distance to the teacher at each rung and at the end; trials that were stopped end in a cross."""
    groups: dict[str, list[tuple[int, list[tuple[int, float]]]]] = {"front": [], "other students": [], "stopped": []}
    for student in content.students:
        if student.duplicate_of is None and student.rungs:
            path = [(rung.step, rung.psnr_to_teacher) for rung in student.rungs]
            if student.steps is not None and student.psnr is not None:
                path.append((student.steps, student.psnr))
            groups["front" if student.on_front else "other students"].append((student.number, path))
    for ending in content.endings:
        if ending.rungs:
            path = [(rung.step, rung.psnr_to_teacher) for rung in ending.rungs]
            groups["stopped"].append((ending.number, path))
    looks = {
        "other students": (theme.faint, "circle-open", 1.0),
        "front": (theme.front, "circle", 1.5),
        "stopped": (theme.knee, "x", 1.5),
    }
    traces = []
    for name, (colour, symbol, width) in looks.items():
        x, y, numbers = _joined([(n, [p[0] for p in path], [p[1] for p in path]) for n, path in groups[name]])
        if x:
            traces.append(
                _line(name, x, y, numbers, colour, width, " dB")
                | {"mode": "lines+markers", "marker": {"symbol": symbol, "size": 7, "color": colour}}
            )
    axes = {
        "xaxis": axis(theme, "training step") | FIT,
        "yaxis": axis(theme, "dB to the teacher’s pictures (higher is nearer)") | FIT,
    }
    return {"data": traces, "layout": layout(theme) | axes}


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which such a time reads well: how many seconds it has, and its name."""
    if seconds >= 2 * HOUR:
        return HOUR, "hours"
    return (MINUTE, "minutes") if seconds >= 2 * MINUTE else (1.0, "seconds")


def _lines(curves: Sequence[Curve], term: str, name: str, colour: str, width: float) -> Figure:
    """Many curves in one trace, with gaps between them."""
    x, y, numbers = _joined([(curve.number, curve.steps, curve.values[term]) for curve in curves])
    return _line(name, x, y, numbers, colour, width)


def _joined(
    paths: Sequence[tuple[int, Sequence[int], Sequence[float | None]]],
) -> tuple[list[int | None], list[float | None], list[list[Any]]]:
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[list[Any]] = []
    for number, steps, values in paths:
        known = [(s, v) for s, v in zip(steps, values, strict=True) if v is not None and math.isfinite(v)]
        x += [step for step, _ in known] + [None]
        y += [value for _, value in known] + [None]
        numbers += [[number, ""]] * (len(known) + 1)
    return x, y, numbers


def _line(
    name: str,
    x: list[int | None],
    y: list[float | None],
    numbers: list[list[Any]],
    colour: str,
    width: float,
    unit: str = "",
) -> Figure:
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines",
        "x": x,
        "y": y,
        "customdata": numbers,
        "line": {"color": colour, "width": width},
        "hovertemplate": f"<b>trial %{{customdata[0]}}</b><br>step %{{x}}: %{{y:.4g}}{unit}<extra></extra>",
    }

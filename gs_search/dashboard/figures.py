"""The report's figures as optuna-dashboard can show them: small enough to be sent every ten seconds, with a title.

The dashboard draws a figure anew whenever it asks for news, in a card of its own, light or dark; so a figure says
what it is, brings its own ground, and keeps the place to which a reader has turned or zoomed it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from gs_search.report.content import Content
from gs_search.report.front_figures import cost_pair, front_pair, front_space
from gs_search.report.study_figures import hypervolume_against_cost, learning_curve

__all__ = ["FIGURES", "study_figures"]

Figure = dict[str, Any]

MOST_TOLD = 300
"""Points of a trace beyond which hovering tells the number of the trial and the place only; its page tells all."""

HEIGHT = 450
"""Pixels that the dashboard leaves a figure."""


def _learning(content: Content) -> Figure:
    """Distance to the teacher's pictures, or whatever comes first where a study trains without that."""
    terms = {name for curve in content.curves for name in curve.values}
    if not terms:
        raise LookupError("no trial has left a curve.csv")
    return learning_curve(content, "pixel" if "pixel" in terms else min(terms))


FIGURES: Mapping[str, tuple[str, Callable[[Content], Figure]]] = {
    "front-fid-gflops": ("Front: FID and GFLOPs", lambda content: front_pair(content, "gflops")),
    "front-fid-mb": ("Front: FID and size", lambda content: front_pair(content, "size_mb")),
    "front-gflops-mb": ("Front: GFLOPs and size", cost_pair),
    "front-space": ("Front: all three objectives", front_space),
    "hypervolume": ("Hypervolume against cost", hypervolume_against_cost),
    "learning-curves": ("Learning curves", _learning),
}
"""Figures by the name under which they stand in a study, with title and maker, in the order in which they are shown."""


def study_figures(content: Content) -> tuple[dict[str, str], list[str]]:
    """Draw the figures of a study.

    Returns:
        Plotly's JSON by name, and a sentence for each figure that could not be drawn.
    """
    drawn, failed = {}, []
    for name, (title, draw) in FIGURES.items():
        try:
            drawn[name] = json.dumps(_carded(draw(content), title), separators=(",", ":"), allow_nan=False)
        except Exception as error:  # of one figure; the others, and the dashboard, are worth more than its traceback
            failed.append(f"No figure “{title}”: {' '.join(str(error).split()) or type(error).__name__}.")
    return drawn, failed


def _carded(figure: Figure, title: str) -> Figure:
    """Fit a figure to its card."""
    inside = {
        # Below the buttons, which stand there all the time on a phone.
        "title": {"text": title, "font": {"size": 15}, "x": 0.02, "y": 1 - 30 / HEIGHT, "yanchor": "top"},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "height": HEIGHT,
        "autosize": True,
        "uirevision": "kept",
        # At the lower edge, below the titles of the axes, however many rows it takes.
        "legend": {
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0.01,
            "x": 0,
            "font": {"size": 10},
        },
        "margin": {"l": 56, "r": 16, "t": 60, "b": 48},
    }
    layout = {name: _small(value) if "axis" in name else value for name, value in figure["layout"].items()}
    return _brief({"data": [_trace(trace) for trace in figure["data"]], "layout": layout | inside})


def _small(axis: Figure) -> Figure:
    """An axis whose title finds room on a phone."""
    return axis | {"title": axis["title"] | {"font": {"size": 10}, "standoff": 6}}


def _trace(trace: Figure) -> Figure:
    """Leave out what thousands of points would say when they are hovered over."""
    texts = trace.get("text")
    if not isinstance(texts, list) or len(texts) <= MOST_TOLD:
        return trace
    place = "%{x:.3g}, %{y:.4g}" + (", %{z:.4g}" if "z" in trace else "")
    numbers = [entry[:1] for entry in trace["customdata"]]
    brief = {"customdata": numbers, "hovertemplate": "trial %{customdata[0]}<br>" + place + "<extra></extra>"}
    labelled = any(len(entry) > 1 and entry[1] for entry in trace["customdata"]) and "texttemplate" in trace
    kept = {name: value for name, value in trace.items() if name != "text"}
    return kept | (brief | {"customdata": trace["customdata"]} if labelled else brief)


def _brief(value: Any) -> Any:
    """Round all numbers to six digits, which is more than a screen shows."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _brief(entry) for name, entry in value.items()}
    return [_brief(entry) for entry in value] if isinstance(value, (list, tuple)) else value

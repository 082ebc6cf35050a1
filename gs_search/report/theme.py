"""Colours, axes and layout that all figures share.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; every kind of point also has a shape
of its own. ``web/report.css`` repeats them for the page around the figures. No two colours of ``LIGHT`` are equal, so
that the page can turn a light figure into a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DARK", "LIGHT", "THEMES", "Theme", "axis", "layout", "log_axis", "log_range"]


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one theme; backgrounds are the page's own."""

    text: str
    grid: str
    front: str
    teacher: str
    input: str
    knee: str
    faint: str
    soft: str
    """Like ``faint`` and not transparent, for the turning view, where little is left of what is."""
    hover: str
    second: str
    """Students that miss a constraint, and the second of two that are compared."""


LIGHT = Theme(
    text="#1f2328",
    grid="#dde2e8",
    front="#0072B2",
    teacher="#D55E00",
    input="#009E73",
    knee="#E69F00",
    faint="rgba(87, 96, 106, 0.5)",
    soft="#8a939d",
    hover="#ffffff",
    second="#b5548b",
)
DARK = Theme(
    text="#e6e8eb",
    grid="#363d45",
    front="#56B4E9",
    teacher="#F0803C",  # vermillion, lifted to stand out on the dark page
    input="#2FBF95",  # bluish green, likewise
    knee="#F0E442",
    faint="rgba(165, 175, 186, 0.5)",
    soft="#7d8894",
    hover="#22272c",
    second="#e39bc4",
)
THEMES = {"light": LIGHT, "dark": DARK}


def axis(theme: Theme, title: str) -> dict[str, Any]:
    """A linear axis."""
    return {
        "title": {"text": title, "font": {"size": 13}},
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zeroline": False,
    }


def log_axis(theme: Theme, title: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis from 10^low to 10^high with round ticks; Plotly's own are bare digits."""
    steps = (1, 2, 5) if high - low < 3 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return axis(theme, title) | {
        "type": "log",
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """Exponents of ten around positive values, with 6 % to spare and at least a factor of two apart."""
    values = [value for value in values if value > 0] or [1.0]  # a student may have lost every channel
    low, high = math.log10(min(values)), math.log10(max(values))
    spare = max(0.06 * (high - low), (math.log10(2) - (high - low)) / 2)
    return low - spare, high + spare


def layout(theme: Theme) -> dict[str, Any]:
    """What a figure has around its axes."""
    family = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": theme.text, "size": 12, "family": family},
        "hoverlabel": {
            "bgcolor": theme.hover,
            "bordercolor": theme.grid,
            "font": {"color": theme.text, "family": family},
            "align": "left",
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.faint, "activecolor": theme.text},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "hovermode": "closest",
    }

"""Puts a report together: the page's template, its style and script, plotly.js, and what was gathered.

Everything that comes from a run folder passes jinja's escaping or ``_script_json``; the page's content
security policy forbids it any connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gs_search import __version__
from gs_search.report.content import Content, Student
from gs_search.report.figures import front_pair, front_space
from gs_search.report.theme import THEMES

__all__ = ["render"]

BAR_WIDTH, BAR_HEIGHT = 5, 26  # px of one layer in the picture of a student's widths


def render(content: Content) -> str:
    """Return the whole page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gs_search.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": _signed, "point": _point, "plain": _plain}
    environment.globals |= {"width_bars": _width_bars, "widths": _widths}
    figures = {
        "front-gflops": {name: front_pair(content, "gflops", theme) for name, theme in THEMES.items()},
        "front-size": {name: front_pair(content, "size_mb", theme) for name, theme in THEMES.items()},
        "front-space": {name: front_space(content, theme) for name, theme in THEMES.items()},
    }
    return environment.get_template("page.html.jinja").render(
        content=content,
        base=content.baselines,
        figures=_script_json(figures),
        style=Markup(_asset("report.css")),
        script=Markup(_asset("report.js")),
        plotly=Markup(get_plotlyjs()),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _asset(name: str) -> str:
    return resources.files("gs_search.report").joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _number(value: float | None, digits: int = 3) -> str:
    """Significant digits, never in exponents for what a study holds; a dash for what was not measured."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _plain(value: Any) -> str:
    """A value of the protocol or of the provenance on one line."""
    if isinstance(value, Mapping):
        told = {name: _plain(entry) for name, entry in value.items() if entry not in (None, {}, [])}
        return ", ".join(
            f"{name} ({told[name]})" if isinstance(value[name], Mapping) else f"{name} {told[name]}" for name in told
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _point(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in point.items())


def _widths(student: Student) -> str:
    """Kept channels of every layer in words."""
    return ", ".join(f"{layer['name']} {layer['width']} of {layer['full_width']}" for layer in student.layers)


def _width_bars(student: Student) -> Markup:
    """A bar a layer, from stem to head: the teacher's width faint, the student's filled."""
    tallest = max((layer["full_width"] for layer in student.layers), default=1)
    bars = []
    for index, layer in enumerate(student.layers):
        for width, kind in ((layer["full_width"], "full"), (layer["width"], "kept")):
            height = BAR_HEIGHT * width / tallest
            bars.append(
                f'<rect class="{kind}" x="{index * BAR_WIDTH}" y="{BAR_HEIGHT - height:.1f}" '
                f'width="{BAR_WIDTH - 1}" height="{height:.1f}"/>'
            )
    across = BAR_WIDTH * len(student.layers)
    title = Markup("<title>{}</title>").format(_widths(student))
    return Markup('<svg class="widths" role="img" width="{0}" height="{1}" viewBox="0 0 {0} {1}">{2}{3}</svg>').format(
        across, BAR_HEIGHT, title, Markup("".join(bars))
    )

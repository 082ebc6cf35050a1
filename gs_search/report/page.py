"""Puts a report together: the page's templates, its style and scripts, plotly.js, and what was gathered.

Everything that comes from a run folder passes jinja's escaping or ``_script_json``; the page's content security
policy runs the two scripts that it names by hash, no others, and forbids any connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timezone
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gs_search import __version__
from gs_search.report.content import Content
from gs_search.report.curves import terms_of
from gs_search.report.figures import page_figures
from gs_search.report.formats import FILTERS, width_bars, widths
from gs_search.report.importance import MIN_TRIALS
from gs_search.report.layer_figures import shown_at_first
from gs_search.report.page_data import page_data
from gs_search.report.trials import KINDS
from gs_search.results.pareto import OBJECTIVES
from gs_search.system.text import duration

__all__ = ["render"]

SCRIPTS = ("theme", "figures", "card", "pins", "compare", "layers", "table", "viewer", "start")
"""In the order in which they run; each adds to what those before it made."""
STYLES = ("palette", "report", "front", "compare", "table", "narrow")


def render(content: Content) -> str:
    """Return the whole page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gs_search.report", "web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {"duration": duration}
    environment.globals |= {"width_bars": width_bars, "widths": widths, "kinds": KINDS}
    plotly, script = get_plotlyjs(), "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    figures = page_figures(content)
    return environment.get_template("page.html.jinja").render(
        content=content,
        base=content.baselines,
        figures=_script_json(figures),
        drawn=set(figures),
        data=_script_json(page_data(content)),
        terms=terms_of(content.curves),
        objectives=dict(zip(OBJECTIVES, ("FID", "GFLOPs", "size"), strict=True)),
        parameters=[parameter.name for parameter in content.space.parameters],
        first=shown_at_first(content),
        least=MIN_TRIALS,
        policy=_policy(plotly, script),
        style=Markup("\n".join(_asset(f"{name}.css") for name in STYLES)),
        plotly=_script(plotly),
        script=_script(script),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _asset(name: str) -> str:
    return resources.files("gs_search.report").joinpath("web", name).read_text(encoding="utf-8")


def _script(text: str) -> Markup:
    return Markup(f"<script>{text}</script>")


def _policy(*scripts: str) -> str:
    """Content security policy of a page that runs these scripts and loads nothing.

    Styles stay open, because plotly.js writes some into the page.
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))

"""All figures of a report, by the id of their place in the page.

``front_figures``, ``study_figures`` and ``layer_figures`` describe them, each as a pure function of the content and
a theme; ``plotly.graph_objects.Figure`` takes what they return as it is, with legend and hovering text.
"""

from __future__ import annotations

from gs_search.report.content import Content
from gs_search.report.curves import terms_of
from gs_search.report.front_figures import cost_pair, front_pair, front_space
from gs_search.report.layer_figures import layer_bits, layer_widths, shown_at_first
from gs_search.report.marks import Figure
from gs_search.report.study_figures import (
    hypervolume_against_cost,
    importance_bars,
    learning_curve,
    rung_distances,
    worker_timeline,
)
from gs_search.report.theme import LIGHT, Theme
from gs_search.results.pareto import OBJECTIVES

__all__ = [
    "cost_pair", "front_pair", "front_space", "hypervolume_against_cost", "importance_bars", "layer_bits",
    "layer_widths", "learning_curve", "page_figures", "rung_distances", "worker_timeline",
]  # fmt: skip


def page_figures(content: Content, theme: Theme = LIGHT) -> dict[str, Figure]:
    """Figures that a report of this study has, by the id of their place in the page."""
    figures = {
        "front-gflops": front_pair(content, "gflops", theme),
        "front-size": front_pair(content, "size_mb", theme),
        "front-costs": cost_pair(content, theme),
        "front-space": front_space(content, theme),
    }
    for figure in figures.values():
        for trace in figure["data"]:
            if "customdata" in trace:
                del trace["text"], trace["hovertemplate"]
                trace["hoverinfo"] = "none"  # events come, text does not
    if first := shown_at_first(content):
        figures["layers-width"] = layer_widths(first, theme)
        figures["layers-bits"] = layer_bits(first, theme)
    figures["hypervolume"] = hypervolume_against_cost(content, theme)
    if content.spans:
        figures["timeline"] = worker_timeline(content, theme)
    figures |= {f"curves-{term}": learning_curve(content, term, theme) for term in terms_of(content.curves)}
    if any(trial.rungs for trial in content.trials):
        figures["rungs"] = rung_distances(content, theme)
    for objective in OBJECTIVES:
        if content.importance[objective]:
            figures[f"importance-{objective}"] = importance_bars(content, objective, theme)
    return figures

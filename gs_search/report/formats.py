"""How numbers, points and layers are written in the page: the filters of its templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from gs_search.report.trials import Student

__all__ = ["FILTERS", "number", "plain", "point", "signed", "width_bars", "widths"]

BAR_WIDTH, BAR_HEIGHT = 5, 26  # px of one layer in the picture of a student's widths


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, never in exponents for what a study holds; a dash for what was not measured."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text


def signed(value: float) -> str:
    """One decimal, with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def plain(value: Any) -> str:
    """A value of the protocol, of the provenance or of a point on one line."""
    if isinstance(value, Mapping):
        told = {name: plain(entry) for name, entry in value.items() if entry not in (None, {}, [])}
        return ", ".join(
            f"{name} ({told[name]})" if isinstance(value[name], Mapping) else f"{name} {told[name]}" for name in told
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point(values: Mapping[str, Any]) -> str:
    """A point of the search space on one line."""
    return ", ".join(f"{name} {plain(value)}" for name, value in values.items())


def widths(student: Student) -> str:
    """Kept channels of every layer in words."""
    return ", ".join(f"{layer.name} {layer.width} of {layer.full_width}" for layer in student.layers)


def width_bars(student: Student) -> Markup:
    """A bar a layer, from stem to head: the teacher's width faint, the student's filled."""
    tallest = max((layer.full_width for layer in student.layers), default=1)
    paths = []
    for kind, key in (("full", "full_width"), ("kept", "width")):
        bars = []
        for index, layer in enumerate(student.layers):
            height = f"{BAR_HEIGHT * getattr(layer, key) / tallest:.3g}"
            bars.append(f"M{index * BAR_WIDTH} {BAR_HEIGHT}v-{height}h{BAR_WIDTH - 1}v{height}z")
        paths.append(f'<path class="{kind}" d="{"".join(bars)}"/>')
    title = Markup("<title>{}</title>").format(widths(student))
    return Markup('<svg class="widths" role="img" width="{0}" height="{1}" viewBox="0 0 {0} {1}">{2}{3}</svg>').format(
        BAR_WIDTH * len(student.layers), BAR_HEIGHT, title, Markup("".join(paths))
    )


FILTERS = {"number": number, "signed": signed, "point": point, "plain": plain}

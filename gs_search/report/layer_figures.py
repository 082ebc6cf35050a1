"""Figures of two students' layers beside the teacher's: how wide each is, and in how many bits it computes."""

from __future__ import annotations

from collections.abc import Sequence

from gs_search.report.content import Content
from gs_search.report.marks import Figure, striped
from gs_search.report.theme import LIGHT, Theme, axis, layout
from gs_search.report.trials import Student

__all__ = ["layer_bits", "layer_widths", "shown_at_first"]

TEACHER_BITS = 32


def shown_at_first(content: Content) -> tuple[Student, ...]:
    """The two students that are shown before a reader chooses: the knee, and the one nearest to the teacher."""
    best = content.faithful or min(content.front, key=lambda student: student.fid)
    wanted = {s.number: s for s in (content.knee, best, *content.front) if s.layers}
    return tuple(wanted.values())[:2]


def layer_widths(students: Sequence[Student], theme: Theme = LIGHT) -> Figure:
    """Channels that each layer kept, from stem to head, before the teacher's."""
    full = [layer.full_width for layer in students[0].layers]
    values = [[layer.width for layer in student.layers] for student in students]
    words = [[f"{width} of {all_}" for width, all_ in zip(own, full, strict=True)] for own in values]
    return _figure(students, full, values, words, "channels", theme)


def layer_bits(students: Sequence[Student], theme: Theme = LIGHT) -> Figure:
    """Bits of each layer's weights before the teacher's 32; the words tell those of its inputs too."""
    full = [TEACHER_BITS] * len(students[0].layers)
    values = [[layer.weight_bits if layer.width else 0 for layer in student.layers] for student in students]
    words = [
        [f"{layer.weight_bits}, inputs {layer.activation_bits}" if layer.width else "gone" for layer in student.layers]
        for student in students
    ]
    return _figure(students, full, values, words, "bits of the weights (and of the inputs)", theme)


def _figure(
    students: Sequence[Student],
    full: Sequence[int],
    values: Sequence[Sequence[int]],
    words: Sequence[Sequence[str]],
    title: str,
    theme: Theme,
) -> Figure:
    names = [layer.name for layer in students[0].layers]
    traces: list[Figure] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": "teacher",
            "x": list(full),
            "y": names,
            "width": 0.86,
            "offset": -0.43,
            "marker": {"color": theme.grid},
            "hovertemplate": "%{y}: %{x}<extra>teacher</extra>",
        }
    ]
    looks = [(theme.front, ""), (theme.second, "/")]
    for index, (colour, pattern) in enumerate(looks):
        one = index < len(students)  # the page puts another student into the empty place
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"trial {students[index].number}" if one else "",
                "x": list(values[index]) if one else [],
                "y": names,
                "width": 0.36,
                "offset": -0.37 + 0.38 * index,
                "marker": {"color": colour, "pattern": striped(pattern, theme)},
                "text": list(words[index]) if one else [],
                "textposition": "outside",
                "cliponaxis": False,
                "textfont": {"size": 10},
                "hovertemplate": "%{y}: %{text}<extra>%{fullData.name}</extra>",
            }
        )
    axes = {
        "xaxis": axis(theme, title) | {"automargin": True, "rangemode": "tozero"},
        "yaxis": axis(theme, "") | {"automargin": True, "autorange": "reversed", "tickfont": {"size": 10.5}},
    }
    looks_whole = {"barmode": "overlay", "height": 90 + 34 * len(names)}
    return {"data": traces, "layout": layout(theme) | axes | looks_whole}

"""What stands for students, endings, the teacher and the input in figures of the front, and what hovering tells.

Every point carries the number of its trial as ``customdata[0]``, by which the page finds its pictures, and its label
as ``customdata[1]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Literal

from gs_search.report.content import Content
from gs_search.report.theme import Theme
from gs_search.report.trials import KINDS, Again, Ending, Student

__all__ = [
    "NOISE_WIDTH", "SILENT", "TOLD", "Cost", "Figure", "costs_of", "describe", "identity", "input_mark", "marker",
    "off_scale", "other_seeds", "spread", "striped", "teacher_mark", "told",
]  # fmt: skip

Cost = Literal["gflops", "size_mb"]
Figure = dict[str, Any]

NOISE_WIDTH = 2  # standard deviations shown to either side of the teacher's FID
TOLD = {"hovertemplate": "%{text}<extra></extra>"}
SILENT = {"hoverinfo": "skip"}
SYMBOLS = {"dominated": "circle-open", "duplicate": "circle-open-dot", "infeasible": "square-open"}


def marker(kind: str, theme: Theme, size: float) -> Figure:
    """Marker of the students of one kind off the front."""
    return {"color": theme.second if kind == "infeasible" else theme.faint, "size": size, "symbol": SYMBOLS[kind]}


def spread(content: Content) -> dict[str, list[Student]]:
    """Students off the front by kind; only kinds that occur."""
    found = {kind: [student for student in content.students if student.kind == kind] for kind in SYMBOLS}
    return {kind: students for kind, students in found.items() if students}


def striped(shape: str, theme: Theme) -> Figure:
    """Pattern of a bar, for readers who cannot tell its colour; ``shape`` may be empty."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": theme.hover, "size": 6, "solidity": 0.25}


def off_scale(kind: str) -> str:
    """Name of the marks at the upper edge."""
    return f"{kind}, off the scale"


def identity(students: Sequence[Student], content: Content, labels: Sequence[str] | None = None) -> Figure:
    """What every point of a student carries: its number and label, for the page, and what hovering tells."""
    labels = [str(student.number) for student in students] if labels is None else labels
    return {
        "customdata": [[student.number, label] for student, label in zip(students, labels, strict=True)],
        "text": [describe(student, content) for student in students],
        **TOLD,
    }


def costs_of(ending: Ending, content: Content) -> Mapping[str, float]:
    """Costs of a trial without a student, as far as they are known: measured at a rung, or asked for."""
    if ending.partial:
        return {"gflops": ending.partial.gflops, "size_mb": ending.partial.size_mb}
    target = ending.point.get("target_gflops_ratio")
    return {"gflops": float(target) * content.baselines.gflops} if isinstance(target, (int, float)) else {}


def told(ending: Ending) -> Figure:
    """What the point of an ending carries."""
    words = f"<b>trial {ending.number}</b>, {KINDS[ending.kind]}: {escape(ending.cause)}"
    message = escape(ending.message[:160])
    return {"customdata": [ending.number, ""], "text": f"{words}<br>{message}" if message else words}


def teacher_mark(content: Content, theme: Theme, place: Figure, *, size: float) -> Figure:
    """The dense generator."""
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


def input_mark(content: Content, theme: Theme, place: Figure, line: Figure) -> Figure:
    """The FID of doing nothing."""
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


def describe(student: Student, content: Content) -> str:
    """All numbers of a student, one a line."""
    base = content.baselines
    lines = [
        f"<b>trial {student.number}</b>" + (" (knee)" if student.is_knee else ""),
        f"FID {student.fid:.1f} ({student.fid - base.fid:+.1f} to the teacher)",
        f"{student.gflops:.3g} GFLOPs{_times(base.gflops, student.gflops, 'fewer')}",
        f"{student.size_mb:.3g} MB{_times(base.size_mb, student.size_mb, 'smaller')}",
    ]
    if student.again:
        lines[1] += f"<br>{other_seeds(student.again)}"
    optional: list[tuple[float | None, Callable[[float], str]]] = [
        (student.kid, lambda kid: f"KID {1000 * kid:.1f} ×10⁻³"),
        (student.psnr, lambda psnr: f"{psnr:.1f} dB to the teacher's pictures"),
        (student.latency_ms, lambda latency: f"{latency:.1f} ms a picture, one CPU thread"),
    ]
    lines += [say(value) for value, say in optional if value is not None]
    if student.layers:
        lines += [f"weights {student.bits('weight_bits')} bits, activations {student.bits('activation_bits')} bits"]
    if student.told:
        lines += [f"{KINDS[student.kind]}: {escape(student.told)}"]
    return "<br>".join(lines)


def other_seeds(again: Again) -> str:
    """What other seeds say, in words."""
    seeds = "1 other seed" if again.seeds == 1 else f"{again.seeds} other seeds"
    between = "" if again.low is None else f" ({again.low:.1f} to {again.high:.1f})"
    return f"{again.mean:.1f}{between} with {seeds}"


def _times(teacher: float, student: float, word: str) -> str:
    return f" ({teacher / student:.1f}× {word})" if student else ""

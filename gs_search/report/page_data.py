"""What the page's scripts know of each trial: its numbers, layers and pictures, as one JSON object."""

from __future__ import annotations

from typing import Any

from gs_search.report.content import Content
from gs_search.report.marks import other_seeds
from gs_search.report.theme import DARK, LIGHT
from gs_search.report.trials import KINDS, Ending, Student

__all__ = ["page_data"]


def page_data(content: Content) -> dict[str, Any]:
    """Gather it. The pictures of the front stand in the page itself, and are not repeated here."""
    shown = {student.number for student in content.front}
    layers = next((student.layers for student in content.students if student.layers), ())
    base, samples = content.baselines, content.samples
    return {
        "trials": {
            **{student.number: _student(student) for student in content.students},
            **{ending.number: _ending(ending) for ending in content.endings},
        },
        "layers": [layer.full_width for layer in layers],
        "teacher": {"fid": base.fid, "kid": base.kid, "gflops": base.gflops, "mb": base.size_mb},
        "tie": content.tie_margin,
        "columns": samples.columns,
        "side": samples.side,
        "pictures": {number: uri for number, uri in samples.students.items() if number not in shown},
        "palette": [[getattr(LIGHT, name), getattr(DARK, name)] for name in LIGHT.__dataclass_fields__],
    }


def _student(student: Student) -> dict[str, Any]:
    return {
        "kind": student.kind,
        "words": KINDS[student.kind],
        "told": student.told,
        "knee": student.is_knee,
        "fid": student.fid,
        "kid": student.kid,
        "gflops": student.gflops,
        "mb": student.size_mb,
        "psnr": student.psnr,
        "ms": student.latency_ms,
        "weights": student.bits("weight_bits"),
        "inputs": student.bits("activation_bits"),
        "widths": student.width_share,
        "again": other_seeds(student.again) if student.again else None,
        "ties": list(student.ties),
        "layers": [[layer.width, layer.weight_bits, layer.activation_bits] for layer in student.layers],
    }


def _ending(ending: Ending) -> dict[str, Any]:
    partial = ending.partial
    return {
        "kind": ending.kind,
        "words": KINDS[ending.kind],
        "told": ending.cause,
        "message": ending.message,
        "gflops": partial and partial.gflops,
        "mb": partial and partial.size_mb,
        "psnr": partial and partial.psnr_to_teacher,
    }

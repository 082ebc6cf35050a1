"""Where the numbers beside the points of a plot go, so that they do not hide each other."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["place_labels"]

# A plot on a phone, in pixels: labels that keep apart there keep apart everywhere.
PLOT = (300.0, 300.0)
LETTER = (7.0, 12.0)
AWAY = 12.0  # pixels from the centre of a point to that of its label, plus half the label
POINT = 11.0  # diameter of a point
FEW = 30  # so many labels are all shown, whatever they cover
MOST_COVERED = 0.3  # share of a label under others, above which one of many is left out

Box = tuple[float, float, float, float]
SIDES = {
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}


def place_labels(places: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[str | None]:
    """Choose a side of each point for its label, one after the other, each where it covers the least.

    Args:
        places: points as shares of the plot's width and height, 0..1.
        labels: texts, one a point.

    Returns:
        Plotly's ``textposition`` of each; None for one of many that would lie on others wherever it went.
    """
    points = [_box(x * PLOT[0], y * PLOT[1], POINT, POINT) for x, y in places]
    taken: list[Box] = []
    chosen: list[str | None] = []
    for (x, y), label in zip(places, labels, strict=True):
        width = LETTER[0] * len(label)
        candidates = {}
        for side, (right, up) in SIDES.items():
            across = x * PLOT[0] + right * (AWAY / 2 + width / 2)
            above = y * PLOT[1] + up * (AWAY / 2 + LETTER[1] / 2)
            candidates[side] = _box(across, above, width, LETTER[1])
        side = min(candidates, key=lambda name: _covered(candidates[name], taken + points))
        if len(places) > FEW and _covered(candidates[side], taken + points) > MOST_COVERED * width * LETTER[1]:
            chosen.append(None)
            continue
        taken.append(candidates[side])
        chosen.append(side)
    return chosen


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _covered(box: Box, others: Sequence[Box]) -> float:
    """Area of ``box`` under the others and outside the plot."""
    left, bottom, right, top = box
    inside = _overlap(box, (0.0, 0.0, *PLOT))
    return (right - left) * (top - bottom) - inside + sum(_overlap(box, other) for other in others)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

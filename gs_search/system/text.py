"""How lengths of time, and figures that may be missing, are written for people."""

from __future__ import annotations

__all__ = ["duration", "figure"]


def duration(seconds: float) -> str:
    """Write a length of time with two units at most: ``45 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def figure(value: object, form: str) -> str:
    """Write a number in a format of ``format``; ``-`` for what is none."""
    return format(value, form) if isinstance(value, (int, float)) else "-"

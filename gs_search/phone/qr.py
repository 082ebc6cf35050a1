"""An address as a QR code in a terminal, for the camera of a phone."""

from __future__ import annotations

import io

__all__ = ["qr_code"]

WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
PLAIN = "\x1b[0m"


def qr_code(text: str, *, colours: bool) -> str | None:
    """The code in half blocks, two rows a line; None where the extra ``phone`` is not installed.

    Args:
        colours: make light parts light on any terminal, by its escape codes; else the terminal's text is the light.
    """
    try:
        import segno
    except ImportError:
        return None
    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out=out, compact=True)
    lines = out.getvalue().splitlines()
    if colours:
        lines = [f"{WHITE_ON_BLACK}{line}{PLAIN}" for line in lines]
    return "\n".join(lines)

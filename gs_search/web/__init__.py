"""Pages for a browser: a port to listen on until somebody ends it, and the gate before what is served there.

What stands behind them belongs to others: ``dashboard`` and ``phone``.
"""

from __future__ import annotations

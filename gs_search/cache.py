"""Where this package keeps what it can get again: files that were fetched, copies of run folders in object stores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$GS_SEARCH_CACHE``, or ``gs-search`` in the user's folder for caches."""
    if own := os.environ.get("GS_SEARCH_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "gs-search"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "gs-search"

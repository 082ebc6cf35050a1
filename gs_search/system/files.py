"""Where this package keeps what it can get again: files that were fetched, copies of run folders in object stores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gs_search.errors import BadInput

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$GS_SEARCH_CACHE``, or ``gs-search`` in the user's folder for caches.

    Raises:
        BadInput: nothing names a home folder, as under a user id without an entry.
    """
    if own := os.environ.get("GS_SEARCH_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "gs-search"
    try:
        home = Path.home()
    except RuntimeError:
        raise BadInput("cache: this user has no home folder; set GS_SEARCH_CACHE to a folder of yours") from None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "gs-search"

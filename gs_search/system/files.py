"""Files of the user's, written whole or not at all; and where this package keeps what it can get again."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from gs_search.errors import BadInput

__all__ = ["cache_folder", "write_file"]


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


def write_file(path: Path, content: bytes) -> None:
    """Write a file of the user's: all of it, or what was there stays; raises BadInput where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

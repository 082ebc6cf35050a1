"""Files that are written whole or not at all; JSON among them; and where this package keeps what it can get again."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gs_search.errors import BadInput

__all__ = ["cache_folder", "draft_of", "read_json", "write_file", "write_json", "write_text"]


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


@contextmanager
def draft_of(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give the name of a draft beside ``path``, which replaces it at the end: readers see the old content or the new.

    Where the block raises, or writes no draft, ``path`` stays as it was; no draft is ever left.

    Args:
        durable: the content is to be on the disk before its name is. Without it, what a power cut leaves may be empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield draft
        if draft.exists():
            if durable:
                with draft.open("rb") as stream:
                    os.fsync(stream.fileno())
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null, because JSON has none."""
    write_text(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises BadInput naming a file that is missing or torn."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); restore or remove it") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds no JSON object; restore or remove it")
    return content


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, (list, tuple)) else content


def write_file(path: Path, content: bytes) -> None:
    """Write a file of the user's: all of it, or what was there stays; raises BadInput where that cannot be."""
    try:
        with draft_of(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None

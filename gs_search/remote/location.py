"""Which places are in an object store, what may be in such a URI, and where the local copy of one lies.

A URI is printed, written into files and sent to nodes; so it may hold no key. Nothing is opened here.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from gs_search.errors import BadInput
from gs_search.system.files import cache_folder

__all__ = ["SCHEMES", "Place", "checked", "copy_of", "is_remote"]

Place = str | Path
"""A run folder: a path, or the URI of a folder in an object store, which is a string."""

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
"""Of the stores that ``pyarrow.fs`` knows: Amazon's S3 and what speaks like it, Google's, Microsoft's."""

_SECRET = re.compile(r"key|secret|token|passw|sas|credential(?!_kind)|signature", re.IGNORECASE)


def is_remote(place: object) -> bool:
    """Whether a place is a URI. A ``Path`` never is: it would have made one slash of two."""
    return isinstance(place, str) and "://" in place


def checked(uri: str) -> str:
    """The URI of a run folder, written in one way.

    Raises:
        BadInput: no store has such a scheme, no folder is named, or it holds a key; the message does not repeat that.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        more = "; a path needs no file://" if scheme == "file" else ""
        raise BadInput(f"{scheme}://: no object store that is known; take one of s3://, gs://, abfss://{more}")
    user, at, _ = parts.netloc.rpartition("@")
    options = parse_qsl(parts.query, keep_blank_values=True)
    named = [name for name, value in options if _SECRET.search(name) or "@" in value]
    if (at and (":" in user or not scheme.startswith("abfs"))) or named:
        raise BadInput(
            f"{scheme}://…{parts.path}: holds a key, which would be copied into files and logs; leave it out, and set "
            f"{_where_keys_go(scheme)} wherever the study runs"
        )
    pieces = [piece for piece in parts.path.split("/") if piece]
    if not parts.netloc or not pieces:
        raise BadInput(f"{uri}: names no folder; take one in a bucket, as in {scheme}://bucket/runs/my-study")
    if {".", ".."} & set(pieces) or parts.fragment:
        raise BadInput(f"{uri}: is no plain name of a folder; leave out '.', '..' and '#'")
    return f"{scheme}://{parts.netloc}/{'/'.join(pieces)}" + (f"?{parts.query}" if parts.query else "")


def _where_keys_go(scheme: str) -> str:
    if scheme == "s3":
        return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or a role of the machine,"
    if scheme in ("gs", "gcs"):
        return "GOOGLE_APPLICATION_CREDENTIALS, or a service account of the machine,"
    return "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or a role of the machine,"


def copy_of(uri: str, *, at_work: bool) -> Path:
    """Folder of the local copy of a checked URI.

    Args:
        at_work: of a process that runs the study; whoever looks at the study has another one, for what a run is at
            must not be replaced by what it has sent.
    """
    pieces = urlsplit(uri).path.strip("/").split("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", pieces[-1])[:40]
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    return cache_folder() / "runs" / f"{name}-{digest}" / ("run" if at_work else "look")

"""A run folder in an object store (``s3://``, ``gs://``): a local copy of it, and what passes between the two.

Reading order: ``location`` (what a URI may be), ``store`` (objects, through ``pyarrow.fs``), ``mirror`` (the local
copy), ``joining`` (what comes together when, and what a node has to show), ``lease`` (who runs the study).
"""

from __future__ import annotations

from gs_search.remote.location import Place, is_remote

__all__ = ["Place", "is_remote"]

"""From the ``data`` section of a study to its pictures."""

from __future__ import annotations

from gs_search.data.folders import open_folders
from gs_search.data.pairs import open_pairs
from gs_search.data.photos import open_photos
from gs_search.data.source import DataSettings, DataSource
from gs_search.data.synthetic.drawn import open_drawn

__all__ = ["open_data"]

_OPENERS = {"drawn": open_drawn, "folders": open_folders, "photos": open_photos, "pairs": open_pairs}


def open_data(config: DataSettings, image_px: int, seed: int) -> DataSource:
    """List the pictures of a study; nothing is drawn or decoded yet.

    Args:
        config: kind, path, and how many pictures of each split at most.
        image_px: side of the pictures.
        seed: decides drawn pictures and random crops, not which file is in which split.

    Raises:
        DataError: a folder is missing, empty or too small.
    """
    return _OPENERS[config.kind](config, image_px, seed)

"""Pictures of a study: the drawn data set, image folders, photos; splits, views and batches."""

from __future__ import annotations

from gs_search.data.check import check_data
from gs_search.data.opening import open_data
from gs_search.data.source import DataSettings, DataSource, PictureSet, Split, batch
from gs_search.data.tally import Tally

__all__ = ["DataSettings", "DataSource", "PictureSet", "Split", "Tally", "batch", "check_data", "open_data"]

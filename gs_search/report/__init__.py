"""The report of a study: one self-contained ``report.html`` that opens offline, on a desk or on a phone.

Reads a run folder and nothing else, so that a report can be written while a search runs, after it, or years
later. ``content`` gathers what a reader wants to know; ``trials``, ``progress``, ``timeline``, ``curves``,
``importance``, ``pictures``, ``retrained`` and ``provenance`` are its parts. ``figures`` describes the plots,
``page`` puts them together; ``web/`` holds the page itself: templates, styles and scripts.
"""

from __future__ import annotations

from pathlib import Path

from gs_search.report.content import gather
from gs_search.report.page import render
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import write_text

__all__ = ["write_report"]


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run folder, in one step, and return its path.

    Raises:
        BadInput: the folder's baselines or one of its results cannot be read.
        NothingFeasible: no trial has finished, or none keeps the constraints, so that there is nothing to show.
    """
    write_text(folder.report_html, render(gather(folder)))
    return folder.report_html

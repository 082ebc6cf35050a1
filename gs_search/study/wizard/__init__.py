"""Writing a new study for someone: what they have, in a study file and a search space that pass ``check``.

``questions`` asks, ``draft`` turns the answers into numbers, ``writer`` makes the files from the two templates beside
it, checks them, and only then puts them in their place.
"""

from __future__ import annotations

from gs_search.study.wizard.draft import Plan, Wishes, make_plan
from gs_search.study.wizard.questions import ask
from gs_search.study.wizard.writer import Written, write_study

__all__ = ["Plan", "Wishes", "Written", "ask", "make_plan", "write_study"]

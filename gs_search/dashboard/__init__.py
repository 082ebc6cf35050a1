"""A study in the browser: Optuna's own dashboard, filled with what the run folder knows, and kept from harm.

``serve`` answers in a browser while a search runs beside it: pictures, notes and figures are laid over what is read
from the database, and nothing is written. ``publish`` saves the same into the study, for those who open it with plain
``optuna-dashboard``. Reading order: ``server``, ``gate`` (what may be written), ``app``, ``overlay``, ``page``.
"""

from __future__ import annotations

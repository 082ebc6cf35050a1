"""The search: Optuna proposes points, Ray Tune runs them, one process a trial.

``runner`` is the way in, ``searcher`` stands between Tune and Optuna, ``rungs`` and ``scheduler`` say who is left
early, ``samplers`` who proposes, ``database`` alone writes the study database (``backup`` and ``rebuild`` keep it
safe),
``worker`` is what runs in a worker process, ``preparation`` makes what trials share, ``cluster`` starts and stops Ray,
``standing``, ``gains`` and ``progress`` say how far a study is, ``account`` sums up what it has brought and ``advice``
what to do when that is nothing, ``forecast`` (with ``probe`` and ``costs``) what it will cost.
Importing this package imports neither Ray nor Optuna.
"""

from __future__ import annotations

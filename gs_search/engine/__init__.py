"""Ray's side of a search: Ray Tune runs the trials that Optuna proposes, one process a trial.

``runner`` is the way in, ``searcher`` stands between Tune and Optuna, ``scheduler`` leaves trials early, ``worker`` is
what runs in a worker process, ``preparation`` makes what trials share, ``memory`` says how many trials fit,
``store_sync`` brings a run folder to an object store, ``console`` prints a line a trial; ``ray`` starts and stops Ray.
Importing this package imports neither Ray nor Optuna.
"""

from __future__ import annotations

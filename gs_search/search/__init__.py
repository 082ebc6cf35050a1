"""Optuna's side of a search: who proposes points, what is kept of them in the study database.

``samplers`` and ``surrogate`` propose, ``study_database`` alone writes the database (``backup`` and ``rebuild`` keep it
safe), ``stopping`` says who is left early, ``warm_start`` and ``enqueue`` bring points from elsewhere.
"""

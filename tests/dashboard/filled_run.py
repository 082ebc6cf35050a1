"""Run folders with a database, as a search leaves them, and their dashboard served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gs_search.dashboard.gate import DashboardGate
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.feasibility import Feasibility, constraint_attributes
from gs_search.search.storage import close_study, open_study
from gs_search.search.study_database import told_attributes, told_values
from tests.synthetic_run import write_run
from tests.web.asking import serving

SPACE = {
    "target_gflops_ratio": FloatDistribution(0.05, 0.9, log=True),
    "weight_bits.body": CategoricalDistribution((8, 6, 4)),
    "feature_weight": FloatDistribution(0.5, 30.0),
}
MAX_GFLOPS = 0.2
"""Constraint of the study: some of the synthetic students need more."""


def write_filled_run(path: Path, *, trials: int = 24) -> RunFolder:
    """Write a synthetic run with a constraint, and the database that belongs to it."""
    folder = write_run(path, trials=trials, image_px=32)
    resolved = yaml.safe_load(folder.resolved_yaml.read_text())
    resolved["study"]["constraints"]["max_gflops"] = MAX_GFLOPS
    folder.resolved_yaml.write_text(yaml.safe_dump(resolved))
    study = open_study("quickstart", folder.database)
    for record in folder.results():
        study.add_trial(frozen(record, folder))
    close_study(study)
    return folder


def frozen(record: TrialRecord, folder: RunFolder) -> FrozenTrial:
    """The trial that a run would have made of a ``result.json``."""
    trial = create_trial(
        state=TrialState[record.state],
        values=told_values(record),
        params=record.point,
        distributions=SPACE,
        user_attrs=told_attributes(record),
    )
    violated = Feasibility(folder, folder.config()).violations(record)
    trial.system_attrs |= constraint_attributes(violated)
    return trial


def opened(folder: RunFolder) -> optuna.Study:
    """The study as a run has it."""
    return open_study("quickstart", folder.database)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve a dashboard on this machine; yields its address, with a slash at the end."""
    with serving(lambda port: DashboardGate(app, port=port)) as address:
        yield address

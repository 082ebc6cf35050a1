"""Studies for tests of the engine, and records of trials that never ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from stand_ins import objectives

from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.search.outcomes import Asked
from gs_search.search.study_database import StudyDatabase
from gs_search.study.config import StudyConfig

SHARE = {"type": "float", "low": 0.05, "high": 0.9, "log": True}
BITS = {"type": "choice", "choices": [8, 6, 4]}
SPACE: dict[str, Any] = {"target_gflops_ratio": SHARE, "weight_bits": BITS}
ENDINGS = [8, 2, 3, 4, 5, 6, 7]

SMALL: dict[str, Any] = {
    "target_gflops_ratio": {"type": "choice", "choices": [0.1, 0.2, 0.4]},
    "weight_bits": {"type": "choice", "choices": [8, 4]},
}


MakeStudy = Callable[..., tuple[StudyConfig, RunFolder]]


def write_study(
    root: Path,
    parameters: Mapping[str, Any] = SPACE,
    start_points: Sequence[Mapping[str, Any]] = (),
    **keys: Any,
) -> Path:
    """Write a study and its space to ``root``; return the study file."""
    root.mkdir(parents=True, exist_ok=True)
    space = {"parameters": dict(parameters), "start_points": [dict(point) for point in start_points]}
    study = {
        "study": "engine",
        "space": "space.yaml",
        "trials": 6,
        "workers": 2,
        "device": "cpu",
        "data": {"kind": "drawn"},
        "teacher": {"kind": "shipped"},
        "stopping": {"rule": "pareto"},
        **keys,
    }
    (root / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    (root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return root / "study.yaml"


def record_of(database: StudyDatabase, asked: Asked, **changes: Any) -> TrialRecord:
    """How a complete trial ended."""
    content = {
        "schema": 1, "study": "engine", "number": asked.number, "state": "COMPLETE", "cause": None,
        "message": None, "point": asked.point, "key": asked.key, "seed": asked.seed, "seconds": 2.0,
        "objectives": objectives(asked.point, asked.seed), **changes,
    }  # fmt: skip
    return TrialRecord.from_json(content)


def complete(database: StudyDatabase, asked: Asked) -> None:
    record = record_of(database, asked)
    database.write_result(record)
    database.tell(record)


def state_counts(database: StudyDatabase) -> dict[str, int]:
    states = [trial.state.name for trial in database.trials()]
    return {name: states.count(name) for name in sorted(set(states))}

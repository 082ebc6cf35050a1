"""Studies for tests of the engine: real files, real Optuna, real Ray, and trials that take milliseconds."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

# Worker processes import the stand-ins too; they get this process's path.
sys.path.insert(0, str(Path(__file__).parents[1] / "driving"))

from drivers import drive_fixture, scratch_fixture  # noqa: E402, F401
from engine_studies import SPACE, MakeStudy, write_study  # noqa: E402

from gs_search.results.run_folder import RunFolder  # noqa: E402
from gs_search.search import storage  # noqa: E402
from gs_search.study.config import StudyConfig, load_study  # noqa: E402
from tests.remote.fixtures import elsewhere, s3, server  # noqa: E402, F401


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's tables and no study; making the tables takes longer than most tests."""
    path = tmp_path_factory.mktemp("database") / "study.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture(autouse=True)
def quick_disk(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests the making of tables, and the waiting for the disk at every commit; no test cuts the power."""
    connect = storage._connect

    def connect_carelessly(path: Path) -> sqlite3.Connection:
        if not path.exists():
            shutil.copy(empty_database, path)
        connection = connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(storage, "_connect", connect_carelessly)


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Make a study and its run folder; arguments as of ``write_study``."""

    def make(
        parameters: Mapping[str, Any] = SPACE, start_points: Sequence[Mapping[str, Any]] = (), **keys: Any
    ) -> tuple[StudyConfig, RunFolder]:
        config = load_study(write_study(tmp_path / "study", parameters, start_points, **keys))
        folder = RunFolder(tmp_path / "run")
        folder.create(config)
        return config, folder

    return make


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """One Ray for all tests; ``run_study`` uses it as it is."""
    from gs_search.engine.ray.local import local_ray, scratch_folder

    with scratch_folder() as scratch, local_ray(scratch, workers=2, device="cpu"):
        yield

"""Filled run folders: one that nobody changes, and copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_search.dashboard.app import DashboardApp
from gs_search.results.run_folder import RunFolder
from gs_search.search import storage
from tests.dashboard.filled_run import write_filled_run


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """24 trials: most complete, some of which miss the constraint, one stopped early and two failed."""
    connect = storage._connect

    def connect_carelessly(path: Path) -> object:
        connection = connect(path)
        connection.execute("PRAGMA synchronous=OFF")  # no test cuts the power
        return connection

    patch = pytest.MonkeyPatch()
    patch.setattr(storage, "_connect", connect_carelessly)
    try:
        return write_filled_run(tmp_path_factory.mktemp("dashboard") / "run")
    finally:
        patch.undo()


@pytest.fixture
def folder(original: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that a test may change."""
    shutil.copytree(original.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="session")
def app(original: RunFolder) -> Iterator[DashboardApp]:
    """The dashboard of the folder that nobody changes."""
    dashboard = DashboardApp(original)
    yield dashboard
    dashboard.close()

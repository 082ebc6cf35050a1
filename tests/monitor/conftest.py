"""The engine's studies and its empty database, for tests of how far it is."""

from __future__ import annotations

from tests.engine.conftest import (  # noqa: F401
    drive_fixture,
    elsewhere,
    empty_database,
    make_study,
    quick_disk,
    ray_started,
    s3,
    scratch_fixture,
    server,
)

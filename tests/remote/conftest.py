"""A bucket for tests, and a process that may use it."""

from __future__ import annotations

from tests.remote.fixtures import elsewhere, flaky, s3, server  # noqa: F401

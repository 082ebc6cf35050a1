"""What is passed on of other libraries' errors."""

from __future__ import annotations

import pytest

from gs_search.errors import one_line

TUNE = 'Traceback (most recent call last):\n  File "x.py", line 1\nray.exceptions.RayActorError: it died\n\n'


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n lines"), "ValueError: two lines"),
        (RuntimeError(TUNE), "ray.exceptions.RayActorError: it died"),
        (OSError(), "OSError: "),
        (ValueError("x" * 900), f"ValueError: {'x' * 500}"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line

"""Running work that pauses."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from gs_search.system.generators import returned


def counting(end: int, seen: list[int]) -> Generator[int, None, str]:
    for number in range(end):
        seen.append(number)
        yield number
    if end > 5:
        raise ValueError("too many")
    return f"{end} pauses"


def test_what_it_returns_and_what_it_raises() -> None:
    seen: list[int] = []
    assert returned(counting(3, seen)) == "3 pauses" and seen == [0, 1, 2]
    assert returned(counting(0, seen)) == "0 pauses"
    with pytest.raises(ValueError, match="too many"):
        returned(counting(6, seen))

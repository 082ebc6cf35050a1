"""How many processes Tune keeps, asked of Tune's own cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.utils.object_cache import _ObjectCache

from gs_search.search.warm_processes import WarmProcesses

CORE = "a core"


def kept(cache: _ObjectCache) -> list[bool]:
    """Whether it keeps each of four processes whose trials end while none waits, before the cleaning that follows."""
    return [bool(cache.cache_object(CORE, number)) for number in range(4)]


@pytest.mark.parametrize("wrapped", [True, False], ids=["added", "ended"])
def test_as_many_as_there_are_workers(wrapped: bool) -> None:
    cache = _ObjectCache(may_keep_one=True)
    assert kept(cache) == [True, False, False, False], "what Tune does by itself: one of them"
    cache = _ObjectCache(may_keep_one=True)
    controller: Any = SimpleNamespace(_actor_cache=cache)
    warm, trial = WarmProcesses(3), SimpleNamespace(placement_group_factory=CORE)
    for _ in range(5):  # trials come; the limit is raised once
        warm.keep(SimpleNamespace(_tune_controller=controller) if wrapped else controller, trial)
    assert kept(cache) == [True, True, True, False]
    assert list(cache.flush_cached_objects()) == []
    warm.release()
    warm.release()
    assert cache.total_max_objects == 0 and len(list(cache.flush_cached_objects(force_all=True))) == 3


def test_a_ray_without_such_a_cache_is_left_to_its_own_rule() -> None:
    warm = WarmProcesses(3)
    warm.keep(SimpleNamespace(), SimpleNamespace(placement_group_factory=CORE))
    warm.release()

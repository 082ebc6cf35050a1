"""How many processes Tune keeps, and who gets them; asked of Tune's own cache and scheduler."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.utils.object_cache import _ObjectCache

from gs_search.engine.scheduler import ParetoStopping, WarmProcesses
from gs_search.search.stopping import Rungs

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


def test_no_trial_takes_the_process_of_another_one_while_its_own_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune gives what gets idle to the trial that its scheduler chooses, and cancels what was being started for it."""
    first, second = (SimpleNamespace(status=Trial.PENDING, placement_group_factory=CORE) for _ in range(2))
    waiting = [first, second]
    controller: Any = SimpleNamespace(get_trials=lambda: waiting)
    assert FIFOScheduler().choose_trial_to_run(controller) is first, "what Tune does by itself"
    searcher: Any = SimpleNamespace(live={})
    ours = ParetoStopping(Rungs("off", 0.5), searcher, WarmProcesses(1))
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert ours.choose_trial_to_run(controller) is None
    now += 61
    assert ours.choose_trial_to_run(controller) is first, "the node that it was to start on has died"
    del waiting[0]
    assert ours.choose_trial_to_run(controller) is None, "the next one has its own time"
    waiting.clear()
    now += 61
    assert ours.choose_trial_to_run(controller) is None

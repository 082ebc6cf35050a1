"""Where trials may be placed. With nodes that come: ``tests/cluster/test_newcomers.py``."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ray.tune import PlacementGroupFactory

from gs_search.engine.ray import membership
from gs_search.engine.ray.membership import TrialPlace


def test_a_place_avoids_nodes_and_stays_one_and_the_same_to_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        membership, "placement_group", lambda bundles, **options: asked.append({"b": bundles, **options})
    )
    place = TrialPlace({"cpu": 2.0, "gpu": 0.0, "spot": 1.0})
    assert place.bundles == [{"CPU": 2.0, "spot": 1.0}]
    before = hash(place)
    twin = copy.deepcopy(place)
    place.avoided |= {"b" * 56, "a" * 56}
    assert twin.avoided == place.avoided and hash(place) == before and twin == place
    assert place == PlacementGroupFactory([{"CPU": 2.0, "spot": 1.0}])
    twin.to_placement_group()
    where = {"ray.io/node-id": f"!in({'a' * 56},{'b' * 56})"}
    assert asked == [{"b": place.bundles, "strategy": "PACK", "bundle_label_selector": [where]}]

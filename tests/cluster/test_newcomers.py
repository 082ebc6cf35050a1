"""Nodes that come while a search runs: those that will do get trials, another version of the package is passed over."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import check
from engine_studies import SPACE, write_study

from gs_search.results.run_folder import RunFolder
from tests.cluster.raylets import Node, RayCluster
from tests.cluster.test_run import driving

pytestmark = pytest.mark.timeout(600)

KEYS: dict[str, Any] = {"sampler": "random", "stopping": {"rule": "off"}}

PASSED_OVER = (
    r"node \S+ \({address}\) has gs-search \S+ \(source (\w{{8}})\), this machine \S+ \(source (\w{{8}})\); install "
    r"the same; it is passed over"
)


@pytest.fixture
def other_source(cluster: RayCluster) -> str:
    """Where nodes look for modules that have one line more in this package than the others."""
    other: Path = cluster.root / "late"
    shutil.copytree(cluster.code, other, dirs_exist_ok=True)
    with (other / "gs_search" / "front.py").open("a") as file:
        file.write("# one line more\n")
    return cluster.environment()["PYTHONPATH"].replace(str(cluster.code), str(other))


@pytest.fixture
def temporary(cluster: RayCluster) -> Iterator[list[Node]]:
    """Nodes that go with the test."""
    nodes: list[Node] = []
    yield nodes
    for node in nodes:
        if node.process.poll() is None:
            node.kill()


def test_one_that_will_not_do_is_passed_over(cluster: RayCluster, other_source: str, temporary: list[Node]) -> None:
    """Five trials at once for three cores: one waits for a place, and newcomers have one.

    Trials take longer than a process to begin, or else Tune has the one that waits begin in a process that is there.
    """
    study = write_study(cluster.root / "joined", {**SPACE, "distill_weight": 10000.0}, trials=18, workers=5, **KEYS)
    out = cluster.shared / "joined"
    with driving(cluster, study, out) as driver:
        driver.wait_for(2)
        temporary.append(cluster.add(PYTHONPATH=other_source))
        pattern = PASSED_OVER.format(address=re.escape(temporary[0].address))
        found = driver.wait_until(lambda: re.search(pattern, driver.said()))
        assert found[1] != found[2], "both versions"
        assert driver.finished() < 9
        temporary.append(cluster.add())
        code, summary = driver.end()
        said = driver.said()
        print(said)
    assert code == 0 and summary is not None and summary["states"]["COMPLETE"] == 18, said
    assert len(re.findall("it is passed over", said)) == 1, said
    check(study, out, 18)
    ids = {record.node["id"] for record in RunFolder(out).results()}
    assert len(ids) == 4, "the three, and the one that came later and will do"


def test_a_search_ends_when_no_other_node_is_left(
    cluster: RayCluster, other_source: str, temporary: list[Node]
) -> None:
    study = write_study(cluster.root / "alone", {**SPACE, "distill_weight": 8000.0}, trials=9, workers=4, **KEYS)
    out = cluster.shared / "alone"
    with driving(cluster, study, out) as driver:
        driver.wait_for(2)
        temporary.append(cluster.add(PYTHONPATH=other_source))
        driver.wait_until(lambda: "it is passed over" in driver.said())
        for node in cluster.live():
            if node is not temporary[0]:
                node.kill()
        assert driver.end() == (1, None), driver.said()
        last = driver.said().splitlines()[-1]
    assert last.startswith("error: no node is left that will do; node ") and temporary[0].address in last, last
    temporary[0].kill()
    cluster.full()
    with driving(cluster, study, out) as driver:
        code, summary = driver.end()
        assert code == 0 and summary is not None, driver.said()
    assert summary["states"]["RUNNING"] == summary["states"]["WAITING"] == 0
    check(study, out, 9)

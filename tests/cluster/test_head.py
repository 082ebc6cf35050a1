"""The head of a cluster dies, and nothing else: the run ends with a line, its workers too; another cluster goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drivers import check, marks
from engine_studies import SPACE, write_study

from gs_search.engine.ray import watchdog
from tests.cluster.raylets import RayCluster
from tests.cluster.test_run import driving

pytestmark = pytest.mark.timeout(900)

TOTAL = 12

SILENT_S = 5
"""As patient as runs and workers are here, lest the test take minutes."""


@contextmanager
def another(root: Path, first: int) -> Iterator[RayCluster]:
    """A cluster of two nodes, that ends with the context."""
    root.mkdir()
    made = RayCluster(root, first)
    try:
        source = made.code / "gs_search" / "engine" / "ray" / "watchdog.py"
        wanted = f"SILENT_S = {watchdog.SILENT_S}"
        assert wanted in source.read_text()
        source.write_text(source.read_text().replace(wanted, f"SILENT_S = {SILENT_S}"))
        made.add()
        made.add()
        made.await_nodes()
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


def test_without_its_head_a_run_ends_and_goes_on_with_another(root: Path) -> None:
    """Trials take longer than a worker waits for the head: each is at one of them when it ends itself."""
    place = root / "heads"
    place.mkdir()
    study = write_study(
        place / "study", {**SPACE, "distill_weight": 10_000.0}, trials=TOTAL, workers=2, sampler="random",
        stopping={"rule": "off"},
    )  # fmt: skip
    out = place / "run"
    with another(place / "a", 50) as first, another(place / "b", 60) as second:
        for cluster, address in ((first, first.address), (second, second.client_address)):
            with driving(cluster, study, out, RAY_ADDRESS=address) as driver:
                driver.wait_for(driver.finished() + 2)
                begun = time.monotonic()
                cluster.head.kill()
                code, summary = driver.end()
                ended_s = time.monotonic() - begun
                said = driver.said()
            print(f"\n{address}: ended {ended_s:.0f} s after its head\n{said}")
            assert (code, summary) == (1, None), said
            assert ended_s < 60, "and not by Ray, in its way"
            (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
            assert "the head of the cluster" in line and "the same command goes on from there" in line
            assert "Traceback" not in said, said
        # Also of clusters whose nodes are still up, as these are, no worker goes on with what is begun anew elsewhere.
        with another(place / "c", 70) as third, driving(third, study, out) as driver:
            code, summary = driver.end(400)
            assert code == 0 and summary is not None and summary["finished"] == TOTAL, driver.said()
            time.sleep(5)
        assert summary["states"]["RUNNING"] == summary["states"]["WAITING"] == 0
        check(study, out, TOTAL)
        assert [step for what, _, _, step, _ in marks(out) if what == "begin" and step > 0], "from checkpoints"

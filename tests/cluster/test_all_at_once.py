"""All that may go away does, in one search: a node, the run and its disk, the database, the object store."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.postgres import Postgres
from tests.cluster.raylets import RayCluster
from tests.cluster.test_object_store import figures, finished
from tests.cluster.test_run import CENTRAL, gs_search, real_study, written_with
from tests.remote.s3 import KEYS, S3Server

pytestmark = pytest.mark.timeout(3000)

STEPS = 600
"""Of a trial, so that it takes half a minute: the outages are then an accident in it, and not all that it sees."""

DATABASE_AWAY_S, STORE_AWAY_S = 30, 20

WITHIN = 1.5
"""Times what the same search takes when it is left alone."""


@contextmanager
def searching(cluster: RayCluster, study: Path, uri: str, log: Path, **own: str) -> Iterator[subprocess.Popen[bytes]]:
    """The search, in a process of its own."""
    command = [sys.executable, "-m", "gs_search", "run", str(study), "--out", uri, "--address", cluster.address]
    environment = {**cluster.driver_environment(), **own}
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_search_that_loses_everything_once(cluster: RayCluster, s3: S3Server, postgres: Postgres) -> None:
    """Study in PostgreSQL, run folder in S3; in the end it has what the search that was left alone has, bit for bit."""
    quiet, hard = (real_study(cluster.root / name, name, steps=STEPS) for name in ("alone", "stricken"))
    for study in (quiet, hard):  # which trial is left at a rung depends on which one came first
        study.write_text(f"{study.read_text()}stopping: {{rule: 'off'}}\n")
    storage = {"GS_SEARCH_STORAGE": postgres.url()}
    begun = time.monotonic()
    uri, log = s3.uri("runs/alone"), cluster.root / "alone.txt"
    with searching(cluster, quiet, uri, log, GS_SEARCH_CACHE=str(cluster.root / "alone-cache"), **storage) as process:
        assert process.wait(1200) == 0, log.read_text()
    calm_s = time.monotonic() - begun
    expected = figures(uri, cluster.root / "stranger")
    assert len(expected) == CENTRAL

    uri, log, cache = s3.uri("runs/stricken"), cluster.root / "stricken.txt", cluster.root / "stricken-cache"
    own = {"GS_SEARCH_CACHE": str(cache), **storage}
    begun = time.monotonic()
    events: list[str] = []

    def wait(process: subprocess.Popen[bytes], condition: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def event(what: str) -> None:
        events.append(f"{time.monotonic() - begun:.0f} s: {what}")

    def reached(count: int) -> Callable[[], bool]:
        return lambda: len(finished(s3, "runs/stricken")) >= count

    with searching(cluster, hard, uri, log, **own) as process:
        wait(process, reached(3))
        event("a node dies")
        cluster.live()[-1].kill()
        wait(process, reached(8))
        event("the run and its disk die")
    shutil.rmtree(cache)
    with searching(cluster, hard, uri, log, **own) as process:
        wait(process, reached(13))
        event("the database goes away")
        postgres.stop()
        time.sleep(DATABASE_AWAY_S)
        postgres.start()
        event("the database is back")
        wait(process, lambda: "the study database is back" in log.read_text())
        event("the run has noticed")
        wait(process, reached(18))
        event("the store goes away")
        s3.door.shut()
        time.sleep(STORE_AWAY_S)
        s3.door.open()
        event("the store is back")
        assert process.wait(1200) == 0, log.read_text()
    hard_s = time.monotonic() - begun
    said = log.read_text()
    print(f"\nleft alone {calm_s:.0f} s, stricken {hard_s:.0f} s: {hard_s / calm_s:.2f} times", *events, said, sep="\n")
    away = (
        "database cannot be reached",
        "database is back",
        r"stricken\S*: cannot be reached",
        r"stricken\S*: is back",
    )
    for line in away:
        assert re.search(line, said), (line, said)
    assert figures(uri, cluster.root / "stranger") == expected, "bit for bit the same students, whatever went away"

    status = gs_search(cluster, "status", uri, "--json", GS_SEARCH_CACHE=str(cluster.root / "onlooker"), **storage)
    told = json.loads(status.stdout)
    assert told["phase"] == "finished" and told["finished"] == told["states"]["COMPLETE"] == CENTRAL, told
    assert told["states"]["RUNNING"] == told["states"]["WAITING"] == 0
    left = s3.names("runs/stricken")
    assert not [name for name in left if name.startswith(("lock", "study.db", ".probe", "checkpoints/"))], left
    for secret in (postgres.password, *KEYS.values()):
        assert written_with(secret, cluster.root) == []
        assert not [name for name in left if secret.encode() in s3.get(f"runs/stricken/{name}")]
    assert hard_s <= WITHIN * calm_s, events

"""Searches on a cluster of three nodes: what is refused, and what is survived."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver, check, marks
from engine_studies import SPACE, write_study

from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import close_study
from gs_search.search.study_database import open_database
from gs_search.study.config import load_study
from gs_search.study.database_url import database_url
from tests.cluster.postgres import Postgres
from tests.cluster.raylets import RayCluster
from tests.conftest import SPACE as REAL_SPACE
from tests.conftest import STUDY as REAL_STUDY
from tests.test_readme import commands

pytestmark = pytest.mark.timeout(1200)

TRIAL_MS = 3000.0
CENTRAL = 24


@contextmanager
def driving(cluster: RayCluster, study: Path, out: Path, **environment: str) -> Iterator[Driver]:
    """A driver on the head, of trials that sleep and go on from a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(cluster.code))
        patch.chdir(cluster.root)  # which nodes look into for modules, too
        for name, value in {**cluster.driver_environment(), "RAY_ADDRESS": cluster.address, **environment}.items():
            patch.setenv(name, value)
        shutil.copytree(cluster.root / "home" / ".ray", out.parent / "home" / ".ray", dirs_exist_ok=True)
        driver = Driver(study, out, "resumable")
    try:
        yield driver
    finally:
        driver.process.kill()
        driver.process.communicate()


def gs_search(cluster: RayCluster, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gs_search", *arguments]
    return subprocess.run(
        command, env={**cluster.driver_environment(), **environment}, capture_output=True, text=True, timeout=600,
        cwd=cluster.root,
    )  # fmt: skip


def refused(cluster: RayCluster, study: Path, out: Path, **environment: str) -> str:
    """The line with which a run ends before it has begun."""
    done = gs_search(cluster, "run", str(study), "--out", str(out), **{"RAY_ADDRESS": cluster.address} | environment)
    assert done.returncode == 2, done.stderr
    assert not done.stdout and not (out / "trials").exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    return line


def test_a_folder_that_nodes_do_not_see_is_refused(cluster: RayCluster) -> None:
    if not cluster.isolated:
        pytest.skip("nodes share all folders here: no namespaces for this user")
    out = cluster.private / "run"
    line = refused(cluster, write_study(cluster.root / "local"), out)
    assert f"does not see the run folder {out}" in line and "(and 2 more like it)" in line


def test_a_wrong_token_and_an_address_where_nobody_is_are_refused(cluster: RayCluster) -> None:
    study = write_study(cluster.root / "token")
    assert "token" in refused(cluster, study, cluster.shared / "token", RAY_AUTH_TOKEN="0" * 64)
    nobody = "127.0.0.99:6379"
    line = refused(cluster, study, cluster.shared / "nobody", RAY_ADDRESS=nobody)
    assert f"--address {nobody}: nobody answers there" in line


def test_a_node_of_another_version_is_refused_with_both(cluster: RayCluster) -> None:
    other = cluster.root / "other"
    shutil.copytree(cluster.code, other)
    with (other / "gs_search" / "front.py").open("a") as file:
        file.write("# one line more\n")
    path = cluster.environment()["PYTHONPATH"].replace(str(cluster.code), str(other))
    node = cluster.add(PYTHONPATH=path)
    try:
        cluster.await_nodes()
        line = refused(cluster, write_study(cluster.root / "versions"), cluster.shared / "versions")
        assert node.address in line
        theirs, _, ours = line.partition(", this machine ")
        assert "(source " in theirs and "(source " in ours and theirs[-10:] != ours.partition(";")[0][-10:]
    finally:
        node.kill()


def test_over_ray_client_the_password_stays_here(cluster: RayCluster, postgres: Postgres) -> None:
    """Also the two studies of one database, the second of which has a password file instead."""
    study = write_study(cluster.root / "client", {**SPACE, "distill_weight": 2000.0}, trials=6, sampler="random")
    out = cluster.shared / "client"
    url = postgres.url()
    with driving(cluster, study, out, RAY_ADDRESS=cluster.client_address, GS_SEARCH_STORAGE=url) as driver:
        code, summary = driver.end()
        assert code == 0 and summary is not None and summary["states"]["COMPLETE"] == 6, driver.said()
    results = RunFolder(out).results()
    assert {r.model_extra["storage"] for r in results} == {None}, "workers do not know it"
    nodes = {r.node["id"] for r in results}
    assert 1 < len(nodes) <= 3 and {r.node["host"] for r in results} == {os.uname().nodename}

    second = write_study(cluster.root / "second", trials=2, sampler="random", study="second")
    with second.open("a") as file:
        file.write(f"storage: {postgres.url(password=False)}\n")
    password = {"PGPASSWORD": postgres.password}
    with driving(cluster, second, cluster.shared / "second", **password) as driver:
        code, summary = driver.end()
        assert code == 0 and summary is not None and summary["finished"] == 2, driver.said()
    status = gs_search(cluster, "status", str(cluster.shared / "second"), "--json", **password)
    assert json.loads(status.stdout)["finished"] == 2, status.stderr
    status = gs_search(cluster, "status", str(cluster.shared / "second"), "--debug")
    assert status.returncode == 2 and "refuses the login" in status.stderr, status.stderr
    wrong = url.replace(postgres.password, f"{postgres.password}x")
    status = gs_search(cluster, "status", str(cluster.shared / "second"), "--debug", GS_SEARCH_STORAGE=wrong)
    assert "Traceback" in status.stderr and postgres.password not in status.stderr
    holder = written_with(postgres.password, cluster.root)
    assert holder == [], "neither Ray's folders nor ours"

    same = write_study(cluster.root / "same", trials=2, sampler="random", study="second", seed=3)
    line = refused(cluster, same, cluster.shared / "same", GS_SEARCH_STORAGE=url)
    assert "another study 'second'" in line and str(cluster.shared / "second") in line


def written_with(secret: str, root: Path) -> list[Path]:
    """Files below a folder that hold a secret; PostgreSQL's own are its business."""
    files = [path for path in root.rglob("*") if path.is_file() and "postgres" not in path.relative_to(root).parts]
    assert len(files) > 100
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_nodes_the_run_and_the_server_die(cluster: RayCluster, postgres: Postgres) -> None:
    """Trials that sleep, so that each is killed in the middle of one, and goes on from its checkpoint."""
    keys: dict[str, Any] = {"trials": 16, "workers": 3, "sampler": "random", "study": "deaths"}
    study = write_study(cluster.root / "deaths", {**SPACE, "distill_weight": TRIAL_MS}, **keys)
    out = cluster.shared / "deaths"
    out.parent.mkdir(exist_ok=True)
    storage = {"GS_SEARCH_STORAGE": postgres.url()}
    with driving(cluster, study, out, **storage) as driver:
        driver.wait_for(2)
        # Its trial has passed a checkpoint.
        driver.wait_until(lambda: len({n for what, n, *_ in marks(out) if what == "begin"}) >= 4)
        time.sleep(TRIAL_MS / 2000)
        cluster.live()[-1].kill()
        driver.wait_until(lambda: driver.died() or "died before it began" in driver.said())
        driver.wait_for(6)
        driver.process.send_signal(signal.SIGKILL)
        assert driver.end() == (-signal.SIGKILL, None)
    with driving(cluster, study, out, **storage) as driver:
        before = driver.finished()
        driver.wait_for(before + 1)
        postgres.stop()
        time.sleep(30)
        postgres.start()
        code, summary = driver.end()
        assert code == 0 and summary is not None, driver.said()
        assert "the study database is back" in driver.said()
    assert summary["states"]["RUNNING"] == summary["states"]["WAITING"] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GS_SEARCH_STORAGE", postgres.url())
        check(study, out, 16)
    resumed = [step for what, _, _, step, _ in marks(out) if what == "begin" and step > 0]
    assert resumed, "a trial went on from its checkpoint"


def real_study(root: Path, name: str, *, steps: int = 2) -> Path:
    """24 real trials of some seconds, or of more steps."""
    root.mkdir()
    assert "steps: 2" in REAL_SPACE
    (root / "small_space.yaml").write_text(REAL_SPACE.replace("steps: 2", f"steps: {steps}"), encoding="utf-8")
    text = REAL_STUDY.replace("study: small", f"study: {name}").replace("trials: 3", f"trials: {CENTRAL}")
    path = root / f"{name}.yaml"
    path.write_text(f"{text}device: cpu\nsampler: random\nworkers: 3\n", encoding="utf-8")
    return path


def figures(out: Path) -> dict[str, Any]:
    """What the complete trials of a run came to, by point."""
    done = [record for record in RunFolder(out).results() if record.state == "COMPLETE"]
    return {r.key: (r.seed, r.objectives, r.kid, r.psnr_to_teacher) for r in done}


def test_real_trials_survive_all_of_it(cluster: RayCluster, postgres: Postgres) -> None:
    """The README's commands, twice: once left alone, once with a node, the run and the server killed."""
    quiet, hard = (real_study(cluster.root / name, name) for name in ("quiet", "hard"))
    storage = postgres.url()
    lines = commands("test: cluster run")
    replaced = {
        "postgresql://ME@SERVER/studies": storage, "HEAD:6379": cluster.address,
        "studies/quickstart.yaml": str(quiet), "/shared/runs/quickstart": str(cluster.shared / "quiet"),
    }  # fmt: skip
    for old, new in replaced.items():
        assert any(old in line for line in lines), old
        lines = [line.replace(old, new) for line in lines]
    begun = time.monotonic()
    done = cluster.shell(*lines, TMPDIR=str(cluster.private))
    calm_s = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert f"{CENTRAL}/{CENTRAL}" in done.stderr and "finished" in done.stdout
    expected = figures(cluster.shared / "quiet")
    assert len(expected) == CENTRAL

    out = cluster.shared / "hard"
    begun = time.monotonic()
    command = [sys.executable, "-m", "gs_search", "run", str(hard), "--out", str(out), "--address", cluster.address]
    environment = {**cluster.driver_environment(), "GS_SEARCH_STORAGE": storage}
    log = cluster.root / "hard.txt"

    def finished() -> int:
        return len(list(out.glob("trials/*/result.json")))

    def wait(process: subprocess.Popen[bytes], count: int) -> None:
        deadline = time.monotonic() + 400
        while finished() < count:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=file, stderr=file)
        try:
            wait(process, 3)
            cluster.live()[-1].kill()
            wait(process, 8)
            process.kill()
            process.wait()
            process = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=file, stderr=file)
            wait(process, 12)
            postgres.stop()
            time.sleep(30)
            postgres.start()
            assert process.wait(400) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    hard_s = time.monotonic() - begun
    print(f"\nquiet {calm_s:.0f} s, with a node, the run and the server killed {hard_s:.0f} s")
    assert figures(out) == expected, "bit for bit the same students, whatever died"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GS_SEARCH_STORAGE", storage)
        config = load_study(hard)
        database = open_database(RunFolder(out), config, url=database_url(config.storage), read_only=True)
        states = [trial.state.name for trial in database.trials()]
        assert database.counted() == CENTRAL and states.count("COMPLETE") == CENTRAL
        assert set(states) <= {"COMPLETE", "FAIL"}, "nothing runs, nothing waits"
        close_study(database.study)
    assert written_with(postgres.password, cluster.root) == []

"""A search whose run folder is in an S3 server: three nodes that share no folder, and all that may go away does."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gs_search.results.run_folder import RunFolder
from tests.cluster.raylets import RayCluster
from tests.cluster.test_run import CENTRAL, gs_search, real_study, written_with
from tests.remote.s3 import KEYS, S3Server
from tests.test_readme import commands

pytestmark = pytest.mark.timeout(1200)

AWAY_S = 20


def figures(uri: str, cache: Path) -> dict[str, Any]:
    """What the complete trials came to, by point, as somebody finds who has never seen the folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "GS_SEARCH_CACHE": str(cache)}.items():
            patch.setenv(name, value)
        results = RunFolder.find(uri).results()
    done = [record for record in results if record.state == "COMPLETE"]
    return {r.key: (r.seed, r.objectives, r.kid, r.psnr_to_teacher) for r in done}


def test_nothing_is_lost_without_a_shared_folder(cluster: RayCluster, s3: S3Server) -> None:
    """The README's commands, left alone; then once more with a node, the run and its disk, and the store gone."""
    quiet, hard = (real_study(cluster.root / f"store-{name}", name) for name in ("quiet", "hard"))
    uri = s3.uri("runs/quiet")
    lines = commands("test: cluster store")
    replaced = {
        "HEAD:6379": cluster.address,
        "studies/quickstart.yaml": str(quiet),
        "s3://bucket/runs/quickstart": shlex.quote(uri),
    }  # fmt: skip
    for old, new in replaced.items():
        assert any(old in line for line in lines), old
        lines = [line.replace(old, new) for line in lines]
    own = {"TMPDIR": str(cluster.private), "GS_SEARCH_CACHE": str(cluster.root / "head-cache")}
    begun = time.monotonic()
    done = cluster.shell(*lines, **own)
    calm_s = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert f"{CENTRAL}/{CENTRAL}" in done.stderr and "finished" in done.stdout
    expected = figures(uri, cluster.root / "stranger")
    assert len(expected) == CENTRAL
    hosts = {json.loads(s3.get(f"runs/quiet/{name}"))["node"]["id"] for name in finished(s3, "runs/quiet")}
    assert len(hosts) > 1, "several nodes had trials"

    uri, cache = s3.uri("runs/hard"), cluster.root / "lost-cache"
    command = [sys.executable, "-m", "gs_search", "run", str(hard), "--out", uri, "--address", cluster.address]
    environment = {**cluster.driver_environment(), "GS_SEARCH_CACHE": str(cache)}
    log = cluster.root / "store-hard.txt"

    def wait(process: subprocess.Popen[bytes], count: int) -> None:
        deadline = time.monotonic() + 400
        while len(finished(s3, "runs/hard")) < count:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    begun = time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=file, stderr=file)
        try:
            wait(process, 3)
            cluster.live()[-1].kill()
            wait(process, 8)
            busy = gs_search(cluster, *command[3:], GS_SEARCH_CACHE=str(cluster.root / "second"))
            assert busy.returncode == 2 and f"process {process.pid} on" in busy.stderr, busy.stderr
            process.kill()
            process.wait()
            shutil.rmtree(cache)
            process = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=file, stderr=file)
            wait(process, 15)  # three of them had to fail with the run
            s3.door.shut()
            time.sleep(AWAY_S)
            s3.door.open()
            assert process.wait(400) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    hard_s = time.monotonic() - begun
    said = log.read_text()
    print(f"\nquiet {calm_s:.0f} s; a node, the run and its disk, and for {AWAY_S} s the store gone: {hard_s:.0f} s")
    for line in ("cannot be reached .*trying again", "is back after"):
        assert len(re.findall(line, said)) == 1, said
    assert figures(uri, cluster.root / "stranger") == expected, "bit for bit the same students, whatever went away"

    status = gs_search(cluster, "status", uri, "--json", GS_SEARCH_CACHE=str(cluster.root / "onlooker"))
    told = json.loads(status.stdout)
    assert told["phase"] == "finished" and told["finished"] == told["states"]["COMPLETE"] == CENTRAL, told
    assert told["states"]["RUNNING"] == told["states"]["WAITING"] == 0 and told["folder"] == uri
    left = s3.names("runs/hard")
    assert "lock" not in left and not [name for name in left if name.startswith((".probe", "checkpoints/"))], left
    for secret in KEYS.values():
        assert written_with(secret, cluster.root) == []
        assert not [name for name in left if secret.encode() in s3.get(f"runs/hard/{name}")]


def finished(s3: S3Server, below: str) -> list[str]:
    return [name for name in s3.names(below) if re.fullmatch(r"trials/\d+/result.json", name)]

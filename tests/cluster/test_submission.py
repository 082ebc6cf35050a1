"""A study handed over as a job: the README's line, to a real server of jobs."""

from __future__ import annotations

import json

import pytest

from gs_search.results.run_folder import RunFolder
from tests.cluster.raylets import RayCluster
from tests.cluster.test_run import real_study
from tests.test_readme import commands

pytestmark = pytest.mark.timeout(600)


def test_a_submitted_study_runs_on_the_cluster_and_tells_how_it_ended(cluster: RayCluster) -> None:
    cluster.full()
    study, out = real_study(cluster.root / "sent", "sent"), cluster.shared / "sent"
    (line,) = commands("test: cluster submit")
    replaced = {
        "studies/quickstart.yaml": str(study), "/shared/runs/quickstart": str(out),
        "http://127.0.0.1:8265": f"http://127.0.0.1:{cluster.jobs_port}",
    }  # fmt: skip
    for old, new in replaced.items():
        assert old in line
        line = line.replace(old, new)
    done = cluster.shell(f"{line} --trials 3 --json", RAY_AUTH_MODE="token", TMPDIR=str(cluster.private))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["run_folder"]) == ("SUCCEEDED", str(out))
    assert "[3/3]" in done.stderr  # its log was followed
    assert "Uploading" not in done.stderr
    assert [record.state for record in RunFolder(out).results()] == ["COMPLETE"] * 3

    failed = cluster.shell(line.replace(str(out), "/proc/nowhere"), RAY_AUTH_MODE="token", TMPDIR=str(cluster.private))
    assert failed.returncode == 1 and "ended as FAILED; its log: ray job logs raysubmit_" in failed.stderr

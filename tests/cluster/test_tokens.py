"""A cluster that lets everyone in, at an address that others could reach: in a network of its own, where nobody is."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.cluster.raylets import OWN_NAMESPACES, RayCluster, free_port
from tests.cluster.test_run import real_study

pytestmark = pytest.mark.timeout(300)

ADDRESS = "10.77.0.1"

OWN_NETWORK = (*OWN_NAMESPACES, "--net")

UP = f"ip link set lo up && ip addr add {ADDRESS}/32 dev lo"


def networks_allowed() -> bool:
    """Whether processes can have a network of their own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*OWN_NETWORK, "sh", "-c", UP], capture_output=True).returncode == 0


def test_a_cluster_without_tokens_is_refused_unless_one_insists(cluster: RayCluster) -> None:
    if not networks_allowed():
        pytest.skip("no network namespaces for this user")
    study, out, port = real_study(cluster.root / "open", "open"), cluster.shared / "open", free_port()
    run = [sys.executable, "-m", "gs_search", "run", str(study), "--out", str(out), "--address", f"{ADDRESS}:{port}"]
    start = [
        "ray", "start", "--head", f"--node-ip-address={ADDRESS}", f"--port={port}", "--num-cpus=1", "--num-gpus=0",
        "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={cluster.root / 'open-ray'}",
        "--object-store-memory=80000000",
    ]  # fmt: skip
    lines = [
        UP,
        f"{shlex.join(start)} >/dev/null 2>&1",
        f"{shlex.join(run)} && exit 9 || echo $? >&2",
        f"test ! -e {shlex.quote(str(out / 'trials' / '0'))}",
        shlex.join([*run, "--insecure", "--trials", "1", "--json"]),
    ]
    done = subprocess.run(
        [*OWN_NETWORK, "bash", "-euo", "pipefail", "-c", "\n".join(lines)], cwd=cluster.root, capture_output=True,
        text=True, timeout=250, env={**cluster.driver_environment(), "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Ray says that it finds no network.
    refusal, code, *rest = [line for line in done.stderr.splitlines() if "network_util" not in line]
    assert refusal.startswith("error: node ") and f"({ADDRESS}) lets everyone in who reaches it" in refusal
    assert "RAY_AUTH_MODE=token" in refusal and "--insecure" in refusal and code == "2", done.stderr
    summary = json.loads(done.stdout)
    assert summary["states"]["COMPLETE"] == 1, rest

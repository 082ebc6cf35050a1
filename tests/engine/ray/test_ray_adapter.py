"""What is taken from Ray without a public name does what it is taken for, in the version that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from gs_search.engine.ray import ray_adapter
from gs_search.engine.ray.ray_adapter import dead_processes, own_node, standing_in_for_a_node

WRITTEN_FOR = "2.60"
"""Ray's version. Another one that passes these tests and those of ``-m cluster`` will do; then say here which."""


def test_the_version_is_the_one_that_it_was_written_for() -> None:
    assert ray.__version__.startswith(WRITTEN_FOR), f"look at {ray_adapter.__name__} and at these tests again"


ALONE = """
import os, signal, time
from gs_search.engine.ray.local import local_ray, scratch_folder
from gs_search.engine.ray.ray_adapter import asks_for_tokens, dead_processes, own_node

assert own_node() is None and dead_processes() == []
with scratch_folder() as scratch, local_ray(scratch, workers=1, device="cpu"):
    assert own_node() is not None and dead_processes() == []
    assert asks_for_tokens() in (True, False)
    (raylet,) = (process.process.pid for process in own_node().all_processes["raylet"])
    os.kill(raylet, signal.SIGKILL)
    end = time.monotonic() + 60
    while "raylet" not in dead_processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert "raylet" in dead_processes()
assert own_node() is None
"""
"""In a process of its own: others of these tests have a Ray in theirs."""


def test_the_node_of_this_process_and_what_has_died_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def test_tune_finds_a_place_for_its_files_without_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution.tune_controller import TuneController

    monkeypatch.setattr(ray._private.worker, "_global_node", None)  # whatever others have here
    with standing_in_for_a_node(tmp_path):
        assert own_node().get_session_dir_path() == str(tmp_path) and dead_processes() == []
    assert "_actor_cache" in TuneController.__init__.__code__.co_names, "what keep_warm raises the limit of"


@pytest.mark.parametrize("controller", [object(), None])
def test_a_tune_without_such_a_cache_keeps_its_own_rule(controller: object) -> None:
    assert ray_adapter.keep_warm(controller, "resources", 2) is None

"""Whole processes: killed at random moments, interrupted, and several that train together through Ray Train."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gs_search.results.run_folder import RunFolder
from gs_search.trial.run import run_trial
from tests import tiny_study
from tests.retrain.conftest import CHANGES, POINTS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

LASTING = ("student.safetensors", "last.safetensors", "curve.csv", "samples.png")
STEPS = 120


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Measured by the real Inception network: other processes know no other."""
    place = tmp_path_factory.mktemp("killed")
    retrain = CHANGES["retrain"] | {"steps": STEPS, "looks": 3}
    config, folder = tiny_study.prepared(place, **CHANGES | {"retrain": retrain})
    run_trial(POINTS[0], config, folder, number=0, seed=5)
    return folder


@pytest.fixture
def copy(study: RunFolder, tmp_path: Path) -> Callable[[str], RunFolder]:
    def make(name: str) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        for entry in study.path.iterdir():
            (folder.path / entry.name).symlink_to(entry)
        return folder

    return make


def command(folder: RunFolder, *options: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "gs_search", "retrain", str(folder.path), "--trial", "0", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, error = process.communicate(timeout=600)
    return process.returncode, output, error


def step(folder: RunFolder) -> int:
    try:
        return int(json.loads((folder.retrained(0) / "progress.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


def wait_for(process: subprocess.Popen[str], met: Callable[[], bool]) -> None:
    while process.poll() is None and not met():
        time.sleep(0.02)


def assert_same(one: RunFolder, other: RunFolder) -> None:
    for name in LASTING:
        assert (one.retrained(0) / name).read_bytes() == (other.retrained(0) / name).read_bytes(), name


def test_killed_at_three_random_moments_it_ends_in_the_same_weights(copy: Callable[[str], RunFolder]) -> None:
    whole, killed = copy("whole"), copy("killed")
    assert finish(command(whole))[0] == 0
    chance = random.Random()
    seed = chance.randrange(10**6)
    chance.seed(seed)
    print("seed", seed)  # pytest shows it where the test fails
    thirds = [(1, STEPS // 3), (STEPS // 3, 2 * STEPS // 3), (2 * STEPS // 3, STEPS - STEPS // 10)]
    for moment in (chance.randrange(*third) for third in thirds):
        process = command(killed)
        wait_for(process, lambda moment=moment: step(killed) >= moment)  # type: ignore[misc]
        time.sleep(0.3 * chance.random())
        process.send_signal(signal.SIGKILL)
        code, output, error = finish(process)
        assert (code, output) == (-signal.SIGKILL, ""), error
        assert not (killed.retrained(0) / "result.json").exists()
    code, _, error = finish(command(killed))
    assert code == 0, error
    assert (killed.retrained(0) / "log.txt").read_text().count("goes on after step") in (2, 3)
    assert_same(whole, killed)
    names = {path.name for path in killed.retrained(0).iterdir()}
    assert not [name for name in names if name.startswith(".")] and "checkpoint.ckpt" not in names


def test_ctrl_c_is_130_and_the_command_that_goes_on_is_printed(copy: Callable[[str], RunFolder]) -> None:
    folder = copy("stopped")
    process = command(folder, "--steps", 100_000)
    wait_for(process, lambda: step(folder) > 2)
    process.send_signal(signal.SIGINT)
    code, output, error = finish(process)
    assert (code, output) == (130, "") and error.splitlines()[-1].endswith(f"retrain {folder.path} --trial 0")


def test_two_processes_end_in_the_bits_of_one_with_twice_the_pictures(copy: Callable[[str], RunFolder]) -> None:
    """Through Ray Train and gloo, quietly, with one interruption: the loss curve is the same to the last digit."""
    one, two = copy("one"), copy("two")
    assert finish(command(one, "--batch-size", 4))[0] == 0
    process = command(two, "--num-workers", 2)
    wait_for(process, lambda: step(two) >= 5)
    process.send_signal(signal.SIGINT)
    code, output, error = finish(process)
    assert (code, output) == (130, ""), error
    code, output, error = finish(command(two, "--json"))
    assert code == 0, error
    record = json.loads(output)["retrained"][0]
    assert (record["schedule"]["workers"], record["schedule"]["batch_size"]) == (2, 4)
    assert "goes on after step" in error and "Traceback" not in error and "ray" not in error.lower()
    assert_same(one, two)
    assert not [path.name for path in two.path.iterdir() if path.name not in {*os.listdir(one.path)}]


def test_too_many_gpus_are_refused(copy: Callable[[str], RunFolder], tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    folder = copy("gpus")
    resolved = yaml.safe_load(folder.resolved_yaml.read_text())
    resolved["study"]["device"] = "cuda"
    folder.resolved_yaml.unlink()
    folder.resolved_yaml.write_text(yaml.safe_dump(resolved, sort_keys=False))
    code, _, error = finish(command(folder, "--num-workers", 2))
    assert code == 2 and "PyTorch sees no GPU" in error

"""Two processes that train together see what one sees with all the pictures, and end in the same weights."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as processes

from gs_search.slimming import Lessons, Teacher, record_targets
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.run import Run
from gs_search.study.settings import SlimmingSettings
from tests.slimming.test_api import pictures
from tests.slimming.test_channels import Depthwise, randomised
from tests.slimming.test_checkpoint import EVERYTHING, real

PLAIN = SlimmingSettings(
    target_gflops_ratio=0.5,
    steps=12,
    slim_fraction=0.5,
    width_floor=2,
    batch_size=4,
    discriminator_width=4,
    learning_rate=1e-3,
    scale_learning_rate=0.05,
    discriminator_learning_rate=1e-3,
    precision="float32",
    weight_bits=32,
    activation_bits=32,
)
CASES = {
    "float": PLAIN,
    "proximal": replace(PLAIN, schedule="proximal"),
    "everything": replace(
        PLAIN, schedule="proximal", **EVERYTHING, weight_bits=4, activation_bits=8, weight_decay=1e-3, precision="bf16"
    ),
}


def train(settings: SlimmingSettings, team: Team, parts: int = 1) -> dict[str, Any]:
    """The curve, a row a step, and the student's tensors."""
    torch.set_num_threads(1)
    teacher = Teacher(randomised(Depthwise), 32)
    lessons = Lessons.in_memory(teacher, pictures())
    targets = record_targets(teacher.network, pictures())
    run = Run(teacher, settings, lessons, targets, 3, real, (0, 4), team=team, parts=parts, log_every=1)
    run.begin(1.0)
    while run.done < settings.steps:
        if run.phase == "slim" and run.done == run.slim_steps:
            run.cut(None)
        run.step()
        if run.done in run.ends[1:-1]:
            run.start_stretch()
    return {"curve": run.curve, "tensors": run.network.state_dict(), "fakes": run.adversary.state_dict()["buffer"]}


def work(rank: int, size: int, port: int, name: str, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    torch.save(train(CASES[name], Team.of_group()), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "everything" else pytest.mark.slow) for name in CASES]
)
def test_two_processes_are_as_one_with_all_the_pictures(name: str, tmp_path: Path) -> None:
    """To the last bit, where that one takes them in two parts; else to rounding, while no weights are quantized."""
    processes.spawn(work, (2, free_port(), name, str(tmp_path)), nprocs=2)
    one = train(CASES[name], ALONE, parts=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert [row["step"] for row in one["curve"]] == list(range(1, 13))
    assert first["curve"] == second["curve"] == one["curve"]
    for tensors in (first["tensors"], second["tensors"]):
        assert not [name for name, tensor in tensors.items() if not torch.equal(tensor, one["tensors"][name])]
    assert torch.equal(first["fakes"]["pictures"], one["fakes"]["pictures"])
    if name in ("float", "proximal"):
        whole = train(CASES[name], ALONE)
        for row, wanted in zip(first["curve"], whole["curve"], strict=True):
            assert row.pop("phase") == wanted.pop("phase")
            assert row == pytest.approx(wanted, abs=1e-4)

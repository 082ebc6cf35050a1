"""Addresses of clusters, and how many trials their nodes have room for."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from gs_search.engine.ray import cluster as connection
from gs_search.engine.ray.cluster import cluster_address, plan_cluster
from gs_search.errors import BadInput
from gs_search.study.config import ResourcesConfig

CPU_NODE, GPU_NODE = {"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "ray://head:10001", "[::1]:6379"])
def test_addresses(address: str) -> None:
    assert cluster_address(address) == address


@pytest.mark.parametrize("address", [None, "", "local"])
def test_this_machine_alone(address: str | None) -> None:
    assert cluster_address(address) is None


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "http://head:8265", "ray://head", "head:port"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BadInput, match="--address: must be auto, HOST:PORT or ray://HOST:PORT"):
        cluster_address(address)


def test_a_head_that_is_down_is_said_at_once() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"--address ray://{address}: nobody answers there"):
            connection._knock(f"ray://{address}")


@pytest.mark.parametrize(
    ("workers", "device", "nodes", "resources", "expected"),
    [
        ("auto", "auto", [CPU_NODE, CPU_NODE], {}, (16, "cpu", 1.0, 0.0)),
        ("auto", "cpu", [CPU_NODE, GPU_NODE], {"cpu": 3}, (12, "cpu", 3.0, 0.0)),  # 2 and 10 whole ones
        ("auto", "auto", [CPU_NODE, GPU_NODE], {}, (4, "cuda", 1.0, 1.0)),  # nothing on the node without
        ("auto", "cuda", [GPU_NODE, GPU_NODE], {"gpu": 0.25}, (32, "cuda", 1.0, 0.25)),
        ("auto", "cuda", [GPU_NODE], {"gpu": 1 / 3}, (12, "cuda", 1.0, 1 / 3)),
        (100, "cuda", [], {}, (100, "cuda", 1.0, 1.0)),  # an autoscaler brings them
        (6, "auto", [CPU_NODE], {}, (6, "cpu", 1.0, 0.0)),
    ],
)
def test_room(
    workers: int | str, device: str, nodes: list[dict[str, float]], resources: object, expected: object
) -> None:
    plan = plan_cluster(workers, device, nodes, ResourcesConfig.model_validate(resources, strict=False))
    assert (plan.workers, plan.device, plan.resources["cpu"], plan.resources["gpu"]) == expected


def test_custom_resources_bound_the_room_and_travel_with_a_trial() -> None:
    resources = ResourcesConfig(custom={"spot": 1.0, "accelerator_type:A100": 0.01})
    nodes = [{**GPU_NODE, "spot": 3.0, "accelerator_type:A100": 1.0}, {**GPU_NODE, "spot": 3.0}]
    plan = plan_cluster("auto", "cpu", nodes, resources)
    assert plan.workers == 3
    assert plan.resources == {"cpu": 1.0, "gpu": 0.0, "spot": 1.0, "accelerator_type:A100": 0.01}


def test_no_room_is_said() -> None:
    with pytest.raises(BadInput, match=r"no node .* takes CPU 1, GPU 1; change resources"):
        plan_cluster("auto", "cuda", [CPU_NODE], ResourcesConfig())


def test_gpus_are_shared_as_their_memory_and_the_cores_of_their_nodes_allow() -> None:
    nodes = [GPU_NODE, GPU_NODE, CPU_NODE]
    plan = plan_cluster("auto", "auto", nodes, ResourcesConfig()).packed({"trial_mb": 5000.0, "total_mb": 80_000.0})
    assert plan.workers == 8 * 8, "eight cores for each of eight GPUs, though memory would do for twelve trials"
    assert plan.resources == {"cpu": 1.0, "gpu": 1 / 8}
    fixed = plan_cluster("auto", "auto", nodes, ResourcesConfig(gpu=0.5)).packed(
        {"trial_mb": 1.0, "total_mb": 80_000.0}
    )
    assert fixed.workers == 16, "as the study says"


def test_what_is_printed_past_python_is_kept_off_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    with connection._hushed():
        os.write(2, b"from below\n")
    print("from above", file=sys.stderr)
    assert capfd.readouterr().err == "from above\n"

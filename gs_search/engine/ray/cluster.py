"""Using a Ray cluster that others have started: connecting, checking its nodes, planning, and letting go of it.

The driver is a process of this machine: a node of the cluster (``auto``, ``HOST:PORT``), or any machine that reaches
it and the run folder (``ray://HOST:10001``). Nothing is started or stopped but the study's own actors.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gs_search.engine.ray.local import ENVIRONMENT, Plan
from gs_search.engine.ray.nodes import able, fits, is_gone, look_around, marked
from gs_search.engine.ray.ray_adapter import own_node, standing_in_for_a_node
from gs_search.engine.ray.watchdog import watched_head
from gs_search.errors import BadInput

if TYPE_CHECKING:
    from gs_search.study.config import ResourcesConfig

__all__ = ["Cluster", "cluster_address", "connected", "plan_cluster"]

ANSWER_S = 10.0
"""How long the head may take to accept a connection."""


CLIENT_TRIES = 3


class Cluster:
    """The Ray that a study uses: on this machine, or on many.

    Args:
        told: what workers are told, see ``nodes.Told``; None on this machine.
        known: ids of nodes that will do.
        insecure: nodes that let everyone in will do too.
    """

    def __init__(
        self,
        plan: Plan,
        told: Mapping[str, Any] | None = None,
        known: Collection[str] = (),
        *,
        insecure: bool = False,
    ) -> None:
        self.plan, self.told = plan, dict(told or {})
        self.known, self.insecure = frozenset(known), insecure

    def is_gone(self, address: str) -> bool:
        """Whether the machine of an address has died; a cluster takes some seconds to notice."""
        return bool(self.told) and is_gone(address)


def cluster_address(address: str | None) -> str | None:
    """Check the form of an address; None where Ray shall run on this machine alone.

    Raises:
        BadInput: it is none of ``auto``, ``HOST:PORT`` and ``ray://HOST:PORT``.
    """
    if not address or address == "local":
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (host and port.isdigit() and "/" not in host):
        raise BadInput(f"--address: must be auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    return address


@contextmanager
def connected(
    address: str,
    folder: str,
    scratch: Path,
    *,
    workers: int | str,
    device: str,
    resources: ResourcesConfig,
    insecure: bool,
    note: Callable[[str], None],
) -> Iterator[Cluster]:
    """Be connected to a cluster whose nodes will do.

    Args:
        address: see ``cluster_address``.
        folder: the run folder: its absolute path, or its URI.
        scratch: for files of this process.
        insecure: a cluster without token authentication will do.

    Raises:
        BadInput: nobody answers there, the token is missing or wrong, or a node will not do.
    """
    _set_environment()
    _knock(address)
    import ray

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _init(address)
    with watched_head(_door(address), note), closing(SimpleNamespace(close=ray.shutdown)):
        with marked(folder) as told:
            found = look_around(told, able(resources.custom), insecure=insecure)
            plan = plan_cluster(workers, device, [node["Resources"] for node, _ in found], resources)
            kinds = {(one["cpu"], one["gpu"] if plan.device == "cuda" else None) for _, one in found}
            note(f"{len(found)} nodes of {len(kinds)} kind{'s' * (len(kinds) > 1)} for trials, at {address}")
            if len(kinds) > 1:
                note("times and latencies compare only among trials of one kind of node; result.json names it")
            with _standing_in(address, scratch):
                yield Cluster(plan, told, frozenset(node["NodeID"] for node, _ in found), insecure=insecure)


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given and "ray" not in sys.modules:  # Ray reads it when imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _init(address: str) -> None:
    """``ray.init``, again where the head of a busy machine took too long to start its end of a ``ray://``."""
    import ray

    for left in reversed(range(CLIENT_TRIES)):
        try:
            with _hushed():
                ray.init(address, configure_logging=False, log_to_driver=False)
            for name in list(logging.root.manager.loggerDict):  # each of these has a level of its own
                if name.startswith("ray.util.client"):
                    logging.getLogger(name).setLevel(logging.CRITICAL)
            return
        except Exception as error:
            text = str(error)
            if left and "Starting Ray client server failed" in text:
                ray.shutdown()
                continue
            said = "Traceback (most recent call last)" in text and text.rstrip().splitlines()[-1] or text
            reason = " ".join(said.split())[:300] or type(error).__name__
            advice = "does this process know the token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)?"
            raise BadInput(f"--address {address}: {reason}; {advice}") from None


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep off the screen what Ray's own code prints there: a line for every second of a wrong token."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _standing_in(address: str, scratch: Path) -> Iterator[None]:
    """Have Tune find a place for its files where no part of Ray runs on this machine."""
    if not address.startswith("ray://") or own_node() is not None:
        yield
        return
    with standing_in_for_a_node(scratch):
        yield


def _knock(address: str) -> None:
    """Find out at once that nobody is there; Ray takes two minutes, and then ends the process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"--address {address}: nobody answers there ({error}); is the head of the cluster up?") from None


def _door(address: str) -> str:
    """Where the head answers, as ``HOST:PORT``."""
    import ray

    if address != "auto":
        return address.removeprefix("ray://")
    return str(ray.get_runtime_context().gcs_address)


def plan_cluster(
    workers: int | str, device: str, nodes: Sequence[Mapping[str, float]], resources: ResourcesConfig
) -> Plan:
    """Settle how many trials run at once, and what each takes.

    ``auto`` is what the nodes have room for now; a number may be more, and is what an autoscaler then brings nodes for.

    Args:
        nodes: their resources, as Ray has them.

    Raises:
        BadInput: ``workers`` is ``auto``, and no trial fits on any node.
    """
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    on_gpus = device == "cuda" or device == "auto" and gpus > 0
    trial = {"CPU": resources.cpu, "GPU": (resources.gpu or 1.0) if on_gpus else 0.0, **resources.custom}
    room = sum(fits(node, trial) for node in nodes)
    auto = not isinstance(workers, int)
    if auto and not room:
        wanted = ", ".join(f"{name} {amount:g}" for name, amount in trial.items() if amount)
        raise BadInput(
            f"no node of the cluster has room for a trial, which takes {wanted}; change resources of the study, or "
            "set workers to a number, and the trials wait for nodes"
        )
    count = workers if isinstance(workers, int) else room
    cores = sum(node.get("CPU", 0.0) for node in nodes if not on_gpus or node.get("GPU"))
    return Plan(
        count,
        "cuda" if on_gpus else "cpu",
        max(1, round(gpus)),
        auto=auto and resources.gpu is None and not resources.custom,
        cores=int(cores / resources.cpu),
        resources={name.lower() if name in ("CPU", "GPU") else name: amount for name, amount in trial.items()},
    )

"""How many trials main memory holds: on this machine by what is free now, on a cluster by what each node has.

On a cluster every trial asks Ray for its memory, so that a node takes as many as fit. On one machine the plan is made
smaller instead: Ray would count what the machine has, not what other processes have left of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gs_search.engine.ray.local import Plan
from gs_search.engine.ray.nodes import able, fits
from gs_search.errors import BadInput
from gs_search.results.record import Baselines
from gs_search.system.machine import Memory, memory, shared_memory_mb

if TYPE_CHECKING:
    from gs_search.study.config import ResourcesConfig

__all__ = ["fitted", "fitted_to_nodes", "killed_by_memory", "planned", "require_memory"]

WORKER_MB = 450.0
"""What a worker takes besides its trial: Ray's part of it, and pages of files that are no one else's."""

RESERVE_MB = 500.0
"""Left free beside all trials: the driver's and Ray's growth, and the files' cache that reading pictures needs."""

LEAST_MB = 900.0
"""No study is prepared in less: PyTorch and Inception take about so much before the first picture."""

REMEDY = "free memory, or raise the container's limit; a smaller batch_size or image_px takes less"


def planned(plan: Plan, prepared: Baselines, nodes: ResourcesConfig | None, note: Callable[[str], None]) -> Plan:
    """The plan, as the memory of GPUs and of machines allows.

    Args:
        prepared: what the preparation has measured.
        nodes: of the study, where trials run on a cluster; None on this machine.
    """
    plan, needed = plan.packed(prepared.gpu_memory), prepared.memory
    if nodes is None:
        plan, line = fitted(plan, needed, memory())
    else:
        plan, line = fitted_to_nodes(plan, needed, able(nodes.custom))
    if line is not None:
        note(line)
    return plan


def fitted(plan: Plan, needed: Mapping[str, float] | None, free: Memory | None) -> tuple[Plan, str | None]:
    """The plan with as many workers as there is room for, at most those that it has.

    Args:
        needed: ``memory`` of the baselines, of which ``trial_mb`` is read; None in folders of earlier versions.
        free: what this process may use, before any trial has begun; None where the system does not tell.

    Returns:
        The plan, and a line about it where it has become smaller.

    Raises:
        BadInput: not even one trial fits.
    """
    if not needed or free is None:
        return plan, None
    trial = needed["trial_mb"]
    if free.available_mb < trial:
        raise BadInput(f"memory: a trial takes about {_gb(trial)}, and {_there(free)}; {REMEDY}")
    room = max(1, int((free.available_mb - RESERVE_MB) // (trial + WORKER_MB)))
    if room >= plan.workers:
        return plan, None
    line = f"memory for {room} of {plan.workers} workers: a trial takes about {_gb(trial)}, and {_there(free)}"
    return plan.smaller(room), line


def fitted_to_nodes(
    plan: Plan, needed: Mapping[str, float] | None, nodes: Sequence[Mapping[str, Any]]
) -> tuple[Plan, str | None]:
    """The plan whose trials ask Ray for their memory; ``auto`` becomes what the nodes then have room for.

    A number of workers stays: what does not fit now waits, also for nodes that come later.

    Args:
        needed: as of ``fitted``.
        nodes: of ``ray.nodes()``, those that may get trials.

    Raises:
        BadInput: ``workers`` is ``auto``, and no node has the memory of a trial.
    """
    if not needed:
        return plan, None
    each = needed["trial_mb"] + WORKER_MB
    asking = plan.asking({"memory": float(int(each * 1e6))})
    trial = {name.upper() if name in ("cpu", "gpu") else name: amount for name, amount in asking.resources.items()}
    room = sum(fits(node["Resources"], trial) for node in nodes)
    if room >= plan.workers:
        return asking, None
    most = max((node["Resources"].get("memory", 0.0) for node in nodes), default=0.0) / 1e6
    said = f"a trial takes about {_gb(each)}, and the node with the most memory has {_gb(most)} for Ray"
    if plan.auto and not room:
        raise BadInput(f"memory: {said}; start Ray with --memory on larger nodes, or lower batch_size or image_px")
    if plan.auto:
        return asking.smaller(room), f"memory for {room} of {plan.workers} workers: {said}"
    return asking, f"memory for {room} of {plan.workers} workers: {said}; the others wait for nodes"


def require_memory(free: Memory | None = None) -> None:
    """Raise BadInput where there is too little memory for any study, or none to share, before anything is made."""
    free = free or memory()
    if free is not None and free.available_mb < LEAST_MB:
        raise BadInput(f"memory: {_there(free)}, and the smallest study takes {_gb(LEAST_MB)}; {REMEDY}")
    if sys.platform == "linux" and shared_memory_mb() is None:  # a small one will do: Ray then takes its folder
        raise BadInput("/dev/shm: is missing or cannot be written to, and Ray needs it; mount a tmpfs there")


def killed_by_memory(free: Memory | None = None) -> str:
    """What to say of a process that something killed: mostly the kernel, for want of memory."""
    free = free or memory()
    now = f" ({_there(free)} now)" if free is not None else ""
    return f"probably for want of memory{now}: {REMEDY}"


def _there(free: Memory) -> str:
    limit = f", of the control group's {_gb(free.limit_mb)}" if free.limit_mb else f" of {_gb(free.total_mb)}"
    return f"{_gb(free.available_mb)} are free{limit}"


def _gb(megabytes: float) -> str:
    return f"{megabytes / 1e3:.1f} GB"

"""What Ray has and gives no public name: all uses of it in this package, in one place.

``tests/engine/ray/test_ray_adapter.py`` says for which version it was written, and what each of them has to do. Sent to
nodes by value (``nodes.ask``), so it imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["asks_for_tokens", "dead_processes", "keep_warm", "let_go", "own_node", "standing_in_for_a_node"]


def own_node() -> Any:
    """The part of Ray that this process has started on this machine; None where it has not, as over ``ray://``."""
    import ray

    private: Any = ray._private
    return private.worker._global_node


def dead_processes() -> list[str]:
    """Names of processes of ``own_node`` that have ended; any public question would go to one of them, and wait."""
    node = own_node()
    return [] if node is None else [str(name) for name, _ in node.dead_processes()]


@contextmanager
def standing_in_for_a_node(scratch: Path) -> Iterator[None]:
    """Tell Tune where its files go: it asks this machine's node, and over ``ray://`` there is none."""
    import ray

    worker: Any = ray._private.worker
    worker._global_node = SimpleNamespace(get_session_dir_path=lambda: str(scratch), dead_processes=lambda: [])
    try:
        yield
    finally:
        worker._global_node = None


def asks_for_tokens() -> bool:
    """Whether the Ray that runs on this machine asks whoever comes for a token."""
    import ray

    raylet: Any = ray._raylet
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)


def keep_warm(controller: Any, resources: Any, count: int) -> Any:
    """Have Tune keep so many more idle processes of these resources.

    Args:
        controller: as Tune passes it to a scheduler.

    Returns:
        What ``let_go`` takes; None where this version of Ray keeps no processes: its own rule holds then, and only time
        is lost.
    """
    cache = getattr(getattr(controller, "_tune_controller", controller), "_actor_cache", None)
    if cache is not None:
        cache.increase_max(resources, by=count)
    return cache


def let_go(cache: Any, resources: Any, count: int) -> None:
    """Undo ``keep_warm``."""
    cache.decrease_max(resources, by=count)

"""The machines of a Ray cluster: what each one is, and what speaks against using it.

A node has to see the run folder of this machine, and to have its versions: a trial that ran with others would give
numbers that nobody could compare. ``look_around`` asks all nodes that are there when a study begins, ``membership``
those that come later, and every worker asks itself. No Ray at import.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gs_search.engine.ray import ray_adapter
from gs_search.errors import BadInput
from gs_search.remote import is_remote

__all__ = [
    "PROBE", "Told", "able", "ask", "fits", "is_gone", "look_around", "machine", "marked", "named", "objection",
    "own_versions", "unfit",
]  # fmt: skip

PROBE = ".probe-"
"""Beginning of the names of files in a run folder by which nodes show that it is theirs too."""

PACKAGES = ("gs-search", "ray", "torch")

PATIENCE_S = 120.0
"""Longest that a node may take to answer; it has to start a process, and import nothing."""

NOTICED_S = 15.0
"""In which Ray notices that a node has died; by its defaults, five questions in a row that get no answer."""

Told = Mapping[str, Any]
"""What nodes are told: ``folder``, ``probe`` (the name of a file in it), its ``word``, and ``versions``."""


@contextmanager
def marked(place: str) -> Iterator[dict[str, Any]]:
    """Put a file with a word that nobody else knows into a run folder; yields what to tell nodes of it.

    Args:
        place: its absolute path, or its URI.
    """
    if is_remote(place):
        from gs_search.remote.joining import probed

        with probed(place, PROBE) as (name, word):
            yield {"folder": place, "probe": name, "word": word, "versions": own_versions()}
        return
    folder = Path(place)
    for stale in folder.glob(f"{PROBE}*"):
        stale.unlink(missing_ok=True)
    word = secrets.token_hex(16)
    probe = folder / f"{PROBE}{word[:8]}"
    try:
        probe.write_text(word, encoding="ascii")
        yield {"folder": str(folder), "probe": probe.name, "word": word, "versions": own_versions()}
    finally:
        for mark in folder.glob(f"{probe.name}*"):
            mark.unlink(missing_ok=True)


def own_versions() -> dict[str, str]:
    """Versions that numbers depend on, of this process; of this package with a digest of its source."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    spec = importlib.util.find_spec("gs_search")
    if spec is not None and spec.submodule_search_locations:
        root, digest = Path(spec.submodule_search_locations[0]), hashlib.sha256()
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
        found["gs-search"] = f"{found['gs-search']} (source {digest.hexdigest()[:8]})"
    elif found["gs-search"] != "not installed":
        found["gs-search"] = "cannot be imported"
    return found


def unfit(told: Told, mark: str = "") -> str | None:
    """What speaks against running trials in this process, or None; with ``mark`` it answers in the run folder too."""
    mine: dict[str, str] = own_versions()
    for name, wanted in told["versions"].items():
        if mine.get(name) != wanted:
            return f"has {name} {mine.get(name)}, this machine {wanted}; install the same"
    if "://" in told["folder"]:
        from gs_search.remote.joining import guest_problem

        return guest_problem(told["folder"], told["probe"], told["word"], mark)
    probe = Path(told["folder"]) / told["probe"]
    try:
        word = probe.read_text(encoding="ascii")
    except OSError:
        word = ""
    if word != told["word"]:
        return (
            f"does not see the run folder {told['folder']}; put it on a file system that all nodes "
            "share, or into an object store (--out s3://bucket/...)"
        )
    if mark:
        try:
            probe.with_name(f"{probe.name}.{mark}").write_text(told["word"], encoding="ascii")
        except OSError as error:
            return f"cannot write to the run folder {told['folder']} ({error.strerror})"
    return None


def machine(*, gpu: bool = True) -> dict[str, Any]:
    """What this machine is: ``host``, ``cpu`` (the model), ``gpu`` (models, or None); times compare within a kind.

    Args:
        gpu: GPUs matter.
    """
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    found = None
    if gpu:
        with suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=10)
            if said.returncode == 0:
                found = ", ".join(sorted(set(said.stdout.split("\n")) - {""})) or None
    return {"host": platform.node(), "cpu": " ".join(model.split()), "gpu": found}


def is_gone(address: str, patience_s: float = NOTICED_S) -> bool:
    """Whether no node of the cluster has an address any more."""
    import ray

    deadline = time.monotonic() + patience_s
    while any(node["Alive"] and node["NodeManagerAddress"] == address for node in ray.nodes()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def fits(node: Mapping[str, float], trial: Mapping[str, float]) -> int:
    """How many trials a node has room for.

    Args:
        node: its resources, as Ray has them.
        trial: what one takes.
    """
    wanted = {name: amount for name, amount in trial.items() if amount > 0}
    # A hair more, because thirds of a GPU add up to less than one.
    return min((int(node.get(name, 0.0) / amount + 1e-6) for name, amount in wanted.items()), default=0)


def able(custom: Mapping[str, float]) -> list[dict[str, Any]]:
    """Live nodes of the cluster that may get trials.

    Args:
        custom: resources that a trial takes, besides cores and GPUs.
    """
    import ray

    return [node for node in ray.nodes() if node["Alive"] and fits(node["Resources"], {"CPU": 1e-3, **custom})]


def _answer(told: Told, mark: str) -> dict[str, Any]:
    """What a node says of itself; runs on the node."""
    return {"problem": unfit(told, mark), "tokens": ray_adapter.asks_for_tokens(), "machine": machine()}


def ask(told: Told, nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Ask nodes of the cluster that this process is connected to what they are, without waiting.

    Args:
        told: see ``Told``.
        nodes: of ``ray.nodes()``.

    Returns:
        Their ids, and what Ray will have the answer of each in.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import gs_search.engine.ray.nodes as this

    # By value: whether the package is there, and the same, is the question.
    for module in (ray_adapter, this):
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        answer = ray.remote(num_cpus=0, max_retries=0)(_answer)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeID"]] = answer.options(scheduling_strategy=there).remote(told, node["NodeID"][:8])
    finally:
        for module in (ray_adapter, this):
            ray.cloudpickle.unregister_pickle_by_value(module)
    return asked


def named(node: Mapping[str, Any]) -> str:
    """A node, for people."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def objection(told: Told, node: Mapping[str, Any], said: Mapping[str, Any], *, insecure: bool) -> str | None:
    """What speaks against using a node that has answered, or None.

    Args:
        said: its answer.
        insecure: a cluster that lets everyone in will do.
    """
    if said["problem"]:
        return str(said["problem"])
    if not is_remote(told["folder"]):
        mark = Path(told["folder"]) / f"{told['probe']}.{node['NodeID'][:8]}"
        if not mark.is_file():
            return f"has another folder of the name {told['folder']}; share one (--out)"
    if not (said["tokens"] or insecure or node["NodeManagerAddress"].startswith("127.")):
        return "lets everyone in who reaches it: start Ray with RAY_AUTH_MODE=token on every node, or say --insecure"
    return None


def look_around(
    told: Told, nodes: Sequence[Mapping[str, Any]], *, insecure: bool
) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Ask nodes of the cluster that this process is connected to what they are, and wait for all of them.

    Args:
        told: see ``Told``.
        nodes: of ``ray.nodes()``; those that may get trials.
        insecure: a cluster that lets everyone in will do.

    Returns:
        Each that is alive, and its ``machine()``.

    Raises:
        BadInput: one of them will not do; the line names it, and why.
    """
    import ray

    asked = ask(told, nodes)
    found: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    problems: list[str] = []
    for node in nodes:
        try:
            said = ray.get(asked[node["NodeID"]], timeout=PATIENCE_S)
        except Exception as error:
            if not is_gone(node["NodeManagerAddress"]):  # it died a moment ago, and the cluster did not know yet
                problems.append(f"{named(node)} does not answer ({type(error).__name__})")
            continue
        found.append((node, said["machine"]))
        if problem := objection(told, node, said, insecure=insecure):
            problems.append(f"{named(node)} {problem}")
    if problems:
        more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
        raise BadInput(f"{problems[0]}{more}")
    return found

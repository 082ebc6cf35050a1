"""What a bug report needs to know of this installation and machine, and what ``auto`` decides here.

``info_document`` gathers it, whatever is missing or broken, and without changing anything; ``render_info`` prints it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gs_search
from gs_search.errors import BadInput, one_line
from gs_search.system import machine
from gs_search.system.files import cache_folder

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["info_document", "render_info"]

SCHEMA = 1

PACKAGES = ("torch", "torchvision", "ray", "optuna", "onnxruntime", "onnx", "numpy", "scipy", "pillow", "pytorch-fid")
"""Whose versions results or failures have depended on."""

VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES", "GS_SEARCH_CACHE", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA",
    "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR",
)  # fmt: skip
"""That change what runs or where; none of them holds a secret. Shown if set."""

DEVELOPERS = ("test",)
"""Extras that no user misses."""


def info_document() -> dict[str, Any]:
    """Everything, as one document; megabytes are 10^6 bytes, None is what the system does not tell."""
    memory = machine.memory()
    return {
        "schema": SCHEMA,
        "versions": {
            "gs-search": gs_search.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "system": {
            "platform": platform.platform(),
            "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        },
        "processor": {
            "name": machine.processor_name(),
            "architecture": platform.machine(),
            "instructions": list(machine.instructions()),
            "cores": machine.cores(),
            "cores_of_machine": os.cpu_count(),
        },
        "memory": {
            "total_mb": memory and round(memory.total_mb, 1),
            "available_mb": memory and round(memory.available_mb, 1),
            "limit_mb": memory and memory.limit_mb and round(memory.limit_mb, 1),
            "shared_memory_mb": (shared := machine.shared_memory_mb()) and round(shared, 1),
        },
        "gpus": [vars(gpu) for gpu in machine.gpus()],
        "precision": _precision(),
        "integer_kernels": _integer_kernels(machine.instructions(), platform.machine()),
        "folders": [_folder("cache", _cache), _folder("temporary files", lambda: Path(tempfile.gettempdir()))],
        "extras": _extras(importlib.metadata.requires("gs-search") or [] if _version("gs-search") else []),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _precision() -> dict[str, Any]:
    """What ``precision: auto`` is here, and what PyTorch makes of the machine; ``problem`` where it cannot be used."""
    try:
        import torch

        from gs_search.slimming.precision import decide

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(1)  # as trials have it
        decision = decide("auto", device)
        return {
            **decision.to_json(),
            "line": str(decision),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "problem": None,
        }
    except Exception as error:  # a broken installation is what the report may be about
        return {"precision": None, "problem": one_line(error)}


def _integer_kernels(instructions: tuple[str, ...], architecture: str) -> dict[str, Any]:
    """How 8-bit products are added up in ONNX Runtime's kernels."""
    if architecture.lower() in ("x86_64", "amd64", "i686"):
        vnni = any(name in instructions for name in machine.VNNI)
        line = (
            "VNNI: in 32 bits" if vnni else "no VNNI: pairs of u8 x s8 products are added in 16 bits, and may saturate"
        )
        return {"vnni": vnni, "saturates": not vnni, "line": line}
    dot = "asimddp" in instructions
    return {"vnni": False, "saturates": False, "line": "dot product instructions" if dot else "plain multiply-adds"}


def _cache() -> Path:
    return cache_folder()


def _folder(purpose: str, find: Any) -> dict[str, Any]:
    try:
        path = find()
    except BadInput as error:
        return {"purpose": purpose, "path": None, "problem": str(error)}
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    used = sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if purpose == "cache" else None
    return {
        "purpose": purpose,
        "path": str(path),
        "used_mb": None if used is None else round(used / 1e6, 1),
        "free_mb": round(shutil.disk_usage(there).free / 1e6, 1),
        "writable": os.access(there, os.W_OK),
        "problem": None,
    }


def _extras(requirements: list[str]) -> dict[str, dict[str, Any]]:
    """Of each optional part, whether it is installed, and which packages are missing."""
    wanted: dict[str, list[str]] = {}
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == [\"']([\w-]+)[\"']", requirement)
        if name and extra and extra[1] not in DEVELOPERS and name[0].lower() != "gs-search":
            wanted.setdefault(extra[1], []).append(name[0])
    missing = {extra: [name for name in names if _version(name) is None] for extra, names in wanted.items()}
    return {extra: {"installed": not lacking, "missing": lacking} for extra, lacking in missing.items()}


def render_info(document: dict[str, Any]) -> RenderableType:
    """The document on one screen."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(document):
        table.add_row(name, text)
    return table


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    versions, processor, memory = dict(document["versions"]), document["processor"], document["memory"]
    own, python = versions.pop("gs-search"), versions.pop("python")
    rows = [("gs-search", f"{own}, Python {python}, {document['system']['platform']}")]
    rows.append(("packages", ", ".join(f"{name} {version or '(missing)'}" for name, version in versions.items())))
    listed = " ".join(processor["instructions"]) or "none that matter here"
    rows.append(("processor", f"{processor['name']} ({processor['architecture']}): {listed}"))
    rows.append(("cores", f"{processor['cores']} for this process, of {processor['cores_of_machine']}"))
    limit = f", by the control group's limit of {_gb(memory['limit_mb'])}" if memory["limit_mb"] else ""
    rows.append(("memory", f"{_gb(memory['available_mb'])} free of {_gb(memory['total_mb'])}{limit}"))
    rows.append(("/dev/shm", f"{_gb(memory['shared_memory_mb'])} free"))
    gpus = [f"{gpu['name']}, {_gb(gpu['memory_mb'])}, driver {gpu['driver']}" for gpu in document["gpus"]]
    rows.append(("GPUs", "; ".join(gpus) or "none"))
    precision = document["precision"]
    rows.append(("auto", precision["problem"] or precision["line"]))
    rows.append(("integers", document["integer_kernels"]["line"]))
    for folder in document["folders"]:
        used = f"{_gb(folder['used_mb'])} in it, " if folder.get("used_mb") is not None else ""
        right = "" if folder.get("writable", True) else ", not writable"
        where = folder["problem"] or f"{folder['path']}: {used}{_gb(folder['free_mb'])} free{right}"
        rows.append((folder["purpose"], where))
    there = {name: "yes" if part["installed"] else "no" for name, part in document["extras"].items()}
    rows.append(("optional parts", ", ".join(f"{name} {word}" for name, word in there.items()) or "not known"))
    if environment := document["system"]["environment"]:
        rows.append(("environment", " ".join(f"{name}={value}" for name, value in environment.items())))
    return rows


def _gb(megabytes: float | None) -> str:
    return "unknown" if megabytes is None else f"{megabytes / 1e3:.1f} GB"

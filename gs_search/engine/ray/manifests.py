"""Files that start a cluster for one study: Ray's cluster launcher, KubeRay, Slurm.

Templates beside this module; what they cannot know (image, account, partition, shared folder) is marked ``CHANGE``.
"""

from __future__ import annotations

import json
import platform
import re
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from gs_search import __version__
from gs_search.engine.ray.jobs import SPACE, STUDY, stage
from gs_search.errors import BadInput
from gs_search.study.config import StudyConfig
from gs_search.system.files import write_file
from gs_search.system.templates import text_templates

__all__ = ["FILES", "render", "write_manifests"]

FILES = {"ray-cluster.yaml": "ray_cluster.yaml.jinja", "rayjob.yaml": "rayjob.yaml.jinja", "slurm.sh": "slurm.sh.jinja"}
"""What is written, and its template."""

CPU_WORKERS_A_NODE = 8
"""Cores of a node in the files; a trial takes one, and some two gigabytes."""


def render(config: StudyConfig, study: str, space: str) -> dict[str, str]:
    """The text of every file.

    Args:
        study, space: the texts of the study and of its space, as ``jobs.stage`` writes them.
    """
    environment = text_templates("gs_search.engine.ray")  # what comes from outside passes ``json`` or ``indent``
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    known = {**_numbers(config), "study": study, "space": space}
    return {name: environment.get_template(template).render(known) for name, template in FILES.items()}


def write_manifests(study: Path, out: Path, *, force: bool = False) -> list[Path]:
    """Write the files of a study into ``out/NAME-cluster``; those that are there are an error, unless ``force``.

    Raises:
        ConfigError: the study has mistakes.
        BadInput: there are such files, or the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="gs-search-init-") as place:
        config = stage(study, Path(place))
        texts = render(config, *((Path(place) / name).read_text(encoding="utf-8") for name in (STUDY, SPACE)))
    folder = out / f"{config.study}-cluster"
    paths = [folder / name for name in texts]
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise BadInput(f"{', '.join(there)}: exists; replace it with --force, or take another folder with --out")
    for path, text in zip(paths, texts.values(), strict=True):
        write_file(path, text.encode())
    return paths


def _numbers(config: StudyConfig) -> dict[str, Any]:
    gpu = config.device == "cuda"
    share = (config.resources.gpu or 1.0) if gpu else 0.0
    workers = config.workers if isinstance(config.workers, int) else 16
    a_node = max(1, int(1 / share)) if gpu else CPU_WORKERS_A_NODE
    name = re.sub(r"[^a-z0-9]+", "-", config.study.lower()).strip("-")[:40] or "study"  # as Kubernetes wants names
    return {
        "name": name,
        "version": __version__,
        "ray": metadata.version("ray"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "gpu": gpu,
        "nodes": -(-workers // a_node),
        "cores": max(1, round(a_node * config.resources.cpu)),
        "memory_gb": max(8, 3 * a_node),
        "custom": dict(config.resources.custom),
    }

"""A study as a job of Ray's: the package, the study and its space travel, and the run goes on without this machine.

The job runs ``gs-search run`` on the cluster's head. What Ray's own command line does with jobs (``ray job logs``,
``status``, ``stop``, ``list``) is left to it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import gs_search
from gs_search.errors import BadInput, GsSearchError, one_line
from gs_search.remote import is_remote
from gs_search.remote.location import checked
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.yaml_file import read_yaml

__all__ = ["Submission", "entrypoint", "follow", "stage", "submit"]

STUDY, SPACE = "study.yaml", "search_space.yaml"
"""What travels, by the names that it has in the job's working folder."""

SOURCE = "source"
"""Folder for the code of the user's, there."""

LOUD = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
"""Loggers of Ray that tell of every file that is uploaded."""

PORT = 8265
"""Where a head listens for jobs, unless it was started otherwise."""


@dataclass(frozen=True)
class Submission:
    """A job that a cluster has taken."""

    job: str
    address: str
    run_folder: str


def stage(study: Path, folder: Path) -> StudyConfig:
    """Write a study and its space into ``folder`` so that they mean the same there.

    Paths become absolute, and are those that every node has to have: pictures and checkpoints do not travel. The code
    that builds a teacher of kind ``module`` does, unless it is an installed package's.

    Raises:
        ConfigError: the study has mistakes.
    """
    config = load_study(study, here=False)
    raw: dict[str, Any] = dict(read_yaml(study, what="study file").value)
    raw["space"] = SPACE
    teacher = config.teacher
    for section, key, path in (
        ("data", "path", config.data.path),
        ("teacher", "path", teacher.path),
        ("teacher", "checkpoint", teacher.checkpoint),
    ):
        if path is not None:
            raw[section] = {**raw[section], key: str(path)}
    code = teacher.code(config.source.parent)
    if code is not None:
        code.copy_to(folder / SOURCE)  # not beside the study: that folder is on the job's sys.path
        raw["teacher"] = {**raw["teacher"], "factory": code.name if code.installed else f"{SOURCE}/{code.named}"}
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    (folder / STUDY).write_text(text, encoding="utf-8")
    assert config.space.source is not None  # it was read from a file
    shutil.copyfile(config.space.source, folder / SPACE)
    return config


def entrypoint(out: str, options: Sequence[str] = ()) -> str:
    """The job's command: a run on the cluster that the job is part of."""
    return shlex.join(["python", "-m", "gs_search", "run", STUDY, "--out", out, "--address", "auto", *options])


def submit(study: Path, *, address: str | None, out: str, options: Sequence[str] = ()) -> Submission:
    """Hand a study to a cluster, and return as soon as the cluster has taken it.

    Args:
        address: ``http://HEAD:8265`` of a cluster, or HEAD alone; None takes ``RAY_API_SERVER_ADDRESS``, or the
            cluster that runs on this machine.
        out: run folder: a path that all nodes share, or the URI of a folder in an object store.
        options: of ``gs-search run``.

    Raises:
        BadInput: the study has mistakes, ``out`` is a relative path, or nothing answers.
    """
    if is_remote(out):
        out = checked(out)
    elif not out.startswith("/"):
        raise BadInput(
            f"--out {out}: must be an absolute path, of a folder that all nodes of the cluster share, or the URI of a "
            "folder in an object store, as s3://bucket/runs/mine"
        )
    with tempfile.TemporaryDirectory(prefix="gs-search-submit-") as place:
        config = stage(study, Path(place))
        client = _client(address)
        try:
            job = client.submit_job(
                entrypoint=entrypoint(out, options),
                runtime_env={
                    "working_dir": place,
                    "py_modules": [str(Path(gs_search.__file__).parent)],
                    "excludes": ["**/__pycache__"],
                },
                metadata={"study": config.study, "run_folder": out},
            )
        except Exception as error:
            raise _refused(client.get_address(), error) from error
    return Submission(job=str(job), address=str(client.get_address()), run_folder=out)


def follow(submission: Submission, write: Callable[[str], None]) -> str:
    """Pass on what the job prints until it ends; return how: ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.

    Raises:
        GsSearchError: the cluster cannot be reached any more; the job may well go on.
    """

    async def read() -> None:
        async for text in client.tail_job_logs(submission.job):
            write(text)

    client = _client(submission.address)
    try:
        asyncio.run(read())
        return str(client.get_job_status(submission.job).value)
    except Exception as error:
        raise GsSearchError(
            f"job {submission.job}: its cluster does not answer any more ({one_line(error)}); it may go on without: "
            f"ray job status {submission.job} --address {submission.address}"
        ) from error


def _client(address: str | None) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise BadInput(f"submit needs what Ray's jobs need ({error}): pip install 'gs-search[cluster]'") from None
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    if address and "://" not in address:
        address = f"http://{address}" if re.search(r":\d+$", address) else f"http://{address}:{PORT}"
    try:
        return JobSubmissionClient(address)
    except Exception as error:
        raise _refused(address or "this machine", error) from error


def _refused(address: str, error: Exception) -> BadInput:
    return BadInput(
        f"{address}: the cluster takes no job: {one_line(error)}; it needs a head started with `ray start --head` "
        "where ray[default] is installed, and its token in RAY_AUTH_TOKEN if it asks for one"
    )

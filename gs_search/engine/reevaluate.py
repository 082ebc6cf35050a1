"""Running the members of a front again, with other seeds for training and other subsets of pictures for FID.

``reevaluate`` deals the missing repetitions out to worker processes, each with one computing thread; ``run_again`` is
what they do. Files are written whole: what is finished stays, what is not goes on from its checkpoint. ``repeats.py``
reads what lies there then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gs_search.engine.memory import fitted
from gs_search.engine.ray.local import plan_workers, worker_environment
from gs_search.errors import TrialFailed
from gs_search.results.record import SCHEMA, Baselines, TrialRecord, read_trial, write_record
from gs_search.results.repeats import SUBSETS_FILE, place_of, repeat_is_there, seed_of
from gs_search.results.run_folder import RESULT, RunFolder
from gs_search.search.outcomes import Asked, failure_record
from gs_search.system.files import write_json
from gs_search.system.machine import memory
from gs_search.system.process_pool import answers
from gs_search.system.text import duration

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["reevaluate", "run_again"]

SUBSETS = 20
"""Random halves of the validation pictures on which a student is measured."""


def reevaluate(
    folder: RunFolder,
    numbers: Sequence[int],
    seeds: int,
    *,
    workers: int | None = None,
    note: Callable[[str], None],
    function: str = "gs_search.engine.reevaluate:run_again",
) -> dict[str, int]:
    """Run trials again until each has ``seeds`` repetitions; those that are there are not run again.

    Args:
        numbers: of finished trials.
        workers: processes at once, instead of the study's.
        note: gets one line for each repetition.
        function: ``module:name`` of what a worker does, see ``run_again``.

    Returns:
        How many repetitions were ``run``, were there ``before``, and ``failed`` now.

    Raises:
        StudyBusy: a live process is at work in the folder.
        BadInput: the study cannot be computed here.
    """
    config = folder.config()
    with folder.lock():
        jobs = _missing(folder, numbers, seeds)
        before = len(numbers) * seeds - len(jobs)
        if not jobs:
            return {"run": 0, "before": before, "failed": 0}
        prepared = folder.measured()
        environments = _environments(config, config.workers if workers is None else workers, prepared, note)
        environments = environments[: len(jobs)]
        there = f"; {before} are there" if before else ""
        note(f"{len(jobs)} trainings to go, {len(environments)} at once{there}")
        started, failed = time.monotonic(), 0
        try:
            with answers(function, str(folder.path.resolve()), jobs, environments) as done:
                for count, (job, answer, problem) in enumerate(done, 1):
                    failed += answer is None or answer["state"] != "COMPLETE"
                    left = (time.monotonic() - started) / count * (len(jobs) - count)
                    rest = f", about {duration(left)} left" if count < len(jobs) else ""
                    told = f"trial {job['number']}, seed {job['k']}: {_told(answer, problem)}"
                    note(f"[{count}/{len(jobs)}] {told}{rest}")
        except KeyboardInterrupt:
            note("stopped; what is finished is kept, and the same command goes on")
            raise
    return {"run": len(jobs), "before": before, "failed": failed}


def _missing(folder: RunFolder, numbers: Sequence[int], seeds: int) -> list[dict[str, int]]:
    """One seed of all trials before the next seed of any: what is stopped early is then worth the same for all."""
    results = {number: folder.result(number) for number in numbers}
    return [
        {"number": number, "k": k}
        for k in range(1, seeds + 1)
        for number in numbers
        if not repeat_is_there(folder, results[number], k)
    ]


def _told(answer: Mapping[str, Any] | None, problem: str) -> str:
    if answer is None:
        return f"failed: {problem}"
    if answer["state"] != "COMPLETE":
        return f"failed ({answer['cause']}): {answer['message']}"
    return f"fid {answer['fid']:.2f}, {answer['first']:.2f} in the search"


def _environments(
    config: StudyConfig, workers: int | str, prepared: Baselines, note: Callable[[str], None]
) -> list[dict[str, str]]:
    """One environment for each process that memory has room for; where there are GPUs, these take turns.

    Args:
        prepared: what the preparation has measured.
    """
    gpus: list[str] = []
    if config.device != "cpu":
        import torch

        if torch.cuda.is_available():
            named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            gpus = named or [str(index) for index in range(torch.cuda.device_count())]
    plan = plan_workers(workers, config.device, len(gpus)).packed(prepared.gpu_memory)
    plan, line = fitted(plan, prepared.memory, memory())
    if line is not None:
        note(line)
    with worker_environment(plan.device if gpus else "cpu"):
        base = dict(os.environ)
    mine = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(plan.workers)]
    return [base | one for one in mine]


# --- what a worker does


def run_again(path: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Do one repetition, as far as it is not done: train, measure, measure on subsets.

    Args:
        path: of the run folder.
        job: ``number`` of the trial and ``k``.

    Returns:
        ``state``, ``fid`` and ``first`` (the search's own), or ``cause`` and ``message``.
    """
    folder, number, k = RunFolder(path), int(job["number"]), int(job["k"])
    config, first, place = folder.config(), folder.result(number), place_of(folder, number, k)
    record = _trained(place, first) or _train(folder, config, place, first, k)
    if record.is_complete and not (place / SUBSETS_FILE).is_file():
        fids, pictures = _subset_fids(folder, config, place)
        write_json(place / SUBSETS_FILE, {"schema": SCHEMA, "pictures": pictures, "fid": fids})
    told = {name: getattr(record, name) for name in ("state", "cause", "message")}
    return {**told, "fid": record.fid if record.is_complete else None, "first": first.fid}


def _trained(place: Path, first: TrialRecord) -> TrialRecord | None:
    """The result of a training that only lacks its subsets."""
    if not (place / RESULT).is_file():
        return None
    record = read_trial(place / RESULT)
    same = record.key == first.key and record.protocol == first.protocol
    return record if same and record.is_complete else None


def _train(folder: RunFolder, config: StudyConfig, place: Path, first: TrialRecord, k: int) -> TrialRecord:
    from gs_search.trial.run import run_trial

    for name in (RESULT, SUBSETS_FILE):
        (place / name).unlink(missing_ok=True)
    seed = seed_of(config.seed, first.key, k)
    try:
        return run_trial(first.point, config, folder, number=first.number, seed=seed, place=place)
    except TrialFailed as failure:
        asked = Asked(first.number, first.point, first.key, seed)
        record = failure_record(first.study, asked, failure.cause, str(failure), place=place)
        write_record(place / RESULT, record)
        return record


def _subset_fids(folder: RunFolder, config: StudyConfig, place: Path) -> tuple[list[float], int]:
    """FID on random halves of the validation pictures, the same halves for every student; and how many those are of."""
    import numpy as np

    from gs_search.data.images import to_uint8
    from gs_search.measure.features import inception_features
    from gs_search.measure.fid import frechet_distance
    from gs_search.trial.assets import TrialAssets, paint

    ground = TrialAssets.of(folder, config)
    student = ground.load_student(place / "student.safetensors").to(ground.device)
    features = inception_features(to_uint8(paint(student, ground.validation)), model=ground.inception)
    half = max(len(features) // 2, 2)
    dice = np.random.default_rng((config.seed, SUBSETS))
    chosen = [dice.choice(len(features), half, replace=False) for _ in range(SUBSETS)]
    return [frechet_distance(features[rows], ground.reference) for rows in chosen], half

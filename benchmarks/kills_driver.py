"""One run of ``benchmarks.kills``, in a process of its own: ``python -m benchmarks.kills_driver JSON``.

``system`` and ``place``, ``trials`` in all, ``left`` to do, ``workers``, and ``budget_s`` or null.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine import STUDY, _stock_search
from benchmarks.kills_trial import STEPS, stock_trial

__all__ = ["ANEW", "OURS", "RESTORED", "study_and_folder"]

OURS, RESTORED, ANEW = "gs_search", "OptunaSearch, restored", "OptunaSearch, anew"

AS_RAY_HAS_IT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "auto",
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "0",
}
"""Defaults of Ray Tune, of which gs_search needs others."""


def study_and_folder(place: Path, trials: int, workers: int) -> tuple[Any, Any]:
    """The quickstart's study, kept in ``place`` so that it is the same in every run, and a run folder for it."""
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import load_study

    study = place / "studies" / STUDY.name
    if not study.exists():
        spaces = STUDY.parents[1] / "search_spaces"
        shutil.copytree(spaces, place / spaces.name)
        study.parent.mkdir()
        shutil.copy(STUDY, study)
    changes = {"trials": trials, "workers": workers, "device": "cpu"}
    return load_study(study).model_copy(update=changes), RunFolder(place / "run")


def main(orders: dict[str, Any]) -> None:
    place = Path(orders["place"])
    config, folder = study_and_folder(place, orders["trials"], orders["workers"])
    if orders["system"] == OURS:
        from gs_search.engine.runner import run_study

        run_study(
            config,
            folder,
            hours=None if orders["budget_s"] is None else orders["budget_s"] / 3600,
            trial_function="benchmarks.kills_trial:trial",
            prepare_function="benchmarks.kills_trial:prepare",
        )
        return
    os.environ.update(AS_RAY_HAS_IT)
    from gs_search.engine.ray.local import local_ray, scratch_folder

    with scratch_folder() as scratch, local_ray(scratch, workers=orders["workers"], device="cpu"):
        from ray import tune
        from ray.tune.schedulers import AsyncHyperBandScheduler

        restored = orders["system"] == RESTORED
        tune.run(
            stock_trial,
            # What Tuner.restore does; resume needs the same name. A fresh Tuner has another one.
            name="trials" if restored else f"trials-{orders['left']}-{os.getpid()}",
            resume="AUTO" if restored else None,
            search_alg=_stock_search(place, config.space),
            scheduler=AsyncHyperBandScheduler(
                time_attr="training_iteration",
                metric="fid",
                mode="min",
                max_t=STEPS,
                grace_period=2,
                reduction_factor=2,
            ),
            num_samples=orders["trials"] if restored else orders["left"],
            max_concurrent_trials=orders["workers"],
            resources_per_trial={"cpu": 1.0},
            max_failures=1,  # as gs_search
            reuse_actors=True,
            time_budget_s=orders["budget_s"],
            storage_path=str(place / "tune"),
            trial_dirname_creator=_folder_name,
            raise_on_failed_trial=False,
            verbose=0,
        )


def _folder_name(trial: Any) -> str:
    return str(trial.trial_id)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

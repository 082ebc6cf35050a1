"""A driver in a process of its own, to be killed: ``drive.py STUDY.yaml RUN_FOLDER TRIAL PREPARE PATIENCE_S``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from gs_search.engine.runner import run_study
from gs_search.errors import GsSearchError
from gs_search.results.run_folder import RunFolder
from gs_search.search import storage
from gs_search.study.config import load_study


def main(study: str, out: str, trial: str, prepare: str, patience_s: str) -> int:
    """Run the study and print its summary; 130 if it was interrupted, 1 after an error, as of the command line."""
    storage.PATIENCE_S = float(patience_s)
    try:
        summary = run_study(
            load_study(study),
            RunFolder(out),
            trial_function=f"stand_ins:{trial}",
            prepare_function=f"stand_ins:{prepare}",
            address=os.environ.get("RAY_ADDRESS"),
        )
    except GsSearchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    print(json.dumps(dataclasses.asdict(summary)), flush=True)
    return 130 if summary.interrupted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

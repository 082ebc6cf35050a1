"""A driver in a process of its own, to be killed: ``python drive.py STUDY.yaml RUN_FOLDER FUNCTION``."""

from __future__ import annotations

import dataclasses
import json
import sys

from gs_search.config import load_study
from gs_search.runfolder import RunFolder
from gs_search.search.runner import run_study


def main(study: str, out: str, function: str) -> int:
    """Run the study and print its summary; 130 if it was interrupted, as of the command line."""
    summary = run_study(
        load_study(study),
        RunFolder(out),
        trial_function=f"stand_ins:{function}",
        prepare_function="stand_ins:prepare",
    )
    print(json.dumps(dataclasses.asdict(summary)), flush=True)
    return 130 if summary.interrupted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

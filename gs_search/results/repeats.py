"""Trials of a front that were run again with other seeds: where they lie, and what they say.

``trials/<number>/again/<k>/`` holds the k-th repetition, k from 1, with the files of a trial: ``result.json`` of a seed
of its own, and ``subsets.json``, its FID on halves of the validation pictures. What lists trials does not look there.
``gs-search front --reevaluate`` writes them (``reevaluate.py``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gs_search.results.fid_uncertainty import Reading
from gs_search.results.record import TrialRecord, read_trial
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json

__all__ = ["SUBSETS_FILE", "Repeats", "place_of", "read_repeats", "repeat_is_there", "seed_of"]

SUBSETS_FILE = "subsets.json"

FINAL = ("nan", "collapse")
"""Causes of a failure that another attempt with the same seed would have again."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What is known of a trial from its repetitions."""

    reading: Reading
    failed: int
    """Repetitions without a student."""


def place_of(folder: RunFolder, number: int, k: int) -> Path:
    """Folder of the k-th repetition of a trial."""
    return folder.trial(number) / "again" / str(int(k))


def seed_of(study_seed: int, key: str, k: int) -> int:
    """Seed of the k-th repetition of a point, 0..2**31 - 1; the same on every machine."""
    digest = hashlib.sha256(f"again\x1f{study_seed}\x1f{key}\x1f{k}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_repeats(folder: RunFolder, result: TrialRecord) -> Repeats:
    """Read the repetitions of a trial.

    Args:
        result: how it ended; repetitions of another point or protocol do not count.

    Raises:
        BadInput: a file is torn.
    """
    fids, subsets, failed = [], [], 0
    root = folder.trial(result.number) / "again"
    for k in sorted(int(path.parent.name) for path in root.glob("*/result.json") if path.parent.name.isdigit()):
        again = _read(folder, result, k)
        if again is None:
            continue
        if not again.is_complete:
            failed += 1
            continue
        halves = read_json(place_of(folder, result.number, k) / SUBSETS_FILE)["fid"]
        fids.append(again.fid)
        subsets.append(tuple(float(value) for value in halves))
    reading = Reading(first=result.fid, others=tuple(fids), subsets=tuple(subsets))
    return Repeats(reading=reading, failed=failed)


def repeat_is_there(folder: RunFolder, result: TrialRecord, k: int) -> bool:
    """Whether the k-th repetition need not be run: it is finished, or would fail again."""
    again = _read(folder, result, k)
    return again is not None and (again.is_complete or again.cause in FINAL)


def _read(folder: RunFolder, result: TrialRecord, k: int) -> TrialRecord | None:
    """How a repetition ended; None where it is not finished, or is of something else."""
    place = place_of(folder, result.number, k)
    if not (place / "result.json").is_file():
        return None
    again = folder.read(place / "result.json", read_trial)
    if again.key != result.key:
        return None
    if not again.is_complete:
        return again
    same = again.protocol == result.protocol
    return again if same and (place / SUBSETS_FILE).is_file() else None

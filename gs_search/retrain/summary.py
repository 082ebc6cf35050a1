"""What full trainings say about the short ones: whether the order of the trials holds, and the picked one its place.

Short FIDs are the search's own, on the validation pictures; full ones are on the test pictures, which neither has seen,
or on the validation pictures where a study keeps none back. Only trainings of the same length
and settings are compared. Files alone are read, without torch: this is what a report and a dashboard show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gs_search.errors import GsSearchError
from gs_search.results.agreement import agreement
from gs_search.results.fid_uncertainty import tie_margin
from gs_search.results.pareto import OBJECTIVES, dominates
from gs_search.results.pick import PICK_FILE, rank, read_pick
from gs_search.results.record import FullRecord
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.selection import spread
from gs_search.system.files import read_json, write_json
from gs_search.system.lock import live_holder

__all__ = ["SUMMARY", "full_results", "retrain_document", "summarize", "write_summary"]

SCHEMA = 1

SUMMARY = "summary.json"

SAME = ("steps", "sparse", "batch_size", "replaced")
"""What two schedules must share to be compared."""


def retrain_document(folder: RunFolder) -> dict[str, Any] | None:
    """All that is known of the full trainings in a run folder; None where none was ever begun.

    Returns:
        ``retrained``: the record of each finished one, by number, with its ``folder`` (below the run folder);
        ``running``: of each unfinished one ``trial``, ``folder``, ``alive`` (whether a process is at work) and what its
        ``progress.json`` says (``step``, ``steps``, ``phase``, ``fid``, ``seconds``, ``seconds_left``, ``updated``), or
        what is known of it; ``summary``: see ``summarize``, None where nothing is finished.

    Raises:
        BadInput: a file is torn.
    """
    retrained, running = [], []
    for place in _places(folder):
        below = str(place.relative_to(folder.path))
        if (record := folder.full_result(int(place.name))) is not None:
            retrained.append({**record.to_json(), "folder": below})
        elif (place / "schedule.json").is_file():
            schedule = read_json(place / "schedule.json")
            progress = read_json(place / "progress.json") if (place / "progress.json").is_file() else {}
            told = {"trial": int(place.name), "folder": below, "alive": live_holder(place / "lock") is not None}
            running.append({**told, "step": 0, "steps": schedule.get("steps"), **progress})
    if not retrained and not running:
        return None
    return {"schema": SCHEMA, "retrained": retrained, "running": running, "summary": summarize(folder)}


def write_summary(folder: RunFolder, schedule: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Write ``retrain/summary.json`` and return it; None, and no file, where nothing is finished."""
    document = summarize(folder, schedule)
    if document is not None:
        write_json(folder.retrain / SUMMARY, {**document, "written": time.time()})
    return document


def summarize(folder: RunFolder, schedule: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Compare full with short trainings; None where no full one is finished.

    Args:
        schedule: of the trainings to compare; else the most frequent one, and of those the longest.

    Returns:
        ``points``, by their place in the search's order of FIDs: ``trial``, ``short`` and ``full`` objectives (of the
        validation pictures), ``short_test_fid``, ``test_fid``, ``place_short``, ``place_full`` (from 1, by FID);
        ``agreement`` of the short FIDs with the full ones of ``agreement["split"]``, and ``agreement_val`` with those
        of the validation pictures, see ``results.agreement``; ``picked``: ``trial``, ``by`` (``pick.json`` or
        ``knee``), its place among the points by the rule that chose it, before and after; ``left_out``: trials trained
        in another way; ``sentences`` and ``warnings``, for people.
    """
    results = full_results(folder)
    if not results:
        return None
    wanted = _length(schedule) if schedule is not None else _usual([_length(one.schedule) for one in results])
    compared = [one for one in results if _length(one.schedule) == wanted]
    split = "test" if all(one.test is not None for one in compared) else "val"
    full = {one.number: _fid(one, split) for one in compared}
    compared.sort(key=lambda one: (one.short.objectives["fid"], one.number))
    order = sorted(full, key=lambda number: (full[number], number))
    points = [
        {
            "trial": one.number,
            "short": one.short.objectives,
            "full": one.values,
            "short_test_fid": None if one.test is None or one.test.short is None else one.test.short.fid,
            "test_fid": None if one.test is None else one.test.fid,
            "place_short": place,
            "place_full": order.index(one.number) + 1,
        }
        for place, one in enumerate(compared, 1)
    ]
    short_fids = [one.short.objectives["fid"] for one in compared]
    found = agreement(short_fids, [full[one.number] for one in compared])
    picked = _picked(folder, compared, full)
    margin = tie_margin(folder.measured().fid_std)
    document = {
        "schema": SCHEMA,
        "study": compared[0].study if compared else None,
        "schedule": dict(zip(SAME, wanted, strict=True)),
        "points": points,
        "agreement": {**found, "split": split},
        "agreement_val": agreement(short_fids, [one.fid for one in compared]),
        "tie_margin": margin,
        "picked": picked,
        "left_out": sorted(one.number for one in results if one not in compared),
    }
    return document | {
        "sentences": _sentences(document),
        "warnings": _warnings(document, compared, full, margin),
    }


def full_results(folder: RunFolder) -> list[FullRecord]:
    """The full trainings that are finished, by number; raises BadInput where a file is torn."""
    found = (folder.full_result(int(place.name)) for place in _places(folder))
    return [record for record in found if record is not None]


def _places(folder: RunFolder) -> list[Path]:
    if not folder.retrain.is_dir():
        return []
    return sorted((path for path in folder.retrain.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _length(schedule: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple({"replaced": {}, **schedule}[name] for name in SAME)  # earlier versions replaced nothing


def _usual(lengths: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return max(lengths, key=lambda length: (lengths.count(length), length[:-1], str(length[-1])))


def _fid(result: FullRecord, split: str) -> float:
    return result.test.fid if split == "test" and result.test is not None else result.fid


def _picked(folder: RunFolder, compared: Sequence[FullRecord], full: Mapping[int, float]) -> dict[str, Any] | None:
    """The recorded pick, or the knee, and where its rule puts it among the compared before and after."""
    if (folder.path / PICK_FILE).is_file():
        try:
            pick = read_pick(folder)
        except GsSearchError:  # of another study's; whoever asks for it is told
            return None
        number, by, rule = pick["trial"], PICK_FILE, pick["rule"]
        weights = [float(pick["options"].get("weights", {}).get(name, 0.0)) for name in OBJECTIVES]
    else:
        try:
            number = spread(folder, 1)[0].number
        except GsSearchError:
            return None
        by, rule, weights = "knee", "knee", []
    numbers = [one.number for one in compared]
    if number not in numbers:
        return None
    if rule == "named":
        rule = "knee"
    short = [[one.short.objectives[name] for name in OBJECTIVES] for one in compared]
    long = [[full[one.number], *(one.values[name] for name in OBJECTIVES[1:])] for one in compared]
    chosen = {"weights": weights} if rule == "weights" else {}
    before, after = ([numbers[index] for index in rank(rows, rule, **chosen)] for rows in (short, long))
    index = numbers.index(number)
    return {
        "trial": number,
        "by": by,
        "rule": rule,
        "place_short": before.index(number) + 1 if number in before else None,
        "place_full": after.index(number) + 1 if number in after else None,
        "best_full": after[0],
        "beaten_by": [other for other, row in zip(numbers, long, strict=True) if dominates(row, long[index])],
    }


def _sentences(document: Mapping[str, Any]) -> list[str]:
    found, points = document["agreement"], document["points"]
    where = "on the test pictures" if found["split"] == "test" else "on the validation pictures"
    better = sum(point["full"]["fid"] <= point["short"]["fid"] for point in points)
    steps = document["schedule"]["steps"]
    lines = [
        f"{len(points)} trained in full, {steps} steps each: FID on the validation pictures is not above the trial's "
        f"for {better} of them"
    ]
    if found["kendall_tau"] is not None:
        lines.append(
            f"Kendall's tau between the trials' FIDs and the full trainings' {where}: {found['kendall_tau']:.2f}, 95 % "
            f"interval {found['low']:.2f} to {found['high']:.2f}, n = {found['n']}; an order by chance agrees as well "
            f"in {found['chance']:.1%} of cases"
        )
    if document["left_out"]:
        lines.append(f"trained in another way, and not compared: {', '.join(map(str, document['left_out']))}")
    return lines


def _warnings(
    document: Mapping[str, Any],
    compared: Sequence[FullRecord],
    full: Mapping[int, float],
    margin: float,
) -> list[str]:
    found, picked = document["agreement"], document["picked"]
    warnings = []
    if not found["enough"]:
        warnings.append(
            f"{found['n']} points cannot tell whether short trials foretell full ones: of fewer than 5, even a perfect "
            "order is often chance; retrain --front 5 trains so many"
        )
    if picked is None:
        return warnings
    number, before, after = picked["trial"], picked["place_short"], picked["place_full"]
    if before is not None and (after is None or after > before):
        other = picked["beaten_by"][0] if picked["beaten_by"] else picked["best_full"]
        gap = full[number] - full[other]
        chance = "which is within the noise" if abs(gap) <= margin else "which is more than noise"
        how = "beats it in FID, GFLOPs and MB" if picked["beaten_by"] else "is now the better choice by the same rule"
        warnings.append(
            f"the picked trial {number} loses its place: trained in full, trial {other} {how} (FID {full[other]:.1f} "
            f"against {full[number]:.1f}, {chance})"
        )
    return warnings

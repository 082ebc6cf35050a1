"""What ``gs-search front`` prints: the front beside the teacher, as plain data and as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gs_search.constraints import is_feasible, nearest_miss, resolve, violations
from gs_search.errors import BadInput, NothingFeasible
from gs_search.front import OBJECTIVES, front_indices, hypervolume, knee, reference_point
from gs_search.runfolder import RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["front_document", "front_table"]

SCHEMA = 1
SHOWN = ("kid", "psnr_to_teacher", "macs", "macs_paper", "params", "latency_ms", "seconds", "point", "key")


def front_document(folder: RunFolder) -> dict[str, Any]:
    """Gather the front of a run folder, cheapest member in GFLOPs first.

    ``hypervolume`` is the share, 0..1, of the box between zero and ``reference_point`` that the front
    dominates; ``noise`` says how far apart two FIDs must be to differ. Where the study has constraints, the front
    is that of the students that keep them; ``infeasible`` counts the others among those finished.

    Raises:
        NothingFeasible: no trial has finished, or none of the finished ones keeps the constraints.
        BadInput: a file is torn, or trials were measured by another protocol than the teacher.
    """
    results = folder.results()
    complete = [result for result in results if result["state"] == "COMPLETE"]
    if not complete:
        causes = Counter(str(result.get("cause") or result["state"].lower()) for result in results)
        told = ", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none has ended yet"
        raise NothingFeasible(f"{folder.path}: no finished trial ({told}); continue with `gs-search run`")
    baselines = folder.read_json(folder.baselines)
    protocol = baselines["protocol"]
    for result in complete:
        if result["protocol"] != protocol["id"]:
            raise BadInput(
                f"{folder.path}: trial {result['number']} was measured by protocol {result['protocol']}, the "
                f"teacher by {protocol['id']}; such numbers cannot be compared"
            )
    limits = resolve(folder.config().constraints.model_dump(), baselines)
    feasible = [result for result in complete if is_feasible(violations(result["objectives"], limits))]
    if not feasible:
        raise NothingFeasible(
            f"{folder.path}: none of {len(complete)} students keeps the constraints; {nearest_miss(complete, limits)}"
        )
    points = [[result["objectives"][name] for name in OBJECTIVES] for result in feasible]
    reference = reference_point(baselines)
    members = [feasible[index] for index in front_indices(points)]
    members.sort(key=lambda result: (result["objectives"]["gflops"], result["number"]))
    return {
        "schema": SCHEMA,
        "study": complete[0]["study"],
        "folder": str(folder.path),
        "objectives": list(OBJECTIVES),
        "finished": len(complete),
        "constraints": limits,
        "infeasible": len(complete) - len(feasible),
        "front": [_member(result, folder) for result in members],
        "knee": feasible[knee(points)]["number"],
        "hypervolume": hypervolume(points, reference) / math.prod(reference),
        "reference_point": dict(zip(OBJECTIVES, reference, strict=True)),
        "teacher": baselines["teacher"],
        "input": baselines["input"],
        "noise": baselines["noise"],
        "protocol": protocol,
    }


def _member(result: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    member = {"number": result["number"], "objectives": result["objectives"]}
    member |= {name: result.get(name) for name in SHOWN}
    return member | {"folder": str(folder.trial(result["number"]))}


def front_table(document: Mapping[str, Any]) -> RenderableType:
    """Draw the document as a table: one row a member, the teacher and the untranslated input below."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("trial", "FID", "GFLOPs", "MB", "of GFLOPs", "of MB", "KID", "PSNR dB", "ms"):
        table.add_column(title, justify="right")
    teacher, untouched = document["teacher"], document["input"]
    for member in document["front"]:
        cost = member["objectives"]
        number = f"{member['number']} knee" if member["number"] == document["knee"] else str(member["number"])
        table.add_row(
            Text(number, style="bold green" if "knee" in number else ""),
            _figure(cost["fid"], ".1f"), _figure(cost["gflops"], ".4g"), _figure(cost["size_mb"], ".3g"),
            _figure(cost["gflops"] / teacher["gflops"], ".0%"),
            _figure(cost["size_mb"] / teacher["size_mb"], ".0%"),
            _figure(member["kid"], ".4f"), _figure(member["psnr_to_teacher"], ".1f"),
            _figure(member["latency_ms"], ".1f"),
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "teacher", _figure(teacher["fid"], ".1f"), _figure(teacher["gflops"], ".4g"),
        _figure(teacher["size_mb"], ".3g"), "100%", "100%", _figure(teacher.get("kid"), ".4f"), "", "",
    )  # fmt: skip
    table.add_row(
        "input", _figure(untouched["fid"], ".1f"), "0", "0", "", "", _figure(untouched.get("kid"), ".4f"),
        _figure(untouched.get("psnr_to_teacher"), ".1f"), "",
    )  # fmt: skip
    noise = _figure(document["noise"].get("fid_std"), ".1f")
    pictures = document["protocol"].get("pictures", "?")
    lines = [
        f"{len(document['front'])} of {document['finished']} finished trials are on the front; "
        f"hypervolume {document['hypervolume']:.4f}",
        f"FIDs of {pictures} pictures; one standard deviation of their noise is {noise}",
    ]
    if document["constraints"]:
        limits = ", ".join(f"{name} {limit:.4g}" for name, limit in document["constraints"].items())
        lines.append(f"only of students within {limits}; {document['infeasible']} are not")
    return Group(Text(f"front of {document['study']}", style="bold"), table, *map(Text, lines))


def _figure(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) else "-"

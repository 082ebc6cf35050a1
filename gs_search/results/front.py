"""What ``gs-search front`` prints: the front beside the teacher, as plain data and as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gs_search.errors import BadInput, NothingFeasible
from gs_search.results.fid_uncertainty import describe, order_of, tie_margin, ties
from gs_search.results.pareto import OBJECTIVES, front_indices, hypervolume, knee, reference_point
from gs_search.results.record import Baselines, TrialRecord
from gs_search.results.repeats import Repeats, read_repeats
from gs_search.results.run_folder import RunFolder
from gs_search.study.constraints import is_feasible, nearest_miss, resolve, violations
from gs_search.system.text import figure

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Finished", "finished_students", "front_document", "front_notes", "front_table", "other_seeds"]

SCHEMA = 1
SHOWN = ("kid", "psnr_to_teacher", "macs", "macs_paper", "params", "latency_ms", "seconds", "point", "key", "node")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The students of a study that can be compared with each other."""

    complete: list[TrialRecord]
    """All that finished, by number."""
    feasible: list[TrialRecord]
    """Those that keep the study's constraints, at least one."""
    limits: dict[str, float]
    """The constraints, as numbers."""
    baselines: Baselines

    @property
    def points(self) -> list[list[float]]:
        """Objectives of the feasible ones, one row each."""
        return [[result.values[name] for name in OBJECTIVES] for result in self.feasible]


def finished_students(folder: RunFolder) -> Finished:
    """Read the students of a run folder.

    Raises:
        NothingFeasible: no trial has finished, or none of the finished ones keeps the constraints.
        BadInput: a file is torn, or trials were measured by another protocol than the teacher.
    """
    results = folder.results()
    complete = [result for result in results if result.is_complete]
    if not complete:
        causes = Counter(result.cause or result.state.lower() for result in results)
        told = ", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none has ended yet"
        raise NothingFeasible(f"{folder}: no finished trial ({told}); continue with `gs-search run`")
    baselines = folder.measured()
    protocol = baselines.protocol.id
    for result in complete:
        if result.protocol != protocol:
            raise BadInput(
                f"{folder}: trial {result.number} was measured by protocol {result.protocol}, the "
                f"teacher by {protocol}; such numbers cannot be compared"
            )
    limits = resolve(folder.config().constraints.model_dump(), baselines.teacher.fid)
    feasible = [result for result in complete if is_feasible(violations(result.values, limits))]
    if not feasible:
        raise NothingFeasible(
            f"{folder}: none of {len(complete)} students keeps the constraints; "
            + nearest_miss({result.number: result.values for result in complete}, limits)
        )
    return Finished(complete=complete, feasible=feasible, limits=limits, baselines=baselines)


def front_document(folder: RunFolder) -> dict[str, Any]:
    """Gather the front of a run folder, cheapest member in GFLOPs first.

    ``hypervolume`` is the share, 0..1, of the box between zero and ``reference_point`` that the front dominates;
    ``noise`` says how far FIDs scatter, and ``tie_margin`` how far apart two of them must be to differ. A member's
    ``ties`` are the others that it does not differ from in FID; its ``repeats`` tell of its runs with other seeds
    (None where there are none: fields as in ``fid_uncertainty.describe``), ``reevaluation`` what these do to the order
    of the front (None likewise; ``fid_uncertainty.order_of``). Where the study has constraints, the front is that of
    the students that keep them; ``infeasible`` counts the others among those finished.

    Raises:
        NothingFeasible, BadInput: see ``finished_students``.
    """
    found = finished_students(folder)
    baselines, points = found.baselines, found.points
    reference = reference_point(baselines)
    members = [found.feasible[index] for index in front_indices(points)]
    members.sort(key=lambda result: (result.values["gflops"], result.number))
    repeats = [read_repeats(folder, result) for result in members]
    fid_std = baselines.fid_std
    tied = ties([one.reading for one in repeats], fid_std)
    return {
        "schema": SCHEMA,
        "study": found.complete[0].study,
        "folder": str(folder),
        "objectives": list(OBJECTIVES),
        "finished": len(found.complete),
        "constraints": found.limits,
        "infeasible": len(found.complete) - len(found.feasible),
        "front": [
            _member(result, folder, one, [members[index].number for index in same])
            for result, one, same in zip(members, repeats, tied, strict=True)
        ],
        "knee": found.feasible[knee(points)].number,
        "hypervolume": hypervolume(points, reference) / math.prod(reference),
        "reference_point": dict(zip(OBJECTIVES, reference, strict=True)),
        "teacher": baselines.teacher.to_json(),
        "input": baselines.input.to_json(),
        "noise": baselines.noise.to_json(),
        "tie_margin": tie_margin(fid_std),
        "reevaluation": _reevaluation(members, repeats, fid_std),
        "protocol": baselines.protocol.to_json(),
    }


def _reevaluation(members: Sequence[TrialRecord], repeats: Sequence[Repeats], fid_std: float) -> dict[str, Any] | None:
    costs = [[result.values[name] for name in OBJECTIVES[1:]] for result in members]
    order = order_of([one.reading for one in repeats], costs, fid_std)
    return order and {**order, "beaten": [members[index].number for index in order["beaten"]]}


def _member(result: TrialRecord, folder: RunFolder, again: Repeats, tied: list[int]) -> dict[str, Any]:
    member: dict[str, Any] = {"number": result.number, "objectives": result.values}
    member |= {name: getattr(result, name) for name in SHOWN}
    member |= {"repeats": describe(again.reading, again.failed), "ties": tied}
    return member | {"folder": str(folder.trial(result.number))}


def front_table(document: Mapping[str, Any]) -> RenderableType:
    """Draw the document as a table: one row a member, the teacher and the untranslated input below."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    again = any(member["repeats"] for member in document["front"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("trial", "FID", *["other seeds"] * again, "tie", "GFLOPs", "MB", "of GFLOPs", "of MB", "KID"):
        table.add_column(title, justify="right")
    for title in ("PSNR dB", "ms"):
        table.add_column(title, justify="right")
    teacher, untouched = document["teacher"], document["input"]
    blank = [""] * (1 + again)
    for member in document["front"]:
        cost = member["objectives"]
        number = f"{member['number']} knee" if member["number"] == document["knee"] else str(member["number"])
        table.add_row(
            Text(number, style="bold green" if "knee" in number else ""),
            figure(cost["fid"], ".1f"), *[other_seeds(member["repeats"])] * again, _tied(member["ties"]),
            figure(cost["gflops"], ".4g"), figure(cost["size_mb"], ".3g"),
            figure(cost["gflops"] / teacher["gflops"], ".0%"),
            figure(cost["size_mb"] / teacher["size_mb"], ".0%"),
            figure(member["kid"], ".4f"), figure(member["psnr_to_teacher"], ".1f"),
            figure(member["latency_ms"], ".1f"),
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "teacher", figure(teacher["fid"], ".1f"), *blank, figure(teacher["gflops"], ".4g"),
        figure(teacher["size_mb"], ".3g"), "100%", "100%", figure(teacher.get("kid"), ".4f"), "", "",
    )  # fmt: skip
    table.add_row(
        "input", figure(untouched["fid"], ".1f"), *blank, "0", "0", "", "", figure(untouched.get("kid"), ".4f"),
        figure(untouched.get("psnr_to_teacher"), ".1f"), "",
    )  # fmt: skip
    return Group(Text(f"front of {document['study']}", style="bold"), table, *map(Text, front_notes(document)))


def front_notes(document: Mapping[str, Any]) -> list[str]:
    """What stands below the table: how good the front is, and how far its figures can be trusted."""
    noise = figure(document["noise"].get("fid_std"), ".1f")
    pictures = document["protocol"].get("pictures", "?")
    notes = [
        f"{len(document['front'])} of {document['finished']} finished trials are on the front; "
        f"hypervolume {document['hypervolume']:.4f}",
        f"FIDs of {pictures} pictures; one standard deviation of their noise is {noise}, so two that differ by less "
        f"than {document['tie_margin']:.1f} tie" + (", unless other seeds tell" if document["reevaluation"] else ""),
    ]
    if (order := document["reevaluation"]) is not None:
        notes += _order_notes(order)
    if document["constraints"]:
        limits = ", ".join(f"{name} {limit:.4g}" for name, limit in document["constraints"].items())
        notes.append(f"only of students within {limits}; {document['infeasible']} are not")
    nodes = [member["node"] for member in document["front"] if member.get("node")]
    kinds = sorted({" and ".join(filter(None, (node["cpu"], node["gpu"]))) for node in nodes})
    if len(kinds) > 1:
        notes.append(f"latencies compare only on one kind of machine, and these are {len(kinds)}: {'; '.join(kinds)}")
    return notes


def _order_notes(order: Mapping[str, Any]) -> list[str]:
    least, most = order["seeds"]
    seeds = f"{most} other seed" + "s" * (most > 1) if least == most else f"{least} to {most} other seeds"
    tau = "" if order["kendall_tau"] is None else f", Kendall's tau {order['kendall_tau']:.2f}"
    pairs = "one other seed decides nothing, --reevaluate 3 might"
    if most > 1:
        pairs = (
            f"of {order['pairs']} pairs these decide {order['decided']}, {order['turned']} of them against the search"
        )
    notes = [
        f"{order['members']} members run again with {seeds}{tau}; {pairs}",
        f"the search's own FIDs are {abs(order['shift']):.1f} too {'low' if order['shift'] > 0 else 'high'} on average",
    ]
    if order["beaten"]:
        names = ", ".join(map(str, order["beaten"]))
        notes.append(f"by the means another member beats {names} in FID, GFLOPs and MB")
    return notes


def other_seeds(repeats: Mapping[str, Any] | None) -> str:
    """Mean, half of the interval, and how many runs these are of."""
    if not repeats:
        return ""
    failed = f", {repeats['failed']} failed" if repeats["failed"] else ""
    if repeats["mean"] is None:
        return f"({repeats['failed']} failed)"
    half = "" if repeats["low"] is None else f" ± {repeats['mean'] - repeats['low']:.1f}"
    return f"{repeats['mean']:.1f}{half} ({repeats['seeds']}{failed})"


def _tied(numbers: Sequence[int]) -> str:
    return "=" + ",".join(map(str, numbers[:3])) + "…" * (len(numbers) > 3) if numbers else ""

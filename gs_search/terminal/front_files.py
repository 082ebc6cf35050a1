"""A front as a file for other programs and for documents: CSV, a table in Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from gs_search.results.front import front_notes
from gs_search.system.text import figure

__all__ = ["front_csv", "front_markdown"]


def front_csv(document: Mapping[str, Any]) -> str:
    """One row for each member of the front, figures as they were measured; an empty cell is one that was not.

    ``gflops`` are 10^9 multiply-adds a picture, ``size_mb`` 10^6 bytes, ``_of_teacher`` shares 0..1; ``fid`` is the
    search's, ``fid_mean`` that of the other seeds with its 95 % interval, ``ties`` numbers of trials; ``point.`` stands
    before what the trial was asked for.
    """
    rows = [_row(member, document) for member in document["front"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(member: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    cost, teacher = member["objectives"], document["teacher"]
    again = member["repeats"] or {}
    return {
        "trial": member["number"],
        "knee": int(member["number"] == document["knee"]),
        "fid": cost["fid"],
        "fid_mean": again.get("mean"),
        "fid_low_95": again.get("low"),
        "fid_high_95": again.get("high"),
        "fid_std_of_seeds": again.get("std"),
        "fid_std_of_pictures": again.get("subset_std"),
        "seeds": again.get("seeds"),
        "ties": " ".join(map(str, member["ties"])),
        "gflops": cost["gflops"],
        "size_mb": cost["size_mb"],
        "gflops_of_teacher": cost["gflops"] / teacher["gflops"],
        "size_of_teacher": cost["size_mb"] / teacher["size_mb"],
        "kid": member["kid"],
        "psnr_to_teacher_db": member["psnr_to_teacher"],
        "latency_ms": member["latency_ms"],
        "macs": member["macs"],
        "macs_paper": member["macs_paper"],
        "params": member["params"],
        "seconds": member["seconds"],
        **{f"point.{name}": value for name, value in (member["point"] or {}).items()},
    }


def front_markdown(document: Mapping[str, Any]) -> str:
    """A table as GitHub shows it, the teacher and the untranslated input below, and notes on what the figures are."""
    again = any(member["repeats"] for member in document["front"])
    titles = ["trial", "FID", *["FID of other seeds, 95 %"] * again, "ties with", "GFLOPs", "MB"]
    titles += ["of the teacher's GFLOPs", "of its MB", "KID", "PSNR to the teacher, dB", "latency, ms"]
    teacher, untouched = document["teacher"], document["input"]
    rows = []
    for member in document["front"]:
        cost, number = member["objectives"], str(member["number"])
        rows.append(
            [
                f"**{number}** (knee)" if member["number"] == document["knee"] else number,
                f"{cost['fid']:.1f}",
                *[_interval(member["repeats"])] * again,
                ", ".join(map(str, member["ties"])),
                *_costs(cost, teacher),
                figure(member["kid"], ".4f"),
                figure(member["psnr_to_teacher"], ".1f"),
                figure(member["latency_ms"], ".1f"),
            ]
        )
    blank = [""] * (1 + again)
    rows.append(
        ["teacher", f"{teacher['fid']:.1f}", *blank, *_costs(teacher, teacher), figure(teacher.get("kid"), ".4f")]
        + ["", ""]
    )
    rows.append(
        ["input", f"{untouched['fid']:.1f}", *blank, "0", "0", "", "", figure(untouched.get("kid"), ".4f")]
        + [figure(untouched.get("psnr_to_teacher"), ".1f"), ""]
    )
    lines = [f"**Front of {document['study']}**", ""]
    lines += [_line(titles), _line(["---:"] * len(titles)), *map(_line, rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in front_notes(document))]) + "\n"


def _costs(cost: Mapping[str, float], teacher: Mapping[str, float]) -> list[str]:
    shares = [f"{cost[name] / teacher[name]:.0%}" for name in ("gflops", "size_mb")]
    return [f"{cost['gflops']:.4g}", f"{cost['size_mb']:.3g}", *shares]


def _interval(again: Mapping[str, Any] | None) -> str:
    if not again or again["mean"] is None:
        return ""
    if again["low"] is None:
        return f"{again['mean']:.1f} ({again['seeds']} seed)"
    return f"{again['mean']:.1f} ({again['low']:.1f} to {again['high']:.1f}; {again['seeds']} seeds)"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

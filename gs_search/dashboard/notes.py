"""What a note says: of one trial, and of the study. Markdown as optuna-dashboard draws it, without a link to anywhere.

A note may hold words of the user's too: the part that is written here stands between two marks, which no browser
shows, and is replaced as a whole; what stands around it stays. A note without marks is the user's own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gs_search.results.front import front_notes
from gs_search.results.record import Baselines, FullRecord, LayerRow, TrialRecord
from gs_search.study.settings import GROUPS
from gs_search.system.text import figure

__all__ = ["is_untouched", "merged", "study_note", "trial_note"]

BEGIN = "[//]: # (gs-search: from here on written anew; your own words go above or below)"
END = "[//]: # (gs-search: up to here)"

MOST_ROWS = 60
"""Members of the front in the study's note."""

STATES = {
    "COMPLETE": "Finished",
    "PRUNED": "Stopped early",
    "FAIL": "Failed",
    "RUNNING": "Running",
    "WAITING": "Queued",
}


def merged(note: str, written: str) -> str:
    """Put ``written`` in the place of an earlier one within ``note``; a note without such a place stays as it is."""
    written = f"{BEGIN}\n\n{written}\n\n{END}"
    if not note.strip():
        return written
    head, begin, rest = note.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{written}{tail}" if begin and end else note


def is_untouched(note: str) -> bool:
    """Whether a note has been written here, and nobody has added to it."""
    return note.startswith(BEGIN) and note.endswith(END)


def trial_note(
    number: int,
    state: str,
    record: TrialRecord | None,
    *,
    folder: str,
    cause: str | None,
    message: str | None,
    baselines: Baselines | None,
    violated: Mapping[str, float],
    progress: Mapping[str, Any] | None = None,
    full: FullRecord | None = None,
) -> str:
    """Tell of one trial.

    Args:
        state: Optuna's word for it.
        record: how it ended; None where it has not, or its result cannot be read.
        cause, message: of its ending.
        folder: the run folder as it is to stand in commands.
        violated: share by which each limit of the study is exceeded; negative below it.
        progress: how far a running trial is.
        full: its full training, if that is finished.
    """
    lines = [f"**{STATES.get(state, state)}**" + (f" ({cause})" if cause else "") + "."]
    if record is not None and record.duplicate_of is not None:
        lines[0] += f" The same point as trial {record.duplicate_of}, whose figures these are."
    if record is not None and record.warm_start:
        lines[0] += f" Taken over from an earlier study: {_code(record.warm_start)}."
    if message:
        lines.append(_code(message))
    missed = [f"{_code(name)} by {share:.1%}" for name, share in violated.items() if share > 0]
    if missed:
        lines.append(f"**Infeasible**: misses {', '.join(missed)}.")
    if progress and progress.get("steps"):
        closeness = progress.get("psnr_to_teacher")
        near = f", {closeness:.1f} dB to the teacher" if isinstance(closeness, (int, float)) else ""
        lines.append(f"Step {progress.get('step', 0)} of {progress['steps']}{near}.")
    if record is not None and record.is_complete:
        lines.append(_against_teacher(record, baselines))
    if full is not None:
        lines.append(_in_full(full))
    if record is not None and record.layers:
        lines.append(_groups(record.layers))
    if record is not None and record.rungs and state == "PRUNED":
        rung = record.rungs[-1]
        lines.append(
            f"At step {rung.step}: {rung.psnr_to_teacher:.1f} dB to the teacher, {rung.gflops:.4g} GFLOPs, "
            f"{rung.size_mb:.3g} MB."
        )
    if record is not None:
        lines += _facts(record)
    if state == "COMPLETE":
        lines.append(f"```\ngs-search retrain {shlex.quote(folder)} --trial {number}\n```")
    return "\n\n".join(lines)


def _against_teacher(record: TrialRecord, baselines: Baselines | None) -> str:
    """Table of the figures of a student beside those of its teacher."""
    student, teacher = record.values, {} if baselines is None else baselines.teacher.to_json()
    scatter = f", noise ± {baselines.fid_std:.2g}" if baselines is not None and baselines.fid_std else ""

    def row(name: str, value: Any, other: Any, form: str, words: str = "") -> list[str]:
        return [name, figure(value, form), figure(other, form), words]

    def share(name: str) -> str:
        return f"{student[name] / teacher[name]:.1%} of it" if teacher.get(name) else ""

    above = f"{student['fid'] - teacher['fid']:+.1f}{scatter}" if "fid" in teacher else ""
    as_input = None if baselines is None else baselines.input.psnr_to_teacher
    rows = [
        row("FID", student["fid"], teacher.get("fid"), ".1f", above),
        row("GFLOPs a picture", student["gflops"], teacher.get("gflops"), ".4g", share("gflops")),
        row("size, MB", student["size_mb"], teacher.get("size_mb"), ".4g", share("size_mb")),
    ]
    if record.kid is not None:
        rows.append(row("KID", record.kid, teacher.get("kid"), ".4f"))
    if record.psnr_to_teacher is not None:
        words = "" if as_input is None else f"the input as it is: {as_input:.1f}"
        rows.append(row("PSNR to the teacher, dB", record.psnr_to_teacher, None, ".1f", words))
    if record.latency_ms is not None:
        rows.append(row("ms a picture", record.latency_ms, None, ".1f"))
    return _table(["", "student", "teacher", ""], rows)


def _in_full(full: FullRecord) -> str:
    """A sentence about its full training."""
    short = full.short.objectives["fid"]
    told = f"**Trained in full**, {full.schedule['steps']} steps: FID {full.fid:.1f}, {short:.1f} as a trial"
    if full.test is not None:
        told += f"; on the test pictures {full.test.fid:.1f}"
        if full.test.short is not None:
            told += f", {full.test.short.fid:.1f} as a trial"
    return f"{told}."


def _groups(layers: Sequence[LayerRow]) -> str:
    """Table of widths and bits of each group of layers."""
    rows = []
    for group in (*GROUPS, *sorted({layer.group for layer in layers} - set(GROUPS))):
        inside = [layer for layer in layers if layer.group == group]
        if inside:
            kept, full = (sum(getattr(layer, name) for layer in inside) for name in ("width", "full_width"))
            bits = [_several(getattr(layer, name) for layer in inside) for name in ("weight_bits", "activation_bits")]
            rows.append([group, f"{kept} of {full}", f"{kept / full:.0%}" if full else "", *bits])
    return _table(["layers", "channels", "", "weight bits", "activation bits"], rows)


def _facts(record: TrialRecord) -> list[str]:
    """Parity and cost, one paragraph each."""
    found = []
    if parity := record.parity:
        found.append(
            f"Masked and extracted network differ by {parity.max_abs_difference:.1e} in {parity.pictures} "
            f"pictures, in {parity.code_mismatches} quantizer codes."
        )
    cost = []
    for name, form in (("seconds", "{:.0f} s"), ("steps", "{} steps"), ("peak_memory_mb", "{:.0f} MB of memory")):
        if (value := getattr(record, name)) is not None:
            cost.append(form.format(value))
    if record.params is not None:
        cost.append(f"{record.params:,} parameters".replace(",", " "))
    return [*found, *([f"Cost: {', '.join(cost)}."] if cost else [])]


def study_note(
    document: Mapping[str, Any],
    *,
    folder: str,
    endings: Mapping[str, int],
    pick: Mapping[str, Any] | None,
    full: Mapping[str, Any] | None = None,
) -> str:
    """Tell of a study: its front beside the teacher, the knee, what was picked, and how far figures can be trusted.

    Args:
        document: see ``results.front.front_document``.
        folder: the run folder as it is to stand in commands.
        endings: number of trials by the words for their kind.
        pick: what ``pick`` has saved, if it has.
        full: what full trainings say about the short ones, see ``retrain.summary.summarize``, if there are any.
    """
    teacher, untouched, chosen = document["teacher"], document["input"], (pick or {}).get("trial")
    rows = []
    for member in document["front"][:MOST_ROWS]:
        number, cost = member["number"], member["objectives"]
        marks = [word for word, own in (("knee", document["knee"]), ("picked", chosen)) if own == number]
        rows.append(
            [
                f"**{number}** {', '.join(marks)}" if marks else str(number),
                figure(cost["fid"], ".1f"),
                figure(cost["gflops"], ".4g"),
                _share(cost["gflops"], teacher["gflops"]),
                figure(cost["size_mb"], ".3g"),
                _share(cost["size_mb"], teacher["size_mb"]),
                figure(member.get("psnr_to_teacher"), ".1f"),
            ]
        )
    if len(document["front"]) > MOST_ROWS:
        rows.append([f"and {len(document['front']) - MOST_ROWS} more", *[""] * 6])
    rows.append(
        ["teacher", *_figures(teacher["fid"], ".1f", teacher["gflops"], ".4g"), "100%"]
        + [figure(teacher["size_mb"], ".3g"), "100%", ""]
    )
    rows.append(
        ["input as it is", figure(untouched["fid"], ".1f"), "0", "", "0", ""]
        + [figure(untouched.get("psnr_to_teacher"), ".1f")]
    )
    titles = ["trial", "FID", "GFLOPs", "of the teacher's", "MB", "of the teacher's", "PSNR, dB"]
    parts = ["**The front**: students that no other one beats in FID, GFLOPs and MB at once.", _table(titles, rows)]
    if pick:
        parts.append(f"**Picked**: trial {chosen}. {' '.join(map(str, _sentences(pick.get('why'))))}".strip())
    if full:
        parts += ["**Trained in full**, by their FIDs as trials.", _full_trainings(full)]
        lines = [*full["sentences"], *(f"**Beware**: {line}" for line in full["warnings"])]
        parts.append("\n".join(f"- {line}." for line in lines))
    told = [*front_notes(document), ", ".join(f"{count} {words}" for words, count in endings.items())]
    parts.append("\n".join(f"- {line}" for line in told if line))
    parts.append(_protocol(document["protocol"]))
    place = shlex.quote(folder)
    parts.append(f"```\ngs-search report {place}\ngs-search pick {place}\n```")
    return "\n\n".join(parts)


def _full_trainings(full: Mapping[str, Any]) -> str:
    """Table of the full trainings that can be compared, beside their trials."""
    rows = [
        [
            str(point["trial"]),
            figure(point["short"]["fid"], ".1f"),
            figure(point["full"]["fid"], ".1f"),
            figure(point["short_test_fid"], ".1f"),
            figure(point["test_fid"], ".1f"),
            f"{point['place_short']} to {point['place_full']}",
        ]
        for point in full["points"]
    ]
    titles = ["trial", "FID as a trial", "FID in full", "test FID as a trial", "test FID in full", "place by FID"]
    return _table(titles, rows)


def _sentences(why: object) -> list[object]:
    return list(why) if isinstance(why, (list, tuple)) else [why] if why else []


def _protocol(protocol: Mapping[str, Any]) -> str:
    """How FID was measured: figures of two protocols cannot be compared."""

    def told(name: str) -> str:
        return _code(protocol[name]) if protocol.get(name) is not None else "-"

    return (
        f"**Measured** on {told('pictures')} pictures of the split {told('generator_split')} at {told('image_px')} px, "
        f"compared with {told('reference_pictures')} of {told('reference')}; resized to {told('resize')}; features "
        f"{told('features')}; protocol {told('id')}."
    )


def _share(value: float, whole: float) -> str:
    return f"{value / whole:.0%}" if whole else "-"


def _figures(first: Any, first_form: str, second: Any, second_form: str) -> list[str]:
    return [figure(first, first_form), figure(second, second_form)]


def _several(values: Iterable[int]) -> str:
    return "/".join(map(str, sorted(set(values))))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are figures, and lean to the right."""
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(text: object) -> str:
    """Show any text as it is, in one line: what a failure says may look like Markdown, or like HTML."""
    line = " ".join(str(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"

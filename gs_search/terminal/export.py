"""The figures of an export as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

__all__ = ["export_table"]

NAMES = {"onnx": "integer", "onnx-float": "float", "executorch": "integer", "executorch-float": "float"}
"""Formats to what latencies call them."""


def export_table(document: Mapping[str, Any], place: str) -> RenderableType:
    """What was written, what it costs, and what was proven of it."""
    notes, latency = document["notes"], document["latency"]
    table = Table(title=f"{notes['study']}, {notes['student']}, in {place}", title_justify="left")
    for name in ("", "FID", "MB"):
        table.add_column(name, justify="left" if not name else "right")
    for threads in latency["threads"]:
        table.add_column(f"ms, {threads} thread{'s' if threads != '1' else ''}", justify="right")
    table.add_column("memory, MB", justify="right")
    table.add_column("file", overflow="fold")
    on_device = document.get("latency_executorch", {"threads": {}})
    for entry in document["files"]:
        name = NAMES.get(entry["format"], "")
        memory = f"{entry['peak_memory_mb']:.0f}" if "peak_memory_mb" in entry else ""
        file = "[red]refused[/red]" if entry["file"] is None else entry["file"]
        fid = f"({entry['fid']:.2f})" if entry["format"] == "coreml" else f"{entry['fid']:.2f}"
        row = [entry["format"], fid, f"{entry['bytes'] / 1e6:.4g}"]
        times = _times(on_device if entry["format"].startswith("executorch") else latency, name)
        table.add_row(*row, *times, *[""] * (len(latency["threads"]) - len(times)), memory, file)
    teacher = document["teacher"]
    size = f"{document['teacher_bytes'] / 1e6:.4g}"
    table.add_row("teacher", f"{teacher['fid']:.2f}", size, *_times(latency, "teacher"), "", "teacher.onnx")
    return Group(table, *_lines(document))


def _times(latency: Mapping[str, Any], name: str) -> list[str]:
    found = latency["threads"].values()
    return [f"{one['ms'][name]:.3g}" if name in one["ms"] else "" for one in found]


def _lines(document: Mapping[str, Any]) -> list[str]:
    latency, lines = document["latency"], []
    names = {"float/integer": "the float file", "teacher/integer": "the teacher"}
    for pair, other in names.items():
        parts = [
            f"{found['ratios'][pair]['median']:.2f} ({found['ratios'][pair]['low']:.2f} to "
            f"{found['ratios'][pair]['high']:.2f}) with {threads} thread{'s' if threads != '1' else ''}"
            for threads, found in latency["threads"].items()
            if pair in found["ratios"]
        ]
        if parts:
            lines.append(f"times as fast as {other}: {', '.join(parts)}; pictures of {latency['image_px']} px")
    if latency["contended"]:
        lines.append(f"[yellow]the machine was busy (load {latency['load']:g}): trust the ratios only[/yellow]")
    for entry in document["files"]:
        if entry["format"] == "onnx":
            lines += _proof(entry["proof"], entry["bytes"] / document["float_bytes"])
            lines.append(f"FID of the student as trained: {document['objectives']['fid']:.2f}")
        if entry["format"].startswith("executorch"):
            lines += [f"{entry['format']}: {line}" for line in _program(entry, document)]
        if entry["format"] == "coreml":
            lines += [f"coreml: {line}" for line in _package(entry["proof"])]
        lines += [f"[red]{entry['format']}: {problem}[/red]" for problem in entry["problems"]]
    return lines


def _program(entry: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    proof = entry["proof"]
    outside = ", ".join(proof["outside"]) or "none"
    lines = [f"delegates {len(proof['delegates'])}; operators outside: {outside}"]
    if "layers" not in proof:
        return [*lines, f"decibels to torch's pictures: {proof['psnr_to_torch']:.1f}"]
    graph = {name: proof[name] for name in ("integer", "exceptions")}
    lines += _proof({**proof, "graph": graph}, None)
    for threads, found in document.get("latency_executorch", {"threads": {}})["threads"].items():
        if ratio := found["ratios"].get("float/integer"):
            many = "thread" if threads == "1" else "threads"
            lines.append(
                f"times as fast as its float file: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) "
                f"with {threads} {many}"
            )
    return lines


def _package(proof: Mapping[str, Any]) -> list[str]:
    return [
        "converted, not run here: prediction needs macOS; the FID in brackets is that of the same network in floats",
        f"weights that are the student's own codes and steps: {proof['weights']} of {proof['expected']}",
    ]


def _proof(proof: Mapping[str, Any], share: float | None) -> list[str]:
    graph, layers = proof["graph"], proof["layers"]
    worst = max(layers, key=lambda layer: layer["differing"])
    exceptions = f" (float: {', '.join(graph['exceptions'])})" if graph["exceptions"] else ""
    good = sum(layer["ok"] for layer in layers)
    return [
        *([f"bytes of the float file: {share:.3f}"] if share is not None else []),
        f"convolutions in whole numbers: {graph['integer']} of {len(layers) + len(graph['exceptions'])}{exceptions}",
        f"layers that give the student's codes: {good} of {len(layers)}; "
        f"most that differ {100 * worst['differing']:.4f} % ({worst['name']}), by {max(x['largest'] for x in layers)}",
        f"decibels to the float network: file {proof['psnr']:.2f}, student on the same grids "
        f"{proof['psnr_of_grids']:.2f}, student as trained {proof['psnr_of_student']:.2f}",
    ]

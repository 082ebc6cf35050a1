"""The figures of an export as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

__all__ = ["export_table"]


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
    for entry in document["files"]:
        name = {"onnx": "integer", "onnx-float": "float"}.get(entry["format"], "")
        memory = f"{entry['peak_memory_mb']:.0f}" if "peak_memory_mb" in entry else ""
        file = "[red]refused[/red]" if entry["file"] is None else entry["file"]
        row = [entry["format"], f"{entry['fid']:.2f}", f"{entry['bytes'] / 1e6:.4g}"]
        table.add_row(*row, *_times(latency, name), memory, file)
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
        lines += [f"[red]{entry['format']}: {problem}[/red]" for problem in entry["problems"]]
    return lines


def _proof(proof: Mapping[str, Any], share: float) -> list[str]:
    graph, layers = proof["graph"], proof["layers"]
    worst = max(layers, key=lambda layer: layer["differing"])
    exceptions = f" (float: {', '.join(graph['exceptions'])})" if graph["exceptions"] else ""
    good = sum(layer["ok"] for layer in layers)
    return [
        f"bytes of the float file: {share:.3f}",
        f"convolutions in whole numbers: {graph['integer']} of {len(layers) + len(graph['exceptions'])}{exceptions}",
        f"layers that give the student's codes: {good} of {len(layers)}; "
        f"most that differ {100 * worst['differing']:.4f} % ({worst['name']}), by {max(x['largest'] for x in layers)}",
        f"decibels to the float network: file {proof['psnr']:.2f}, student on the same grids "
        f"{proof['psnr_of_grids']:.2f}, student as trained {proof['psnr_of_student']:.2f}",
    ]

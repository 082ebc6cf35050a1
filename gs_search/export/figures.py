"""The figures of one export, as they are printed, stored beside the files and put into their names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["FORMATS", "SUFFIXES", "file_stem", "problems_of"]

FORMATS = {
    "onnx": "whole numbers, 8 bits and fewer, for ONNX Runtime",
    "onnx-float": "the same network in float32, for anything that reads ONNX",
    "packed": "the student's own file, every weight at its bits; this package reads it",
    "executorch": "whole numbers, 8 bits, one picture of one size, for ExecuTorch with XNNPACK",
    "executorch-float": "the same network in float32, one picture of one size, for ExecuTorch with XNNPACK",
    "coreml": "8-bit weights, 16-bit floats, one picture of one size, for Core ML; converted, not run here",
}
"""What can be written, and what it is."""

SUFFIXES = {
    "onnx": ".onnx",
    "onnx-float": ".onnx",
    "packed": ".safetensors",
    "executorch": ".pte",
    "executorch-float": ".pte",
    "coreml": ".mlpackage",
}

FLOAT_DB = 60.0
"""Decibels to torch's pictures above which a float file is the same network."""

LOSS_DB = 1.0
"""Decibels by which the integer file may be farther from the float network than the student on the same grids."""


def file_stem(study: str, kind: str, fid: float, gflops: float, mb: float) -> str:
    """A file's name without its suffix, which tells the result: ``zebra@fid61.3_gflops4.9_mb1.8``."""
    what = {"onnx-float": "-float", "onnx-vnni": "-vnni", "executorch-float": "-float", "packed": "-packed"}.get(
        kind, ""
    )
    return f"{study}{what}@fid{fid:.1f}_gflops{_two_digits(gflops)}_mb{_two_digits(mb)}"


def _two_digits(value: float) -> str:
    """Two digits that say something, never in powers of ten: 0.041, 4.9, 54."""
    if value <= 0 or not math.isfinite(value):
        return "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def problems_of(entry: Mapping[str, Any]) -> list[str]:
    """What speaks against a file, one line each; none where it is what it says.

    Args:
        entry: of one file, with ``format`` and ``proof``.
    """
    proof, found = entry["proof"], []
    if "psnr_to_torch" in proof and not proof["psnr_to_torch"] >= FLOAT_DB:
        found.append(f"its pictures are only {proof['psnr_to_torch']:.1f} dB near to torch's ({FLOAT_DB:g} are needed)")
    if entry["format"] == "onnx":
        graph = proof["graph"]
        if graph["integer"] != graph["expected"] or len(graph["floats"]) != len(graph["exceptions"]):
            found.append(
                f"{graph['integer']} of {graph['expected']} convolutions run in whole numbers; "
                f"float: {', '.join(graph['floats']) or 'none'}"
            )
        if graph["saturating"] and not graph["vnni"]:
            found.append(
                f"sums of signed weights may saturate on x86 processors without VNNI: {', '.join(graph['saturating'])}"
            )
    if entry["format"].startswith("executorch"):
        found += _program_problems(proof)
    if entry["format"] == "coreml":
        found += _package_problems(proof)
    if "layers" in proof:
        for layer in proof["layers"]:
            if not layer["ok"]:
                found.append(
                    f"layer {layer['name']}: {100 * layer['differing']:.2f} % of the codes differ from the student's, "
                    f"by up to {layer['largest']} steps (scales: {100 * layer['scale_error']:.2g} % off)"
                )
        found += [f"tensor {name}: is not the student's" for name in proof["tensors_missing"]]
        loss = proof["psnr_of_grids"] - proof["psnr"]
        if not loss <= LOSS_DB:
            found.append(
                f"its pictures are {loss:.2f} dB farther from the float network's than those of the student on the "
                f"same grids ({LOSS_DB:g} are allowed)"
            )
    return found


def _program_problems(proof: Mapping[str, Any]) -> list[str]:
    found = []
    if len(proof["delegates"]) != 1 or proof["outside"]:
        found.append(
            f"{len(proof['delegates'])} delegates run it, not one; outside: {', '.join(proof['outside']) or 'nothing'}"
        )
    if proof.get("integer") != proof.get("expected") or proof.get("floats", 0) != len(proof.get("exceptions", ())):
        found.append(
            f"{proof['integer']} of {proof['expected']} convolutions run in whole numbers, {proof['floats']} in floats"
        )
    if not proof["says"]:
        found.append("it does not say of itself what it should")
    return found


def _package_problems(proof: Mapping[str, Any]) -> list[str]:
    found = [f"layer {name}: its codes and steps are not the student's" for name in proof["wrong"]]
    (taken,), (given,) = proof["input"].items(), proof["output"].items()
    if (taken[0], given[0]) != ("picture", "painted") or taken[1] != given[1]:
        found.append(f"it takes {taken[0]} {taken[1]} and gives {given[0]} {given[1]}")
    if not proof["notes"]:
        found.append("it does not say of itself what it should")
    return found

"""Names, verdicts, the table and the card, from figures made by hand."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from gs_search.export.figures import file_stem, problems_of
from gs_search.export.model_card import card
from gs_search.terminal.export import export_table

LAYER = {"name": "stem.1", "codes": 1000, "differing": 0.001, "largest": 1, "scale_error": 0.0, "ok": True}
INTEGER: dict[str, Any] = {
    "format": "onnx",
    "file": "zebra@fid61.3_gflops4.9_mb1.8.onnx",
    "bytes": 1_800_000,
    "fid": 61.34,
    "kid": 0.02,
    "psnr_to_teacher": 24.0,
    "peak_memory_mb": 31.2,
    "calibrated": ["stem.1: output", "head.1: output"],
    "problems": [],
    "proof": {
        "graph": {
            "integer": 1,
            "expected": 1,
            "floats": [],
            "exceptions": [],
            "operators": {"QLinearConv": 1},
            "unsigned": ["stem.1"],
            "saturating": [],
            "vnni": False,
        },
        "layers": [LAYER],
        "tensors_missing": [],
        "psnr": 38.0,
        "psnr_of_grids": 38.2,
        "psnr_of_student": 39.0,
    },
}
FLOAT = {**INTEGER, "format": "onnx-float", "file": None, "proof": {"psnr_to_torch": 140.0}, "problems": ["too far"]}
RATIO = {"median": 2.5, "low": 2.4, "high": 2.6}
DOCUMENT: dict[str, Any] = {
    "notes": {
        "study": "zebra",
        "student": "trial 3",
        "protocol": '{"id": "abc", "pictures": 100, "image_px": 64}',
        "teacher_licence": "a | b",
    },
    "image_px": 64,
    "sides": "free",
    "gflops": 4.93,
    "objectives": {"fid": 60.9},
    "teacher": {"fid": 58.0, "gflops": 54.0, "size_mb": 44.0},
    "noise": {"fid_std": 1.6},
    "float_bytes": 6_000_000,
    "teacher_bytes": 44_000_000,
    "latency": {
        "image_px": 64,
        "load": 3.1,
        "contended": True,
        "threads": {
            "1": {"ms": {"integer": 10.0, "float": 25.0, "teacher": 90.0}, "ratios": {"float/integer": RATIO}},
        },
    },
    "files": [INTEGER, FLOAT],
}


@pytest.mark.parametrize(
    ("kind", "fid", "gflops", "mb", "stem"),
    [
        ("onnx", 61.34, 4.93, 1.79, "zebra@fid61.3_gflops4.9_mb1.8"),
        ("onnx-float", 241.03, 0.04812, 0.4841, "zebra-float@fid241.0_gflops0.048_mb0.48"),
        ("packed", 5.0, 54.38, 123.4, "zebra-packed@fid5.0_gflops54_mb123"),
    ],
)
def test_names_tell_the_result(kind: str, fid: float, gflops: float, mb: float, stem: str) -> None:
    assert file_stem("zebra", kind, fid, gflops, mb) == stem


def test_a_sound_file_has_no_problems() -> None:
    assert problems_of(INTEGER) == []
    assert problems_of({"format": "onnx-float", "proof": {"psnr_to_torch": 140.0}}) == []
    assert problems_of({"format": "packed", "proof": {}}) == []


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("graph", "integer"), 0, "0 of 1"),
        (("graph", "floats"), ["stem.1"], "stem.1"),
        (("graph", "saturating"), ["stem.1"], "without VNNI: stem.1"),
        (("layers",), [{**LAYER, "ok": False, "differing": 0.02}], "2.00 %"),
        (("tensors_missing",), ["stem.2.weight"], "stem.2.weight"),
        (("psnr",), 37.1, "1.10 dB"),
        (("psnr",), float("nan"), "nan dB"),
    ],
)
def test_whatever_is_wrong_is_said(place: tuple[str, ...], value: object, word: str) -> None:
    entry = copy.deepcopy(INTEGER)
    target = entry["proof"]
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    (problem,) = problems_of(entry)
    assert word in problem and "\n" not in problem


def test_a_float_file_that_paints_other_pictures() -> None:
    (problem,) = problems_of({"format": "onnx-float", "proof": {"psnr_to_torch": 41.0}})
    assert "41.0 dB" in problem


def test_the_table_has_the_figures() -> None:
    out = io.StringIO()
    Console(width=200, file=out).print(export_table(DOCUMENT, "exports"))
    text = out.getvalue()
    for figure in (
        "61.34",
        "1.8",
        "2.50 (2.40 to 2.60)",
        "busy (load 3.1)",
        "0.300",
        "1 of 1",
        "38.00",
        "too far",
        "60.90",
    ):
        assert figure in text, figure
    assert "refused" in text


def test_the_card_says_what_a_user_needs() -> None:
    text = card({**DOCUMENT, "files": [INTEGER]})
    for part in (
        "# zebra@fid61.3",
        "| 61.34 | 58.00 |",
        "onnxruntime.InferenceSession",
        "a \\| b",
        "trust ratios only",
    ):
        assert part in text, part
    assert "the ranges of 2 outputs" in text
    packed = card({**DOCUMENT, "files": [{**INTEGER, "format": "packed", "proof": {}}]})
    assert "load_student" in packed and "onnxruntime" not in packed


def test_a_file_for_vnni_says_so() -> None:
    document = copy.deepcopy(DOCUMENT) | {"files": [copy.deepcopy(INTEGER)]}
    graph = document["files"][0]["proof"]["graph"]
    assert "plain session without options" in card(document)
    graph.update(unsigned=[], saturating=["stem.1"], vnni=True)
    assert problems_of(document["files"][0]) == []
    assert 'session.x64quantprecision = "1"' in card(document) and "plain session" not in card(document)
    assert file_stem("zebra", "onnx-vnni", 61.34, 4.9, 1.8).startswith("zebra-vnni@")

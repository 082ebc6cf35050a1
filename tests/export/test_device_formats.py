"""Formats of phones' own runtimes, as far as they go without the packages: names, verdicts, table, card, errors."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gs_search.errors import BadInput
from gs_search.export.figures import file_stem, problems_of
from gs_search.export.model_card import card
from gs_search.terminal.export import export_table
from tests.export.test_figures import DOCUMENT, INTEGER, LAYER, RATIO

PROGRAM: dict[str, Any] = {
    **INTEGER,
    "format": "executorch",
    "file": "zebra@fid61.3_gflops4.9_mb1.8.pte",
    "proof": {
        "delegates": ["XnnpackBackend"],
        "outside": [],
        "integer": 1,
        "expected": 1,
        "floats": 0,
        "exceptions": [],
        "layers": [LAYER],
        "tensors_missing": [],
        "psnr": 37.5,
        "psnr_of_grids": 38.2,
        "psnr_of_student": 39.0,
        "says": True,
    },
}
FLOAT_PROGRAM: dict[str, Any] = {
    **PROGRAM,
    "format": "executorch-float",
    "proof": {"delegates": ["XnnpackBackend"], "outside": [], "psnr_to_torch": 129.0, "says": True},
}
PACKAGE: dict[str, Any] = {
    "format": "coreml",
    "file": "zebra@fid61.3_gflops4.9_mb1.8.mlpackage",
    "bytes": 1_800_000,
    "fid": 61.34,
    "problems": [],
    "proof": {
        "input": {"picture": [1, 3, 64, 64]},
        "output": {"painted": [1, 3, 64, 64]},
        "weights": 12,
        "expected": 12,
        "wrong": [],
        "notes": True,
    },
}
LATENCY = {
    **DOCUMENT["latency"],
    "threads": {"1": {"ms": {"integer": 7.0, "float": 14.0}, "ratios": {"float/integer": RATIO}}},
}


@pytest.mark.parametrize(
    ("kind", "stem"),
    [
        ("executorch", "zebra@fid61.3_gflops4.9_mb1.8"),
        ("executorch-float", "zebra-float@fid61.3_gflops4.9_mb1.8"),
        ("coreml", "zebra@fid61.3_gflops4.9_mb1.8"),
    ],
)
def test_names(kind: str, stem: str) -> None:
    assert file_stem("zebra", kind, 61.34, 4.93, 1.79) == stem


@pytest.mark.parametrize("entry", [PROGRAM, FLOAT_PROGRAM, PACKAGE], ids=lambda entry: entry["format"])
def test_sound_files_have_no_problems(entry: dict[str, Any]) -> None:
    assert problems_of(entry) == []


@pytest.mark.parametrize(
    ("entry", "change", "word"),
    [
        (PROGRAM, {"delegates": ["XnnpackBackend"] * 19}, "19 delegates"),
        (PROGRAM, {"outside": ["aten::flip"]}, "aten::flip"),
        (PROGRAM, {"integer": 0, "floats": 1}, "0 of 1"),
        (PROGRAM, {"layers": [{**LAYER, "ok": False, "differing": 0.02}]}, "2.00 %"),
        (PROGRAM, {"tensors_missing": ["head.1.step"]}, "head.1.step"),
        (PROGRAM, {"psnr": 37.1}, "1.10 dB"),
        (PROGRAM, {"says": False}, "say of itself"),
        (FLOAT_PROGRAM, {"delegates": []}, "0 delegates"),
        (FLOAT_PROGRAM, {"psnr_to_torch": 41.0}, "41.0 dB"),
        (PACKAGE, {"wrong": ["head.1"]}, "head.1"),
        (PACKAGE, {"output": {"painted": [1, 3, 32, 32]}}, "32, 32"),
        (PACKAGE, {"input": {"x": [1, 3, 64, 64]}}, "takes x"),
        (PACKAGE, {"notes": False}, "say of itself"),
    ],
)
def test_whatever_is_wrong_is_said(entry: dict[str, Any], change: dict[str, Any], word: str) -> None:
    (problem,) = problems_of({**entry, "proof": {**entry["proof"], **change}})
    assert word in problem and "\n" not in problem


def test_the_table_has_both_runtimes() -> None:
    document = {**DOCUMENT, "files": [INTEGER, PROGRAM, PACKAGE], "latency_executorch": LATENCY}
    out = io.StringIO()
    Console(width=200, file=out).print(export_table(document, "exports"))
    text = out.getvalue()
    for part in ("7", "delegates 1", "1 of 1", "37.50", "(61.34)", "not run here", "12 of 12", "its float file: 2.50"):
        assert part in text, part


def test_the_cards_say_how_to_run_them() -> None:
    document = {**DOCUMENT, "latency_executorch": LATENCY}
    text = card({**document, "files": [PROGRAM]})
    for part in ("load_program", PROGRAM["file"], "64 x 64: the size is fixed", "Delegates of XNNPACK: 1", "| 7 |"):
        assert part in text, part
    assert "onnxruntime" not in text and "QLinearConv" not in text
    text = card({**document, "files": [PACKAGE]})
    for part in ("not run here", "FID of the same network in floats", "12 of 12", 'predict({"picture"'):
        assert part in text, part


@pytest.mark.parametrize(
    ("formats", "module", "extra"),
    [
        (("onnx", "executorch"), "executorch", "mobile"),
        (("executorch-float",), "executorch", "mobile"),
        (("coreml",), "coremltools", "coreml"),
    ],
)
def test_a_missing_extra_is_one_line(
    formats: tuple[str, ...], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gs_search.export.device_files import import_runtimes

    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput) as caught:
        import_runtimes(formats)
    message = str(caught.value)
    assert module in message and f'pip install -e ".[{extra}]"' in message and "\n" not in message
    import_runtimes(("onnx", "onnx-float", "packed"))


def test_what_libraries_say_is_kept_back_unless_they_fail(capfd: pytest.CaptureFixture[str]) -> None:
    from gs_search.export.executorch.program import quiet

    with quiet():
        print("chatter")
        os.write(2, b"chatter of C++\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError), quiet():
        os.write(2, b"why it failed\n")
        raise ValueError
    assert "why it failed" in capfd.readouterr().err
    os.write(1, b"heard\n")
    assert capfd.readouterr().out == "heard\n"


def test_an_unknown_format_names_those_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    from gs_search.export.export import export_student

    with pytest.raises(BadInput, match="executorch, executorch-float, coreml"):
        export_student(None, None, ("executor",))  # type: ignore[arg-type]

"""The verb on a real, small study: files, figures, and what a user's own program makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
from gs_search.cli import main  # noqa: E402
from gs_search.export import export as exporting  # noqa: E402
from gs_search.results.run_folder import RunFolder  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A user's program: nothing but the runtime, numpy and Pillow.
PAINT = """
import pathlib, sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for path in sorted(pathlib.Path(sys.argv[2]).glob("*.png")):
    x = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    y = session.run(None, {"picture": x})[0][0]
    y = (np.clip(y, -1, 1) * 127.5 + 128).clip(0, 255).astype(np.uint8)
    Image.fromarray(y.transpose(1, 2, 0)).save(pathlib.Path(sys.argv[3]) / path.name)
assert not {"torch", "onnx", "gs_search"} & set(sys.modules)
"""


def write_pngs(pictures: np.ndarray, place: Path) -> None:
    place.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{index:04d}.png")


def test_files_that_others_can_use(study: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", str(study.path), "--trial", "0", "--format", "onnx,onnx-float,packed", "--json"]
    assert main(arguments) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["ok"] and [entry["format"] for entry in document["files"]] == ["onnx-float", "onnx", "packed"]
    names = {path.name for path in study.exports.iterdir()}
    expected = {entry["file"] for entry in document["files"]}
    assert names == {name + end for name in expected for end in ("", ".md", ".json")} | {"teacher.onnx"}
    write_pngs(np.load(study.teacher / "validation.npy"), tmp_path / "inputs")
    write_pngs(np.load(study.teacher / "reference_pictures.npy"), tmp_path / "reference")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for entry in document["files"][:2]:
        file = study.exports / entry["file"]
        assert file.stat().st_size == entry["bytes"]
        out = tmp_path / entry["format"]
        out.mkdir()
        command = [sys.executable, "-c", PAINT, str(file), str(tmp_path / "inputs"), str(out)]
        subprocess.run(command, check=True, cwd=tmp_path, env=clean, capture_output=True)
        command = [sys.executable, "-W", "ignore", "-m", "pytorch_fid", str(out), str(tmp_path / "reference")]
        done = subprocess.run(command, check=True, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert float(done.stdout.split()[-1]) == pytest.approx(entry["fid"], abs=0.01)
        told = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
        assert told["student"] == "trial 0" and json.loads(told["protocol"])["pictures"] == 10
        content = file.read_bytes()
        assert b"/site-packages/" not in content and str(study.path).encode() not in content
    integer = document["files"][1]
    assert integer["proof"]["graph"]["integer"] == 12 and not integer["proof"]["graph"]["floats"]
    assert {"1", "2"} >= set(document["latency"]["threads"]) and integer["peak_memory_mb"] > 1
    before = (study.exports / integer["file"]).read_bytes()
    assert main([*arguments[:3], "0", "--format", "onnx"]) == 0
    assert (study.exports / integer["file"]).read_bytes() == before, "the same student gives the same bytes"
    instructions = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "vnni" not in instructions:
        return  # the proof refuses such a file here
    capsys.readouterr()
    assert main([*arguments[:3], "0", "--format", "onnx", "--vnni", "--json", "--out", str(tmp_path / "vnni")]) == 0
    (signed,) = json.loads(capsys.readouterr().out)["files"]
    graph = signed["proof"]["graph"]
    assert "-vnni@" in signed["file"] and graph["saturating"] == integer["proof"]["graph"]["unsigned"] != []
    assert signed["fid"] == integer["fid"]


def test_a_fixed_size(study: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["export", str(study.path), "--trial", "0", "--format", "onnx-float", "--out", str(tmp_path)]
    assert main([*base, "--size", "30"]) == 2
    assert main([*base, "--size", "64"]) == 0
    (file,) = (path for path in tmp_path.iterdir() if path.suffix == ".onnx" and path.name != "teacher.onnx")
    shape = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value or side.dim_param for side in shape] == ["n", 3, 64, 64]


def test_a_file_that_is_not_the_student_is_not_left(
    study: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine = exporting.integer_model

    def faulty(*arguments: Any) -> Any:
        built = genuine(*arguments)
        tensor = next(t for t in built.model.graph.initializer if t.data_type == onnx.TensorProto.INT32)
        zeros = np.zeros(tuple(tensor.dims), np.int32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
        return built

    monkeypatch.setattr(exporting, "integer_model", faulty)
    assert main(["export", str(study.path), "--trial", "0", "--format", "onnx", "--out", str(tmp_path)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.onnx"]
    assert "error: onnx: layer stem.1" in capsys.readouterr().err

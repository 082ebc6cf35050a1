"""What ``gs-search info`` says of this machine and of others."""

from __future__ import annotations

import io
import json
import platform
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gs_search import cli
from gs_search.monitor import info
from gs_search.monitor.info import info_document, render_info
from gs_search.system import machine


def _screen(document: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_info(document))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_one_document_and_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["versions"]["torch"] == torch.__version__.split("+")[0] or document["versions"]["torch"]
    assert document["versions"]["python"] == platform.python_version()
    assert document["processor"]["cores"] == machine.cores() <= document["processor"]["cores_of_machine"]
    assert 0 < document["memory"]["available_mb"] <= document["memory"]["total_mb"]
    assert document["precision"]["precision"] in ("bf16", "float32") and document["precision"]["problem"] is None
    assert document["precision"]["native"] or document["precision"]["precision"] == "float32"
    assert {"offline", "export", "phone", "cluster"} <= set(document["extras"]) and "test" not in document["extras"]
    text = _screen(document)
    assert len(text.splitlines()) <= 24
    for word in (document["processor"]["name"], "optional parts", "cores", "memory", "precision:"):
        assert word in text


@pytest.mark.parametrize(
    ("instructions", "architecture", "saturates"),
    [
        (("avx2",), "x86_64", True),
        (("avx2", "avx_vnni"), "x86_64", False),
        (("avx2", "avx512f"), "AMD64", True),
        (("avx512f", "avx512_vnni"), "x86_64", False),
        (("asimddp",), "aarch64", False),
        ((), "arm64", False),
    ],
)
def test_integer_kernels(instructions: tuple[str, ...], architecture: str, saturates: bool) -> None:
    assert info._integer_kernels(instructions, architecture)["saturates"] is saturates


def test_optional_parts_are_read_from_the_package() -> None:
    wanted = [
        "torch>=2.4", 'onnx>=1.17; extra == "export"', "no-such-package>=1; extra == 'export'",
        'gs-search[export]; extra == "mobile"', 'numpy; extra == "mobile"', 'pytest>=8; extra == "test"',
    ]  # fmt: skip
    assert info._extras(wanted) == {
        "export": {"installed": False, "missing": ["no-such-package"]},
        "mobile": {"installed": True, "missing": []},
    }


def test_a_broken_installation_is_what_the_report_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch cannot be loaded, nobody knows the user, the system tells of no memory: still a document and a screen."""

    def broken() -> bool:
        raise OSError("libcuda.so.1: cannot open\nshared object file")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("GS_SEARCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", broken)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(machine, "memory", lambda: None)
    monkeypatch.setattr(machine, "shared_memory_mb", lambda: None)
    document = info_document()
    assert "libcuda.so.1" in document["precision"]["problem"]
    assert "GS_SEARCH_CACHE" in document["folders"][0]["problem"]
    assert "unknown free of unknown" in _screen(json.loads(json.dumps(document)))


def test_the_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path / "cache"))
    assert info_document()["folders"][0]["used_mb"] == 0.0
    (tmp_path / "cache/deep").mkdir(parents=True)
    (tmp_path / "cache/deep/file").write_bytes(bytes(2_500_000))
    assert info_document()["folders"][0]["used_mb"] == 2.5

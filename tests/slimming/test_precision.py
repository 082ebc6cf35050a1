"""Which arithmetic ``auto`` takes: never the one that this machine is slower in; and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from gs_search.errors import BadInput
from gs_search.slimming import precision
from gs_search.slimming.precision import Decision, decide, settled, slowdown, warning
from gs_search.study.settings import SlimmingSettings

CPU = torch.device("cpu")


def with_factor(monkeypatch: pytest.MonkeyPatch, *, native: bool, factor: float) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda: native)
    monkeypatch.setattr(precision, "slowdown", lambda device: factor)


@pytest.mark.parametrize(
    ("native", "factor", "taken"),
    [
        (True, 0.7, "bf16"),
        (True, 1.05, "bf16"),
        (True, 1.2, "float32"),
        (True, 20.0, "float32"),
        (False, 0.5, "float32"),
    ],
)
def test_auto_takes_what_is_native_and_no_slower(
    monkeypatch: pytest.MonkeyPatch, native: bool, factor: float, taken: str
) -> None:
    with_factor(monkeypatch, native=native, factor=factor)
    decision = decide("auto", CPU)
    assert (decision.precision, decision.asked, decision.native) == (taken, "auto", native)
    assert settled(SlimmingSettings(), CPU).precision == taken
    assert f"precision: {taken}" in str(decision)
    assert json.loads(json.dumps(decision.to_json()))["precision"] == taken


def test_what_is_asked_for_is_taken_and_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with_factor(monkeypatch, native=False, factor=15.3)
    assert decide("float32", CPU) == Decision("float32", "float32", False, None, "cpu")
    asked = decide("bf16", CPU)
    assert asked.precision == "bf16" and "warning" in str(asked) and "15 times as long" in str(asked)
    assert settled(SlimmingSettings(precision="bf16"), CPU).precision == "bf16"
    assert warning(CPU) == str(asked)
    with_factor(monkeypatch, native=True, factor=0.7)
    assert warning(CPU) is None and str(decide("bf16", CPU)) == "precision: bf16, as the study says"


def test_a_gpu_without_it_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(BadInput, match="precision: bf16: Tesla T4 .* set precision: auto or float32"):
        decide("bf16", gpu)
    assert decide("auto", gpu).precision == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(precision, "slowdown", lambda device: 0.3)
    assert decide("auto", gpu).precision == "bf16"


def test_the_probe_is_quick_and_leaves_random_numbers_alone() -> None:
    slowdown.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    started = time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        factor = slowdown(CPU)
        assert torch.get_num_threads() == 2, "the caller's number comes back"
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - started < 5  # 0.5 s where bfloat16 is emulated, of one thread
    assert factor > 0
    assert torch.equal(torch.rand(3), expected)


def test_without_instructions_for_it_the_probe_finds_it_out() -> None:
    """torch and oneDNN without what lies above AVX2, on x86: bfloat16 is emulated, whatever the processor lists."""
    if "avx2" not in torch.backends.cpu.get_cpu_capability().lower() and (
        "avx512" not in torch.backends.cpu.get_cpu_capability().lower()
    ):
        pytest.skip("not an x86 processor with AVX2")
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from gs_search.slimming.precision import decide, slowdown\n"
        "cpu = torch.device('cpu'); print(slowdown(cpu), decide('auto', cpu).precision)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    factor, taken = done.stdout.split()
    assert float(factor) > 3 and taken == "float32"

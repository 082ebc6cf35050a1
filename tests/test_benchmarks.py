"""The parts of the benchmarks that can be wrong without anybody noticing, and whether each of them starts."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from benchmarks.engine import cases as engine_cases
from benchmarks.engine import runs_table, usage
from benchmarks.engine_trial import objectives
from benchmarks.kills import counts
from benchmarks.kills_processes import below, is_alive, wait_until_gone
from benchmarks.kills_trial import NANS, key_of
from benchmarks.plot import Panel, write_plot
from benchmarks.reference_step import fake_quantize
from benchmarks.report import mean_and_spread, number, table, wrong_turns
from benchmarks.rows import Case, Row, Rows, curve, distinct
from benchmarks.scaling import limit, served


@pytest.mark.parametrize(
    "name", ["fid", "prune", "bits", "repair", "step", "engine", "scaling", "kills", "export", "lessons", "loading"]
)
def test_says_how_it_is_called(name: str) -> None:
    done = CliRunner().invoke(import_module(f"benchmarks.{name}").main, ["--help"])
    assert done.exit_code == 0
    assert f"OMP_NUM_THREADS=1 python -m benchmarks.{name}" in " ".join(done.output.split())


def test_table() -> None:
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
    with pytest.raises(ValueError, match="2 cells"):
        table(["a", "b"], [[1]])


def test_numbers_of_several_seeds() -> None:
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert mean_and_spread([2.0, 2.0]) == mean_and_spread([2.0]) == "2.00"
    assert mean_and_spread([math.inf, math.inf]) == "∞"
    assert mean_and_spread([]) == number(None) == "-"


def test_wrong_turns_of_a_curve() -> None:
    dips = {1.0: [5.0, 7.0], 4.0: [9.0], 2.0: [5.5]}  # means 6, 5.5, 9 in the order of x
    assert wrong_turns(dips, rising=True) == ["6.000 at 1, 5.500 at 2"]
    assert wrong_turns(dips, rising=True, slack=0.5) == []
    assert wrong_turns(dips, rising=False) == ["5.500 at 2, 9.000 at 4"]
    assert wrong_turns({1.0: [math.inf], 2.0: [math.inf], 3.0: []}, rising=True) == []


def square(case: Case) -> dict[str, Any]:
    """What the processes of the next tests measure."""
    if case["x"] < 0:
        raise ArithmeticError("negative")
    return {"y": case["x"] ** 2}


def cases(*xs: int) -> list[Case]:
    return [{"x": x, "seed": 0} for x in xs]


def test_rows_continue_where_they_were_stopped(tmp_path: Path) -> None:
    rows = Rows(tmp_path, {"tiny": True})
    with pytest.raises(ArithmeticError):
        rows.measure(cases(3, -1), square, processes=1)
    rows.add({"x": 5, "seed": 0}, {"y": -25})  # would be 25 if it were measured again
    with rows.path.open("a") as file:
        file.write('{"case": {"x": 7, ')  # killed while it wrote
    again = Rows(tmp_path, {"tiny": True}).measure(cases(7, 5, 3), square, processes=2)
    assert [row["y"] for row in again] == [49, -25, 9]
    assert [row["x"] for row in rows.of(cases(3, 4, 5))] == [3, 5]
    assert len(rows.path.read_text().splitlines()) == 3


def test_rows_of_another_setup_are_refused(tmp_path: Path) -> None:
    Rows(tmp_path, {"steps": 1})
    with pytest.raises(click.ClickException, match="other arguments"):
        Rows(tmp_path, {"steps": 2})


def test_distinct_and_curve() -> None:
    assert distinct(cases(2, 1, 2, 3, 1)) == cases(2, 1, 3)
    rows: list[Row] = [{"x": 1, "y": 2.0}, {"x": 1, "y": 3.0}, {"x": 2, "failed": "nan"}]
    assert curve(rows, "x", "y") == {1: [2.0, 3.0]}


def test_plot_of_nothing_and_of_infinity(tmp_path: Path) -> None:
    curves = {"a": {1.0: [2.0, 3.0], 2.0: [math.inf]}, "nothing": {}}
    write_plot(tmp_path / "plot.png", [Panel("t", "x", "y", curves), Panel("t", "x", "y", {}, log_x=True)])
    with Image.open(tmp_path / "plot.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10


def test_reference_quantization_rounds_weights_and_inputs_but_pixels() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 1)
    layers = fake_quantize(nn.Sequential(first, nn.ConvTranspose2d(4, 3, 2, stride=2)))
    pixels = torch.full((1, 3, 4, 4), -0.3, requires_grad=True)  # would be clamped to 0
    assert layers(pixels).shape == (1, 3, 8, 8)
    layers(pixels).sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    bias = first(torch.zeros(1, 3, 1, 1))
    codes = (first(torch.eye(3).view(3, 3, 1, 1)) - bias) / first.weight.abs().max() * 127
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_usage_of_workers_by_trials_that_sleep() -> None:
    # Two workers for 4 s; three trials of 2 s, so that 2 s are lost on three of them.
    found = usage([(10.0, 12.0), (10.0, 12.0), (12.0, 14.0)], workers=2)
    # Both have begun at 10, the last trial begins at 12: nobody waits between.
    assert found == {"finished": 3, "overhead": pytest.approx(2 / 3), "busy": pytest.approx(0.75), "steady": 1.0}
    later = usage([(10.0, 11.0), (11.0, 12.0), (12.0, 13.0), (14.0, 15.0)], workers=2)
    assert later["steady"] == pytest.approx(2 / 6) and later["busy"] == pytest.approx(0.4)
    row = {"system": "gs_search", "seconds": 2.0, "workers": 2, "trials": 4, "processes": 2, **found}
    row["run_seconds"] = 9.4
    assert runs_table([row]).splitlines()[-1] == "| 2 s | 2 | gs_search | 3 of 4 | 2 | 0.67 | 75.0 | 100.0 | 9 |"


def test_what_a_driver_serves() -> None:
    row: dict[str, Any] = {"workers": 16, "seconds": 0.5, "steady": 0.25}
    assert served(row) == 8.0  # four of sixteen busy with trials of half a second
    assert "Asked for 32 trials a second, the engine ran 8.0" in limit(row) and "112 s or more" in limit(row)


@pytest.mark.parametrize("name", ["engine", "engine-quick", "engine-tiny"])
def test_both_engines_get_the_same_work(name: str) -> None:
    runs, asks = engine_cases(name)
    assert distinct([*runs, *asks]) == [*runs, *asks]
    work = {system: [(c["seconds"], c["workers"], c["trials"]) for c in runs if c["system"] == system]
            for system in ("gs_search", "OptunaSearch, reused")}  # fmt: skip
    assert work["gs_search"] == work["OptunaSearch, reused"]
    assert all(case["trials"] >= 2 * case["workers"] for case in runs)


def test_what_kills_have_left_is_counted() -> None:
    names = ["target_gflops_ratio", "weight_bits.body", "sparsity_multiplier.body", "distill_weight", "feature_weight"]
    points = [dict(zip(names, (share, 8, 1.0, 10, 5.0), strict=True)) for share in (i / 20 for i in range(1, 9))]
    keys = [key_of(point, names) for point in points]
    assert key_of({**points[0], "distill_weight": 10.0, "other": 1}, names) == keys[0]

    def trial(state: str, index: int, values: list[float] | None = None) -> Any:
        return SimpleNamespace(state=SimpleNamespace(name=state), params=points[index], values=values, user_attrs={})

    whole = [objectives(point)["fid"] for point in points]
    trials = [
        trial("COMPLETE", 0, [whole[0], 0, 0]),
        trial("COMPLETE", 1, [whole[1] * 1.5, 0, 0]),  # stopped, and told as if it were done
        trial("PRUNED", 2),
        trial("RUNNING", 3),
        trial("FAIL", 4),
        trial("FAIL", 5),
        trial("WAITING", 6),
    ]
    assert NANS[0] == 5
    order = [0, 1, 2, 3, 4, 5, 3]  # the fourth was begun again
    marks = [("begin", keys[index], 1) for index in order]
    marks += [("end", keys[index], 1) for index in (0, 3, 3)]
    assert counts(trials, marks, names) == {
        "asked": 6, "complete": 2, "partial": 1, "pruned": 1, "failed": 2, "running": 1, "lost": 2,
        "repeated": 1, "nan": 1,
    }  # fmt: skip


def test_processes_are_found_below_their_parents_and_seen_to_end() -> None:
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert below(process.pid) == [child] and child in below(os.getpid())
        assert wait_until_gone([child], seconds=0) == ["sleep\x0060\x00"]
        os.kill(child, signal.SIGKILL)
        assert wait_until_gone([child], seconds=10) == []
    assert not is_alive(process.pid)

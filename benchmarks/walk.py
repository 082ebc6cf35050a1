"""What the parts of the repair are worth: one student, the walk changed in one thing at a time.

    export GS_SEARCH_CHECKPOINT=/path/to/Hayao_net_G_float.pth GS_SEARCH_PHOTOS=/path/to/photos
    OMP_NUM_THREADS=1 python -m benchmarks.walk

A CartoonGAN at 128 px, cut once to a quarter of its multiply-adds, as ``benchmarks.repair`` prepares it (its folder is
used, or made). PSNR to the teacher on 100 photos, no training but in the last rows; processor seconds of the walk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from torch import Tensor, nn

from benchmarks.repair import study
from benchmarks.report import environment, number, publish, table
from benchmarks.rows import Case, Rows
from benchmarks.students import slimmed
from gs_search.errors import GsSearchError
from gs_search.measure.psnr import psnr
from gs_search.results.run_folder import RunFolder
from gs_search.slimming import importance as importances
from gs_search.slimming import repair
from gs_search.slimming.sparsity import Rules, cut_to_target, magnitudes
from gs_search.study.settings import SlimmingSettings, settings_from_point
from gs_search.trial.assets import TrialAssets, paint, prepare

W4A8: dict[str, Any] = {"weight_bits": 4, "activation_bits": 8}
W3A8: dict[str, Any] = {"weight_bits": 3, "activation_bits": 8}
FLOAT: dict[str, Any] = {"weight_bits": 32, "activation_bits": 32}

VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "float": (FLOAT, ""),
    "float, no refit": ({**FLOAT, "repair": False}, ""),
    "float, ridge 0.001": (FLOAT, "ridge 0.001"),
    "float, ridge 0.03": (FLOAT, "ridge 0.03"),
    "float, 4,000 positions": (FLOAT, "positions 4000"),
    "float, 8,000 positions": (FLOAT, "positions 8000"),
    "float, 8 pictures": (FLOAT, "pictures 8"),
    "float, importance rank": ({**FLOAT, "importance": "rank"}, ""),
    "float, importance raw": ({**FLOAT, "importance": "raw"}, ""),
    "float, taylor, the same share of every group": (FLOAT, "allocation 0"),
    "float, taylor, a group's whole worth": (FLOAT, "allocation 1"),
    "w8a8": ({"weight_bits": 8, "activation_bits": 8}, ""),
    "w4a8": (W4A8, ""),
    "w4a8, no refit": ({**W4A8, "repair": False}, ""),
    "w4a8, rounded after the walk": (W4A8, "afterwards"),
    "w4a8, bias not corrected for rounding": (W4A8, "no_bias"),
    "w4a8, rounded in turn (GPTQ)": (W4A8, "in_turn 4"),
    "w3a8, each to its nearest": (W3A8, "in_turn 0"),
    "w3a8, rounded in turn (GPTQ)": (W3A8, "in_turn 3"),
    "w4a8, calibration max": ({**W4A8, "calibration": "max"}, ""),
    "w4a8, calibration clip": ({**W4A8, "calibration": "clip"}, ""),
    "w4a8, calibration quantile": ({**W4A8, "calibration": "quantile"}, ""),
    "w4a8, outputs in 8 bits too": ({**W4A8, "quantize": "deploy"}, ""),
    "w4a8, 100 steps": ({**W4A8, "steps": 100}, ""),
    "w4a8, 100 steps, a second walk": ({**W4A8, "steps": 100}, "second"),
}
"""Name to settings, and what is changed inside the walk."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/benchmarks/walk"))
@click.option(
    "--ground",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/benchmarks/repair"),
    show_default=True,
    help="Folder of benchmarks.repair.",
)
@click.option("--processes", default=2, show_default=True)
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
def main(out: Path, ground: Path, processes: int, tiny: bool) -> None:
    try:
        config = study(tiny)
        rows = Rows(out, {"study": config.identity()})
        ground.mkdir(parents=True, exist_ok=True)
        prepare(config, RunFolder(ground / "assets"), lambda line: click.echo(line, err=True))
    except GsSearchError as error:
        raise click.ClickException(str(error).splitlines()[0]) from None
    cases: list[Case] = [{"variant": name} for name in VARIANTS]
    rows.measure(cases, functools.partial(measure, ground, tiny), processes=processes)
    lines = [[row["variant"], number(row["psnr"]), number(row["repair_seconds"], 1)] for row in rows.of(cases)]
    told = environment(multiply_adds="a quarter", pixels=config.image_px, seeds=1)
    publish(out, "Walk", told, table(["student", "PSNR, dB", "walk, s"], lines))


def measure(folder: Path, tiny: bool, case: Case) -> dict[str, Any]:
    """One student."""
    config = study(tiny)
    torch.set_num_threads(1)
    ground = TrialAssets.of(RunFolder(folder / "assets"), config)
    changes, twist = VARIANTS[case["variant"]]
    settings = settings_from_point({"target_gflops_ratio": 0.25, "steps": 0, **changes}, config.settings)
    with twisted(twist, ground):
        student, painted, found = slimmed(ground, settings, 0)
        if twist == "second":
            walk_again(ground, student, settings)
            painted = paint(student, ground.validation)
    return {**found, "psnr": psnr(painted, ground.validation_outputs)}


def walk_again(ground: TrialAssets, student: nn.Module, settings: SlimmingSettings) -> None:
    """Refit the trained student to the teacher once more (its scales have moved, its targets have not)."""
    network, scaling = ground.teacher.student(settings.importance)
    alive = cut_to_target(
        ground.teacher.graph,
        magnitudes(ground.teacher.graph, network, scaling.units),
        0.25,
        Rules.of(settings),
    )
    repair.repair_(ground.teacher.graph, student, alive, ground.targets, settings)


@contextmanager
def twisted(twist: str, ground: TrialAssets) -> Iterator[None]:
    """While open, one thing about the walk is otherwise."""
    name, _, value = twist.partition(" ")
    own = repair.repair_
    with ExitStack() as stack:
        if name in ("ridge", "in_turn"):
            option: Mapping[str, Any] = {"ridge": float(value)} if name == "ridge" else {"in_turn_bits": int(value)}
            stack.enter_context(mock.patch("benchmarks.students.repair_", functools.partial(own, **option)))
        elif name == "afterwards":
            stack.enter_context(mock.patch("benchmarks.students.repair_", _afterwards(own)))
        elif name == "no_bias":
            stack.enter_context(_uncorrected())
        elif name == "allocation":
            stack.enter_context(mock.patch.object(importances, "ALLOCATION", float(value)))
        elif name in ("positions", "pictures"):
            pictures = ground.targets.pictures[: int(value)] if name == "pictures" else ground.targets.pictures
            count = int(value) if name == "positions" else repair.POSITIONS
            targets = repair.record_targets(ground.teacher.network, pictures, positions=count)
            stack.enter_context(mock.patch.object(ground, "targets", targets))
        yield


def _afterwards(own: Callable[..., Any]) -> Callable[..., None]:
    def walk(graph: Any, student: nn.Module, alive: Any, targets: Any, settings: SlimmingSettings, **rest: Any) -> None:
        own(graph, student, alive, targets, settings_from_point(FLOAT, {"target_gflops_ratio": 0.25}), **rest)
        repair.attach_quantizers(graph, student, settings, targets.pictures)

    return walk


@contextmanager
def _uncorrected() -> Iterator[None]:
    solved: list[Tensor | None] = []
    solve, bias = repair._Sums.solve, repair._Sums.bias

    def remember(self: Any, before: Tensor, ridge: float) -> Tensor | None:
        solved[:] = [solve(self, before, ridge)]
        return solved[0]

    def of_float(self: Any, matrix: Tensor) -> Tensor:
        found = solved.pop() if solved else None  # none where equations were too few
        return bias(self, matrix if found is None else found)

    with mock.patch.object(repair._Sums, "solve", remember), mock.patch.object(repair._Sums, "bias", of_float):
        yield


if __name__ == "__main__":
    main()

"""A training step here against the reference code's mathematics: the same losses, how many seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.step

Both train a ResNet generator (width 64, 9 blocks) against a PatchGAN of width 64 with VGG16's content and style
terms, towards a teacher with other random weights. First the losses of ten steps in float32 are compared; then steps
take turns, one thread, and the median over the rounds of the ratio of processor seconds counts. The reference step
(``benchmarks.reference_step``) runs under bf16 autocast, too, which the reference code does not offer. Some six
minutes; a stopped run continues.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import torch
from torch import Tensor, nn

from benchmarks.plot import Curve, Panel, write_plot
from benchmarks.reference_step import ReferenceRates, ReferenceStep, fake_quantize, vgg16_stages
from benchmarks.report import environment, number, publish, table
from benchmarks.rows import Case, Row, Rows
from gs_search.networks import ResnetGenerator
from gs_search.slimming import Lessons, Teacher
from gs_search.slimming.discriminator import Adversary
from gs_search.slimming.importance import Scaling
from gs_search.slimming.layers import slimmable
from gs_search.slimming.perceptual import Perceptual, PerceptualCache, Stages
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.training import Training
from gs_search.study.settings import SlimmingSettings

Precision = Literal["float32", "bf16"]

SIZES = ((64, 8), (256, 1))
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
TOLERANCE = 1e-4
COMPARED_STEPS = 10
COMPARED_BATCH = 4
"""Ten steps then stay below the 50 pictures of the buffers, which draw different ones when they are full."""
BUDGET = 0.05
"""What the proximal steps take off every scale in the compared steps: ten times the reference code's rho."""
COMPARED_RATES = ReferenceRates(weights=1e-7, scales=0.01, discriminator=1e-7, discriminator_weight_decay=0.0)
"""Smaller than the reference code's, at which a random network is chaotic: within ten steps the reference differs by
3e-3 from itself with weights nudged by 1e-7. Here the terms still move by percents."""
TERMS = {"content": "perceptual", "style": "style", "adversarial": "adversarial", "discriminator": "discriminator"}
"""Terms of the reference step, and what they are called here."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/step]")
@click.option("--rounds", default=8, show_default=True, help="Timed steps of each variant.")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The times mean nothing.")
def main(out: Path | None, rounds: int, tiny: bool) -> None:
    folder = out or Path("runs/benchmarks/step-tiny" if tiny else "runs/benchmarks/step")
    rounds = 2 if tiny else rounds
    rows = Rows(folder, {"tiny": tiny, "rounds": rounds})
    compared: Case = {"compare": True}
    timed: list[Case] = [
        {"compare": False, "px": px, "batch": batch, "quantized": quantized}
        for px, batch in (((32, 2),) if tiny else SIZES)
        for quantized in (False, True)
    ]
    # One process: steps that take turns in it see the same machine.
    rows.measure([compared, *timed], functools.partial(measure, rounds, tiny), processes=1)
    worst = report(folder, rows.of([compared])[0], rows.of(timed), environment(rounds=rounds, seeds=1))
    if worst > TOLERANCE:
        raise click.ClickException(f"the losses differ by {worst:.1e}, more than {TOLERANCE:g}")


def measure(rounds: int, tiny: bool, case: Case) -> dict[str, Any]:
    """The losses of both, or their seconds."""
    torch.set_num_threads(1)
    shape = (8, 2) if tiny else (64, 9)
    if case["compare"]:
        return _compared(shape, 32 if tiny else 64)
    return _timed(shape, case["px"], case["batch"], case["quantized"], rounds)


def _compared(shape: tuple[int, int], px: int) -> dict[str, Any]:
    """Losses of ten float32 steps of both, from the same weights, on the same pictures, with the same rates."""
    players = Players.make(shape, px, COMPARED_BATCH, COMPARED_RATES)
    reference_student, critic = copy.deepcopy(players.plain_student), copy.deepcopy(players.adversary.network)
    training = players.training(COMPARED_STEPS)
    ours, shares = [], []
    for _ in range(COMPARED_STEPS):
        ours.append({name: float(value) for name, value in training.run_step(players.batch()).items()})
        shares.append(training.scale_optimizer.param_groups[0]["lr"] / COMPARED_RATES.scales)
    # The budget is spread over the steps as the learning rates are: rho * lr * sum of shares.
    rates = dataclasses.replace(COMPARED_RATES, rho=BUDGET / (COMPARED_RATES.scales * sum(shares)))
    reference = ReferenceStep(reference_student, critic, players.stages, rates, patches_first=False)
    theirs = [reference.run(players.inputs, players.outputs, share=share) for share in shares]
    return {"ours": [{name: row[TERMS[name]] for name in TERMS} for row in ours], "theirs": theirs}


def _timed(shape: tuple[int, int], px: int, batch: int, quantized: bool, rounds: int) -> dict[str, Any]:
    """Processor seconds of each variant, one step of each in turn."""
    steps: dict[str, Callable[[], Any]] = {}
    for precision in PRECISIONS:
        players = Players.make(shape, px, batch, ReferenceRates(), precision=precision, quantized=quantized)
        student, critic = copy.deepcopy(players.plain_student), copy.deepcopy(players.adversary.network)
        if quantized:
            fake_quantize(student)
        reference = ReferenceStep(student, critic, players.stages, ReferenceRates(), bf16=precision == "bf16")
        steps[f"reference, {precision}"] = functools.partial(reference.run, players.inputs, players.outputs)
        # Long enough for the learning rates to stay what they are.
        training = players.training(10_000)
        steps[f"ours, {precision}"] = functools.partial(_step, training, players)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):  # the first one warms up
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {"seconds": seconds}


def _step(training: Training, players: Players) -> None:
    training.run_step(players.batch())


@dataclass(frozen=True)
class Players:
    """Everything that both steps start from.

    Attributes:
        plain_student: the student before it was made slimmable.
        stages: VGG16's, of the reference step; ours has its own copy of them.
        inputs: N x 3 x H x W in [-1, 1], the pictures of every step.
        outputs: the teacher's of them.
    """

    teacher: Teacher
    plain_student: nn.Module
    student: nn.Module
    settings: SlimmingSettings
    adversary: Adversary
    lessons: Lessons
    stages: list[nn.Sequential]
    inputs: Tensor
    outputs: Tensor

    @staticmethod
    def make(
        shape: tuple[int, int],
        px: int,
        batch: int,
        rates: ReferenceRates,
        *,
        precision: Precision = "float32",
        quantized: bool = False,
    ) -> Players:
        """Seeded players; ``shape``: width and blocks of the generators."""
        torch.manual_seed(0)
        teacher = Teacher(ResnetGenerator(*shape), px)
        plain = ResnetGenerator(*shape)
        noise = torch.rand(batch, 3, px // 4, px // 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
        inputs = nn.functional.interpolate(noise, size=px, mode="bicubic").clamp(-1, 1)
        lessons = Lessons.in_memory(teacher, inputs)
        bits = 8 if quantized else 32
        settings = SlimmingSettings(
            prune="inner",
            schedule="proximal",
            importance="raw",
            sparsity_weight=BUDGET,
            weight_bits=bits,
            activation_bits=bits,
            distill_weight=0.0,
            feature_weight=0.0,
            perceptual_network="vgg16",
            perceptual_weight=20.0,
            style_weight=20.0 * 1e5,
            discriminator_width=shape[0],
            batch_size=batch,
            learning_rate=rates.weights,
            scale_learning_rate=rates.scales,
            scale_momentum=rates.momentum,
            discriminator_learning_rate=rates.discriminator,
            weight_decay=rates.weight_decay,
            precision=precision,
        )
        student = slimmable(plain)
        attach_quantizers(teacher.graph, student, settings, inputs)
        adversary = Adversary(settings, torch.Generator().manual_seed(0), "cpu")
        outputs = lessons.batch(range(batch)).outputs
        return Players(teacher, plain, student, settings, adversary, lessons, vgg16_stages(0), inputs, outputs)

    def training(self, steps: int) -> Training:
        """Ours, with the same VGG16."""
        return Training(
            self.teacher,
            self.student,
            Scaling.none(self.teacher.graph),
            self.teacher.graph.all_alive(),
            self.settings,
            self.adversary,
            steps=steps,
            sparsity=True,
            perceptual=PerceptualCache(Perceptual(Stages(copy.deepcopy(self.stages), [0.5] * 3, [0.5] * 3))),
        )

    def batch(self) -> Any:
        return self.lessons.batch(range(len(self.inputs)))


def report(folder: Path, compared: Row, timed: Sequence[Row], told: str) -> float:
    """Both tables and a plot of the ratios; returns the worst relative difference of the losses."""
    lines, worst = [], 0.0
    for name in TERMS:
        differences = [
            abs(a[name] - b[name]) / abs(b[name]) for a, b in zip(compared["ours"], compared["theirs"], strict=True)
        ]
        worst = max(worst, *differences)
        last = compared["ours"][-1][name], compared["theirs"][-1][name]
        lines.append([name, *(f"{value:.6g}" for value in last), f"{differences[0]:.1e}", f"{max(differences):.1e}"])
    losses = table(["term", "ours, last step", "reference", "difference, first step", "largest of all steps"], lines)
    seconds, panels = [], []
    for row in timed:
        cell = f"{row['px']} px, batch {row['batch']}, {'w8a8' if row['quantized'] else 'float'}"
        reference = row["seconds"]["reference, float32"]
        for precision in PRECISIONS:
            theirs, ours = row["seconds"][f"reference, {precision}"], row["seconds"][f"ours, {precision}"]
            medians = [number(statistics.median(values), 3) for values in (theirs, ours)]
            ratios = [number(statistics.median(_ratios(values, ours))) for values in (theirs, reference)]
            seconds.append([cell, precision, *medians, *ratios])
        curves: dict[str, Curve] = {p: _curve(reference, row["seconds"][f"ours, {p}"]) for p in PRECISIONS}
        panels.append(Panel(cell, "round", "times faster than the reference in float32", curves))
    header = ["", "arithmetic", "reference, s", "ours, s", "times faster", "than the reference in float32"]
    write_plot(folder / "step.png", panels)
    publish(
        folder,
        "Training step",
        told,
        f"Losses of {len(compared['ours'])} float32 steps:",
        losses,
        "Processor seconds of a step, medians; times faster are medians over the rounds:",
        table(header, seconds),
    )
    return worst


def _ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(slow, fast, strict=True)]


def _curve(slow: Sequence[float], fast: Sequence[float]) -> Curve:
    return {turn + 1: [ratio] for turn, ratio in enumerate(_ratios(slow, fast))}


if __name__ == "__main__":
    main()

"""The repair on a real teacher: what refit, steps, schedule, bits and importance are worth on photos.

    export GS_SEARCH_CHECKPOINT=/path/to/Hayao_net_G_float.pth GS_SEARCH_PHOTOS=/path/to/photos
    OMP_NUM_THREADS=1 python -m benchmarks.repair --quick

Students of a CartoonGAN at 128 px, settings of ``studies/cartoongan.yaml`` but for what a row names; PSNR to the
teacher on 100 photos, FID of the same 100 against the teacher's pictures of 150 others. ``--quick`` is a fixed
subset of some fifteen minutes on two cores; without it the run takes hours, the most informative rows first. Rows of
a stopped run are kept, and those of ``--quick`` count for the full one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.plot import Panel, write_plot
from benchmarks.report import environment, mean_and_spread, number, publish, table
from benchmarks.rows import Case, Row, Rows, curve, distinct, grouped
from benchmarks.students import FAILURES, STUDIES, slimmed
from gs_search.data.images import grid, to_uint8, write_png
from gs_search.errors import GsSearchError
from gs_search.measure.features import inception_features
from gs_search.measure.fid import frechet_distance
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.settings import settings_from_point
from gs_search.trial.assets import TrialAssets, prepare
from gs_search.trial.run import LOOK_PICTURES

TARGETS = (0.5, 0.25, 0.1, 0.04, 1 / 47)
STEPS = (0, 25, 100, 400)
BITS = {"float": (32, 32), "w8a8": (8, 8), "w4a8": (4, 8)}
VIEWS = 112
SHOWN = 6
"""Photos in the grid of pictures."""

BASE = {
    "target": 0.25,
    "refit": True,
    "steps": 100,
    "prune": "all",
    "schedule": "at_once",
    "bits": "w8a8",
    "importance": "taylor",
    "seed": 0,
}
"""The student that every row differs from in a few things."""

QUICK = (
    {"steps": 0},
    {"steps": 0, "refit": False},
    {"steps": 0, "bits": "float"},
    {"steps": 0, "bits": "w4a8"},
    {"steps": 0, "importance": "rank"},
    {"steps": 0, "importance": "raw"},
    {"steps": 100},
    {"schedule": "proximal"},
    {"prune": "inner"},
    {"steps": 25},
    {"steps": 25, "refit": False},
)
QUICK_TARGETS = (0.25, 0.1)

WORTH: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "the refit, without training": ({"steps": 0, "refit": False}, {"steps": 0}),
    "the refit, before 25 steps": ({"steps": 25, "refit": False}, {"steps": 25}),
    "the refit, before 100 steps": ({"refit": False}, {}),
    "the refit, before 400 steps": ({"steps": 400, "refit": False}, {"steps": 400}),
    "25 steps": ({"steps": 0}, {"steps": 25}),
    "100 steps": ({"steps": 0}, {"steps": 100}),
    "400 steps": ({"steps": 0}, {"steps": 400}),
    "pruning inner instead of all": ({}, {"prune": "inner"}),
    "proximal instead of at once": ({}, {"schedule": "proximal"}),
    "float instead of w8a8": ({}, {"bits": "float"}),
    "w4a8 instead of w8a8": ({}, {"bits": "w4a8"}),
    "float instead of w8a8, without training": ({"steps": 0}, {"steps": 0, "bits": "float"}),
    "w4a8 instead of w8a8, without training": ({"steps": 0}, {"steps": 0, "bits": "w4a8"}),
    "importance raw instead of taylor": ({}, {"importance": "raw"}),
    "importance raw, without training": ({"steps": 0}, {"steps": 0, "importance": "raw"}),
    "importance rank instead of taylor": ({}, {"importance": "rank"}),
    "importance rank, without training": ({"steps": 0}, {"steps": 0, "importance": "rank"}),
}
"""What a change is worth: the rows without it and with it, as differences from ``BASE``."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/repair]")
@click.option("--quick", is_flag=True, help="The fixed subset: 1/4 and 1/10 of the multiply-adds, one seed.")
@click.option("--report-only", is_flag=True, help="Measure nothing: tables and pictures of the rows that are there.")
@click.option("--seeds", default=3, show_default=True, help="Of the full run, for rows with training.")
@click.option("--processes", default=2, show_default=True)
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
def main(out: Path | None, quick: bool, report_only: bool, seeds: int, processes: int, tiny: bool) -> None:
    folder = out or Path("runs/benchmarks/repair-tiny" if tiny else "runs/benchmarks/repair")
    try:
        config = study(tiny)
        rows = Rows(folder, {"study": config.identity()})
        prepare(config, RunFolder(folder / "assets"), lambda line: click.echo(line, err=True))
    except GsSearchError as error:
        raise click.ClickException(str(error).splitlines()[0]) from None
    cases = tiny_cases() if tiny else quick_cases() if quick else full_cases(seeds)
    (folder / "pictures").mkdir(exist_ok=True)
    if not report_only:
        rows.measure(cases, functools.partial(measure, folder, tiny), processes=processes)
    report(folder, config, rows.of(cases))


def study(tiny: bool) -> StudyConfig:
    """The study of the README on the photos and the checkpoint that the environment names."""
    config = load_study(STUDIES / "cartoongan.yaml")
    counts = {"train": 8, "val": 4, "test": 0, "reference": 4, "views": 8} if tiny else {"test": 0, "views": VIEWS}
    changes: dict[str, Any] = {"data": config.data.model_copy(update=counts)}
    if tiny:
        changes |= {"image_px": 32, "settings": {**config.settings, "batch_size": 1, "repair_pictures": 4}}
        changes |= {"measure": config.measure.model_copy(update={"fid_images": 4})}
    return config.model_copy(update=changes)


def tiny_cases() -> list[Case]:
    return [_case(row | {"target": 0.1}) for row in (*QUICK[:2], {"steps": 2})]


def quick_cases() -> list[Case]:
    """The questions of ``--quick``, for both targets at a time."""
    return [_case(row | {"target": target}) for row in QUICK for target in QUICK_TARGETS]


def full_cases(seeds: int) -> list[Case]:
    """All rows, the most informative first; further seeds of the rows with training come last."""
    bits: list[dict[str, Any]] = [{"bits": bits, "steps": steps} for bits in ("w4a8", "float") for steps in (0, 100)]
    importances: list[dict[str, Any]] = [
        {"importance": name, "steps": steps} for name in ("rank", "raw") for steps in (0, 100)
    ]
    ways: list[dict[str, Any]] = [{"prune": "inner", "steps": 0}, {"prune": "inner"}, {"schedule": "proximal"}]
    blocks: list[list[dict[str, Any]]] = [
        [{"steps": 0}, {"steps": 100}],
        [{"steps": 0, "refit": False}, {"refit": False}],
        bits,
        importances,
        ways,
        [{"steps": 25}, {"steps": 25, "refit": False}],
        [{"steps": 400}, {"steps": 400, "schedule": "proximal"}, {"steps": 400, "refit": False}],
    ]
    first = quick_cases() + [_case(row | {"target": t}) for block in blocks for t in TARGETS for row in block]
    more = [{**case, "seed": seed} for seed in range(1, seeds) for case in first if case["steps"]]
    return distinct([*first, *more])


def _case(changes: Mapping[str, Any]) -> Case:
    return {**BASE, **changes}


def measure(folder: Path, tiny: bool, case: Case) -> dict[str, Any]:
    """One student, with its pictures of some photos left in the folder."""
    config = study(tiny)
    torch.set_num_threads(1)
    ground = TrialAssets.of(RunFolder(folder / "assets"), config)
    weight_bits, activation_bits = BITS[case["bits"]]
    point = {
        "target_gflops_ratio": case["target"],
        "repair": case["refit"],
        "steps": case["steps"],
        "prune": case["prune"],
        "schedule": case["schedule"],
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "importance": case["importance"],
    }
    settings = settings_from_point(point, config.settings)
    try:
        _, painted, found = slimmed(ground, settings, case["seed"], looked_at=LOOK_PICTURES)
    except FAILURES as failure:
        return {"failed": str(failure)}
    pictures = to_uint8(painted)
    write_png(_strip(folder, case), grid([pictures[:SHOWN]]))
    return {**found, "fid": frechet_distance(inception_features(pictures, model=ground.inception), ground.reference)}


def report(folder: Path, config: StudyConfig, rows: Sequence[Row]) -> None:
    """What each thing is worth, all rows, a plot, and the grid of pictures."""
    ground = TrialAssets.of(RunFolder(folder / "assets"), config)
    baselines = ground.baselines
    failed = [f"{_name(row)}, {_share(row['target'])}: {row['failed']}" for row in rows if "failed" in row]
    told = environment(
        photos_for_PSNR_and_FID=len(ground.validation),
        photos_for_the_reference=baselines.protocol.to_json()["reference_pictures"],
        pixels=config.image_px,
        training_views=len(ground.lessons),
        repair_pictures=len(ground.targets.pictures),
        seeds=len({row["seed"] for row in rows}),
    )
    anchors = (
        f"FID of the teacher {number(baselines.teacher.fid, 1)}, of the photos themselves "
        f"{number(baselines.input.fid, 1)} ({number(baselines.input.psnr_to_teacher)} dB); "
        f"standard deviation of a FID {number(baselines.fid_std, 1)}."
    )
    _write_plot(folder, rows)
    _write_grid(folder, ground, rows)
    publish(
        folder,
        "Repair",
        told,
        anchors,
        "What each thing is worth: PSNR in dB (more is better) / FID (less is better).",
        worth(rows),
        "All rows; seconds are of one processor, evaluation not counted.",
        _all_rows(rows),
        f"Failed: {'; '.join(failed)}." if failed else "",
    )


def worth(rows: Sequence[Row]) -> str:
    """Table of differences, for each target that has both rows (means over the seeds that both have)."""
    known = {tuple(row[name] for name in BASE): row for row in rows if "failed" not in row}
    targets = [target for target in TARGETS if any(row["target"] == target for row in rows)]
    seeds = sorted({row["seed"] for row in rows})
    lines = []
    for name, changes in WORTH.items():
        cells = []
        for target in targets:
            pairs = [
                tuple(known.get(tuple(_case(c | {"target": target, "seed": s}).values())) for c in map(dict, changes))
                for s in seeds
            ]
            gains = [(b["psnr"] - a["psnr"], b["fid"] - a["fid"]) for a, b in pairs if a and b]
            decibels, fids = [gain[0] for gain in gains], [gain[1] for gain in gains]
            cells.append(f"{mean_and_spread(decibels)} / {mean_and_spread(fids, 1)}" if gains else "-")
        if set(cells) != {"-"}:
            lines.append([name, *cells])
    return table(["", *(_share(target) for target in targets)], lines)


def _all_rows(rows: Sequence[Row]) -> str:
    names = [name for name in BASE if name != "seed"]
    lines = []
    for key, group in grouped(sorted(rows, key=lambda row: -row["target"]), *names).items():
        row = dict(zip(names, key, strict=True))
        landed = mean_and_spread([100 * r["macs_share"] for r in group], 1)
        cells = [_share(row["target"]), landed, _name(row), str(row["steps"])]
        cells += [mean_and_spread([r[name] for r in group]) for name in ("psnr_before", "psnr")]
        cells += [mean_and_spread([r[name] for r in group], 1) for name in ("fid", "repair_seconds", "run_seconds")]
        lines.append([*cells, number(group[0]["rate_factor"], 3), len(group)])
    header = ["target", "landed, %", "student", "steps", f"PSNR repaired ({LOOK_PICTURES} photos), dB", "PSNR, dB"]
    return table([*header, "FID", "repair, s", "run, s", "rates x", "seeds"], lines)


def _write_plot(folder: Path, rows: Sequence[Row]) -> None:
    """PSNR and FID over the share of multiply-adds, a curve for each number of steps, and one without refit."""
    usual = {name: value for name, value in BASE.items() if name not in ("target", "steps", "refit", "seed")}
    plain = [row for row in rows if "failed" not in row and all(row[n] == value for n, value in usual.items())]
    curves = {
        f"{steps} steps" + ("" if refit else ", no refit"): [
            row for row in plain if row["steps"] == steps and row["refit"] == refit
        ]
        for refit in (True, False)
        for steps in STEPS
    }
    panels = []
    for title, unit, y in (("Distance to the teacher", "dB", "psnr"), ("FID to the teacher", "FID", "fid")):
        drawn = {name: curve(rows, "target", y) for name, rows in curves.items() if rows}
        panels.append(Panel(title, "share of multiply-adds", unit, drawn, log_x=True))
    write_plot(folder / "repair.png", panels)


def _write_grid(folder: Path, ground: TrialAssets, rows: Sequence[Row]) -> None:
    """Photos, teacher, and the first seed's students: all targets repaired and trained, then the other ways."""
    mains = [row for row in rows if "failed" not in row and row["seed"] == 0 and row["refit"]]
    mains.sort(key=lambda row: (-row["target"], _name(row) != _name(BASE), _name(row), row["steps"]))
    lines: list[tuple[str, Tensor]] = [
        ("photo", grid([ground.validation[:SHOWN]])),
        ("teacher", grid([to_uint8(ground.validation_outputs[:SHOWN])])),
    ]
    for row in mains:
        file = _strip(folder, {name: row[name] for name in BASE})
        if file.is_file():
            strip = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
            label = f"{_share(row['target'])}, {row['steps']} steps\n{_name(row)}"
            lines.append((f"{label}\n{row['psnr']:.2f} dB, FID {row['fid']:.0f}", strip))
    _write_labelled(folder / "pictures.png", lines)


def _write_labelled(path: Path, lines: Sequence[tuple[str, Tensor]], margin: int = 170, gutter: int = 4) -> None:
    """Strips of pictures (uint8 3 x H x W, all alike) below each other, with a label on the left."""
    width = lines[0][1].shape[-1]
    height = max(lines[0][1].shape[-2], 56)  # room for three lines of text
    sheet = Image.new("RGB", (margin + width, len(lines) * (height + gutter) - gutter), "white")
    pen = ImageDraw.Draw(sheet)
    for k, (label, strip) in enumerate(lines):
        top = k * (height + gutter)
        sheet.paste(Image.fromarray(strip.permute(1, 2, 0).contiguous().numpy()), (margin, top))
        pen.multiline_text((6, top + height / 2), label, "black", ImageFont.load_default(12), anchor="lm")
    sheet.save(path)


def _strip(folder: Path, case: Case) -> Path:
    name = "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in case.values())
    return folder / "pictures" / f"{name}.png"


def _name(row: Mapping[str, Any]) -> str:
    """What sets a student apart, but for target and steps."""
    refit = "" if row["refit"] else ", no refit"
    return f"{row['schedule']}, {row['prune']}, {row['bits']}, {row['importance']}{refit}".replace("_", " ")


def _share(target: float) -> str:
    return f"1/{1 / target:g}" if abs(1 / target - round(1 / target)) < 1e-9 else f"{target:g}"


if __name__ == "__main__":
    main()

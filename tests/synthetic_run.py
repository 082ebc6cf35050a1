"""A run folder as a finished study leaves it, made up in a fraction of a second, for tests of what reads one.

Follows the contracts of the files, not the code that writes them.
"""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from gs_search.results.run_folder import RunFolder
from gs_search.study.config import load_study
from gs_search.system.files import read_json, write_json, write_text

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"
PROTOCOL = "drawn-64px-100-val-0123abcd"
COLUMNS, GUTTER = 8, 2
LAYERS = [
    ("stem.conv", "stem", 16),
    ("down.0.conv", "down", 32),
    ("down.1.conv", "down", 64),
    *((f"body.{block}.conv{half}", "body", 64) for block in range(3) for half in (1, 2)),
    ("up.0.conv", "up", 32),
    ("up.1.conv", "up", 16),
    ("head.conv", "head", 3),
]
TEACHER = {
    "fid": 61.4,
    "kid": 0.0213,
    "gflops": 0.4181,
    "size_mb": 1.1305,
    "macs_paper": 460_000_000,
    "params": 282_627,
}
BODY_BITS = (8, 6, 4)
FIRST_START = datetime(2026, 11, 23, 10, tzinfo=timezone.utc)


def write_run(path: Path, *, trials: int = 24, image_px: int = 64, failures: bool = True) -> RunFolder:
    """Write a study of ``trials`` ended trials to ``path``; trials 5, 11 and 17 did not finish."""
    folder = RunFolder(path)
    folder.create(load_study(QUICKSTART))
    write_json(folder.baselines, baselines(image_px))
    for number in range(trials):
        ending = {5: "nan", 11: "pruned", 17: "killed"}.get(number) if failures else None
        record = result(number, ending)
        write_json(folder.trial(number) / "result.json", record)
        if ending is None:
            damage = record["objectives"]["fid"] - TEACHER["fid"]
            samples(image_px, damage).save(folder.trial(number) / "samples.png")
            write_text(folder.trial(number) / "curve.csv", curve(number))
    return folder


def change(folder: RunFolder, number: int, **changes: Any) -> None:
    """Change keys of a trial's ``result.json``."""
    path = folder.trial(number) / "result.json"
    write_json(path, read_json(path) | changes)


def objectives(folder: RunFolder) -> dict[int, list[float]]:
    """Objectives by number, of the trials that have some."""
    return {r.number: list(r.objectives.values()) for r in folder.results() if r.objectives}


def baselines(image_px: int = 64) -> dict[str, Any]:
    """``teacher/baselines.json``, schema 1."""
    return {
        "schema": 1,
        "protocol": {
            "id": PROTOCOL,
            "generator_split": "val",
            "pictures": 100,
            "reference": "target val+train",
            "reference_pictures": 300,
            "image_px": image_px,
            "resize": "299 bilinear (pytorch-fid)",
            "features": "inception-2015-12-05",
            "weights_sha256": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "reference_kind": "target",
            "data": {"kind": "drawn", "train": 512, "val": 100, "test": 200},
        },
        "teacher": TEACHER,
        "input": {"fid": 182.6, "kid": 0.1423, "psnr_to_teacher": 16.2},
        "noise": {
            "fid_std": 1.9,
            "method": "teacher against the reference on 20 half-size resamples, scaled",
        },
        "learning_rate_harm": [{"factor": 1.0, "psnr_to_teacher": 24.5}, {"factor": 0.5, "psnr_to_teacher": 33.1}],
    }


def result(number: int, ending: str | None = None) -> dict[str, Any]:
    """``result.json`` of one trial, schema 1; cheaper students are worse, give or take."""
    chance = random.Random(number)
    ratio = round(0.05 * (0.9 / 0.05) ** chance.random(), 4)
    body_bits = chance.choice(BODY_BITS)
    point = {
        "target_gflops_ratio": ratio,
        "weight_bits.body": body_bits,
        "feature_weight": round(chance.uniform(1, 20), 3),
    }
    record: dict[str, Any] = {
        "schema": 1,
        "study": "quickstart",
        "number": number,
        "state": "COMPLETE",
        "cause": None,
        "message": None,
        "point": point,
        "key": json.dumps(point, sort_keys=True),
        "seed": 1000 + number,
        "objectives": None,
        "protocol": PROTOCOL,
        "started": (FIRST_START + timedelta(seconds=10 * number)).isoformat(),
        "versions": {"gs_search": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
    }
    if ending == "pruned":
        report = {"step": 0, "psnr_to_teacher": 17.25, "gflops": 0.0912, "size_mb": 0.0731, "seconds": 4.5}
        return record | {
            "state": "PRUNED",
            "cause": "dominated",
            "message": "trial 3 is better in all objectives at rung 0",
            "seconds": 4.5,
            "rungs": [report],
        }
    if ending:
        told = {
            "nan": "the loss became NaN at step 12 of 80",
            "killed": "the driver died <SIGKILL> & left it",
        }
        return record | {"state": "FAIL", "cause": ending, "message": told[ending]}
    layers = [
        {
            "name": name,
            "group": group,
            "width": width if group == "head" else max(4, round(width * ratio**0.5 * chance.uniform(0.85, 1.0))),
            "full_width": width,
            "weight_bits": body_bits if group == "body" else 8,
            "activation_bits": 8,
        }
        for name, group, width in LAYERS
    ]
    loss = 55 * (1 - ratio) ** 6 + {8: 0.0, 6: 1.2, 4: 5.5}[body_bits] + abs(chance.gauss(0, 9)) * (number % 3 > 0)
    fid = TEACHER["fid"] + loss + chance.gauss(0, 0.8)
    gflops = TEACHER["gflops"] * ratio
    return record | {
        "objectives": {
            "fid": round(fid, 4),
            "gflops": round(gflops, 6),
            "size_mb": round(TEACHER["size_mb"] * ratio * (0.2 * 8 + 0.8 * body_bits) / 32 + 0.004, 6),
        },
        "kid": round(0.0213 + 0.0007 * loss, 6),
        "psnr_to_teacher": round(31 - 0.22 * loss, 3),
        "psnr_before_training": round(29 - 0.22 * loss, 3),
        "rungs": [
            {"step": 0, "psnr_to_teacher": round(29 - 0.22 * loss, 3), "gflops": gflops, "size_mb": 0.1, "seconds": 4.5}
        ],
        "macs": int(1e9 * gflops),
        "macs_paper": int(1.1e9 * gflops),
        "params": int(TEACHER["params"] * ratio),
        "latency_ms": round(1.4 + 9 * ratio, 3),
        "layers": layers,
        "parity": {"max_abs_difference": 3.1e-13, "code_mismatches": 0, "codes": 4096, "pictures": 2},
        "steps": 80,
        "seconds": round(chance.uniform(14, 22), 2),
        "peak_memory_mb": round(chance.uniform(900, 1100), 1),
    }


def curve(number: int) -> str:
    """``curve.csv`` of one trial of 80 steps: pixel loss falls, the share of multiply-adds stays."""
    chance = random.Random(number)
    rows = ["step,phase,macs_share,pixel,adversarial"]
    for step in range(10, 81, 10):
        rows.append(f"{step},recover,0.5,{0.1 + 2 / step + 0.01 * chance.random()},{0.3 + 0.2 * chance.random()}")
    return "\n".join(rows) + "\n"


def samples(side: int, damage: float) -> Image.Image:
    """Input, teacher and student rows; pictures blur as ``damage``, the FID above the teacher's, grows."""
    step = side + GUTTER
    grid = Image.new("RGB", (COLUMNS * step - GUTTER, 3 * step - GUTTER), "white")
    for column in range(COLUMNS):
        source = _scene(side, column, striped=False)
        teacher = _scene(side, column, striped=True)
        student = teacher.filter(ImageFilter.GaussianBlur(side / 64 * max(damage, 0) ** 0.5 / 4))
        for row, picture in enumerate((source, teacher, student)):
            grid.paste(picture, (column * step, row * step))
    return grid


def _scene(side: int, seed: int, *, striped: bool) -> Image.Image:
    """A round animal on a meadow; with stripes or without."""
    chance = random.Random(seed)
    scale = side / 64  # drawn at four times the size, on a canvas of 256 units
    picture = Image.new("RGB", (4 * side, 4 * side), (140 + seed * 10, 190, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 150 * scale, 4 * side, 4 * side), fill=(96, 140 + seed * 6, 70))
    left, top = chance.uniform(20, 110) * scale, chance.uniform(80, 140) * scale
    body = (left, top, left + 120 * scale, top + 70 * scale)
    draw.ellipse(body, fill=(240, 240, 236) if striped else (136, 84, 48))
    if striped:
        for x in range(int(left + 14 * scale), int(left + 112 * scale), int(16 * scale)):
            draw.line(
                (x, top + 12 * scale, x - 8 * scale, top + 60 * scale),
                fill=(25, 25, 28),
                width=int(6 * scale),
            )
    return picture.resize((side, side), Image.Resampling.LANCZOS)

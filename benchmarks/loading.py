"""How fast pictures are loaded, against how fast a trial uses them up, at 256 px.

    OMP_NUM_THREADS=1 python -m benchmarks.loading

Photos of one megapixel, made here, are decoded and cropped as training views are; the stored views of a study are
read as a trial reads them; and the cheapest students train, which use pictures up fastest. Pictures a processor
second, one thread: on any number of cores both sides grow alike. Some five minutes; a stopped run continues.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageCms

from benchmarks.report import environment, number, publish, table
from benchmarks.rows import Case, Row, Rows
from gs_search.data.files import FilePictures
from gs_search.data.views import Views
from gs_search.networks import ResnetGenerator, load_generator
from gs_search.slimming import Lessons, Teacher, slim
from gs_search.slimming.repair import record_targets
from gs_search.study.settings import SlimmingSettings
from gs_search.trial.teacher import SHIPPED_TEACHER

PX = 256
PHOTO = (1152, 864)
PHOTOS = 24
STEPS = 30
"""Steps of the trial; the first ten warm up."""
SHARE = 0.1
"""Of the teacher's multiply-adds: the cheapest students that a search looks at."""
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
"""Red, green and blue in XYZ under D50."""
DEMAND = 3.0
"""Times as many pictures as are used up have to be loaded."""

FILES = ("jpeg", "jpeg of 12 megapixels", "jpeg in Display P3", "png")
TRIALS = ("drawn teacher (width 16, 3 blocks)", "CycleGAN (width 64, 9 blocks)")


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/benchmarks/loading]")
@click.option("--tiny", is_flag=True, help="As small as can be: does it run? The numbers mean nothing.")
def main(out: Path | None, tiny: bool) -> None:
    folder = out or Path("runs/benchmarks/loading-tiny" if tiny else "runs/benchmarks/loading")
    rows = Rows(folder, {"tiny": tiny})
    loaded: list[Case] = [{"what": "load", "of": name} for name in FILES]
    used: list[Case] = [{"what": "trial", "of": name} for name in TRIALS[: 1 if tiny else None]]
    rows.measure([*loaded, *used], functools.partial(measure, tiny), processes=1)
    report(folder, rows.of(loaded), rows.of(used), environment(px=PX, seeds=1))


def measure(tiny: bool, case: Case) -> dict[str, Any]:
    """Pictures a processor second of one row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if case["what"] == "load":
            return {"loaded": _loaded(Path(scratch), case["of"], 2 if tiny else PHOTOS)}
        return _used(Path(scratch), case["of"], 32 if tiny else PX, 12 if tiny else STEPS)


def _loaded(folder: Path, kind: str, count: int) -> float:
    """Pictures a processor second from files to training views."""
    size = (4 * PHOTO[0], 3 * PHOTO[1]) if "12" in kind else PHOTO
    options: dict[str, Any] = {} if kind == "png" else {"quality": 90}
    if "P3" in kind:
        options["icc_profile"] = _display_p3()
    names = [f"{index}.{kind[:3].replace('jpe', 'jpg')}" for index in range(count)]
    for index, name in enumerate(names):
        photo(index, size).save(folder / name, **options)
    pictures = FilePictures(folder, names, Views(PX, seed=0))
    pictures.picture(0, view=0)
    begun = time.process_time()
    for index in range(count):
        pictures.picture(index, view=index)
    return count / (time.process_time() - begun)


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """Noise of all scales, which JPEG shrinks to some 2 bits a pixel, as it does photos."""
    rng = np.random.default_rng(seed)
    sheet = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(2, 9):
        coarse = rng.normal(0, 0.5, (max(2, size[1] >> octave), max(2, size[0] >> octave), 3)).astype(np.float32)
        layers = [Image.fromarray(coarse[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(3)]
        sheet += np.stack(layers, -1) * 2.0 ** (octave - 5)
    sheet += rng.normal(0, 0.05, sheet.shape)
    return Image.fromarray((128 + 24 * sheet).clip(0, 255).astype(np.uint8))


def _used(folder: Path, name: str, px: int, steps: int) -> dict[str, Any]:
    """Pictures a processor second that a trial trains on, and that it reads from the stored views."""
    torch.manual_seed(0)
    generator = load_generator(SHIPPED_TEACHER)[0] if name.startswith("drawn") else ResnetGenerator(64, 9)
    teacher = Teacher(generator, px)
    views = torch.stack([torch.from_numpy(np.array(photo(k, (px, px)))).permute(2, 0, 1) for k in range(16)])
    lessons = Lessons.write(folder / "lessons", teacher, views.__getitem__, len(views))
    settings = SlimmingSettings(
        schedule="at_once",
        importance="rank",
        target_gflops_ratio=SHARE,
        steps=steps,
        batch_size=4,
        adversarial_weight=0.0,
    )
    ticks: list[tuple[int, float]] = []
    slim(
        teacher,
        settings,
        lessons,
        record_targets(teacher.network, views[:4].float() / 127.5 - 1),
        seed=0,
        on_progress=lambda row: ticks.append((row["step"], time.process_time())),
    )
    (first, begun), (last, ended) = ticks[0], ticks[-1]
    read = time.process_time()
    for step in range(20):
        lessons.batch([(4 * step + k) % 16 for k in range(4)])
    reading = time.process_time() - read
    return {"used": 4 * (last - first) / (ended - begun), "read": 80 / reading}


def _display_p3() -> bytes:
    """sRGB's profile with the primaries of Display P3 in it."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for letter, primary in zip(b"rgb", P3, strict=True):
        entry = content.index(bytes([letter]) + b"XYZ")  # in the table of tags: name, place, length
        at = int.from_bytes(content[entry + 4 : entry + 8], "big") + 8
        content[at : at + 12] = b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in primary)
    return bytes(content)


def report(folder: Path, loaded: Sequence[Row], used: Sequence[Row], told: str) -> None:
    """Both tables; the demand is judged on one-megapixel JPEGs and the hungriest trial."""
    hungriest = max(row["used"] for row in used)
    files = [[row["of"], number(row["loaded"], 1), number(row["loaded"] / hungriest, 1)] for row in loaded]
    trials = [
        [row["of"], number(row["used"], 1), number(row["read"], 1), number(row["read"] / row["used"], 1)]
        for row in used
    ]
    met = loaded[0]["loaded"] >= DEMAND * hungriest and all(row["read"] >= DEMAND * row["used"] for row in used)
    publish(
        folder,
        "Loading",
        told,
        f"Decoded and cropped to {PX} px, pictures a processor second:",
        table(["files", "loaded", "times what the hungriest trial uses"], files),
        f"Trials at {SHARE:g} of the teacher's multiply-adds, pictures a processor second:",
        table(["teacher", "used", "read from stored views", "times"], trials),
        f"At least {DEMAND:g} times what is used: {'yes' if met else 'NO'}.",
    )


if __name__ == "__main__":
    main()

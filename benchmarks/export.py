"""Integer files against float files of the same networks: bytes, milliseconds, and what the sub-pixel form is worth.

    OMP_NUM_THREADS=1 python -m benchmarks.export [--px 256] [--rounds 9] [--tiny]

CycleGAN generators with random weights, rounded to 8 bits: bytes and milliseconds are those of trained ones, pictures
are not. All files of a row take turns; ratios are medians over the rounds, in brackets their middle half.

    OMP_NUM_THREADS=1 python -m benchmarks.export --trained RUN_FOLDER [--point JSON] [--steps N] [--seeds 3]

The same point of a study that was prepared, trained with each choice of `quantize` and written as an integer file:
what the files lose against the students. A stopped run continues.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.report import environment, mean_and_spread, number, table
from benchmarks.rows import Case, Row, Rows, grouped
from gs_search.errors import GsSearchError
from gs_search.export.onnx.float_graph import float_graph, import_onnx
from gs_search.measure.psnr import psnr
from gs_search.networks import ResnetGenerator
from gs_search.results.run_folder import RunFolder
from gs_search.slimming.layers import slimmable
from gs_search.study.settings import LEGAL

NETWORKS = ((8, 3), (16, 3), (32, 6), (64, 9))
"""Width and residual blocks."""

MULTIPLE = 4

HALF = '{"target_gflops_ratio": 0.5, "weight_bits": 8, "activation_bits": 8}'


@click.command(help=__doc__)
@click.option("--px", default=256, show_default=True, help="Side of the pictures.")
@click.option("--rounds", default=9, show_default=True, help="Pictures behind each figure.")
@click.option("--trained", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A run folder.")
@click.option("--point", default=HALF, show_default=True, help="What is trained, with --trained.")
@click.option("--steps", type=int, help="Training steps of a student.  [default: the study's]")
@click.option("--seeds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/benchmarks/export"))
@click.option("--tiny", is_flag=True, help="Only see whether it starts.")
def main(
    px: int,
    rounds: int,
    trained: Path | None,
    point: str,
    steps: int | None,
    seeds: int,
    processes: int,
    out: Path,
    tiny: bool,
) -> None:
    import_onnx()
    if trained is not None:
        wanted = {**json.loads(point), **({} if steps is None else {"steps": steps})}
        choices = LEGAL["quantize"].choices or ()
        cases: list[Case] = [
            {"point": wanted, "quantize": choice, "seed": seed} for seed in range(seeds) for choice in choices
        ]
        rows_of = Rows(out, {"run": str(trained.resolve())})
        rows_of.measure(cases, functools.partial(measure, trained.resolve(), out.resolve()), processes=processes)
        print(environment(point=json.dumps(wanted), seeds=seeds), "\n")
        print(_trained(rows_of.of(cases)))
        return
    rows = [row for width, blocks in (NETWORKS[:1] if tiny else NETWORKS) for row in _rows(width, blocks, px, rounds)]
    print(environment(px=px, rounds=rounds), "\n")
    header = ["network", "threads", "float KB", "integer KB", "share", "float ms", "sub-pixel float ms", "integer ms"]
    print(table([*header, "float / integer", "sub-pixel float / integer"], rows))


def measure(run: Path, out: Path, case: Case) -> dict[str, Any]:
    """One student, and its integer file."""
    import onnx

    from gs_search.export.build import float_model, integer_model
    from gs_search.export.measure import picture_figures
    from gs_search.export.onnx.proof import check_graph, check_layers
    from gs_search.export.onnx.runtime import run_pictures, session
    from gs_search.slimming import load_student
    from gs_search.trial.assets import TrialAssets, paint
    from gs_search.trial.run import run_trial

    name = f"{case['quantize']}-{hash_of(case)}"
    folder = RunFolder(out / name)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    folder.teacher.symlink_to(run / "teacher", target_is_directory=True)
    config = RunFolder(run).config()
    config = config.model_copy(update={"settings": {**config.settings, "quantize": case["quantize"]}})
    try:
        record = run_trial(case["point"], config, folder, number=0, seed=case["seed"])
    except GsSearchError as failure:
        return {"failed": str(failure)}
    ground = TrialAssets.of(folder, config)
    student = load_student(folder.trial(0) / "student.safetensors")
    multiple = ground.architecture.picture_multiple
    built = integer_model(student, ground.targets.pictures.cpu(), multiple, config.image_px)
    path = folder.path / "integer.onnx"
    onnx.save(built.model, path)
    onnx.save(float_model(student, multiple, config.image_px), folder.path / "float.onnx")
    graph = check_graph(path)
    layers = check_layers(path, built.reference, ground.validation[:4].float() / 127.5 - 1.0)
    if graph.floats or not all(layer.ok for layer in layers):
        return {"failed": "the integer file is not the student"}
    painted = run_pictures(session(path), ground.validation)
    of_float = run_pictures(session(folder.path / "float.onnx"), ground.validation)
    of_student = paint(student, ground.validation)
    return {
        "fid": record.fid,
        "size_mb": record.values["size_mb"],
        "psnr": record.psnr_to_teacher,
        "psnr_before": record.psnr_before_training,
        "seconds": record.seconds,
        "file": picture_figures(painted, ground),
        "float": picture_figures(of_float, ground),
        "bytes": path.stat().st_size,
        "psnr_to_student": psnr(painted, of_student),
        "psnr_to_float": psnr(painted, of_float),
        "worst": max(layer.differing for layer in layers),
        "calibrated": list(built.calibrated),
    }


def hash_of(case: Case) -> int:
    """A number for a case, the same in every process."""
    return zlib.crc32(json.dumps(dict(case), sort_keys=True).encode())


def _trained(rows: Sequence[Row]) -> str:
    lines = []
    for (quantize,), group in grouped(rows, "quantize").items():
        lost = [row["file"]["fid"] - row["fid"] for row in group]
        lines.append(
            [
                quantize,
                *(mean_and_spread([row[name] for row in group]) for name in ("fid", "psnr")),
                mean_and_spread([row["float"]["fid"] for row in group]),
                *(mean_and_spread([row["file"][name] for row in group]) for name in ("fid", "psnr_to_teacher")),
                " ".join(f"{value:+.2f}" for value in lost),
                *(mean_and_spread([row[name] for row in group]) for name in ("psnr_to_student", "psnr_to_float")),
                number(np.mean([row["size_mb"] for row in group]).item(), 4),
                number(np.mean([row["bytes"] for row in group]).item() / 1e3, 1),
                f"{100 * max(row['worst'] for row in group):.3f}",
            ]
        )
    header = ["quantize", "student: FID", "dB to teacher", "float file: FID", "integer file: FID", "dB to teacher"]
    header += ["FID lost, each seed", "file to student, dB", "file to float file, dB", "size_mb", "integer KB"]
    failed = [f"{row['quantize']}, seed {row['seed']}: {row['failed']}" for row in rows if "failed" in row]
    return table([*header, "worst layer, %"], lines) + (f"\n\nFailed: {'; '.join(failed)}." if failed else "")


def _rows(width: int, blocks: int, px: int, rounds: int) -> list[list[object]]:
    import onnx

    from gs_search.export.build import float_model, integer_model
    from gs_search.export.onnx.proof import check_graph, check_layers
    from gs_search.export.onnx.runtime import paired_milliseconds

    torch.manual_seed(0)
    generator = slimmable(ResnetGenerator(width, blocks)).eval()
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    built = integer_model(generator, pictures, MULTIPLE, 64)
    with tempfile.TemporaryDirectory() as place:
        files = {name: Path(place, f"{name}.onnx") for name in ("float", "wide", "integer")}
        onnx.save(float_model(built.reference.student, MULTIPLE, 64), files["float"])
        onnx.save(float_graph(built.lowered, MULTIPLE, 64), files["wide"])
        onnx.save(built.model, files["integer"])
        graph = check_graph(files["integer"])
        layers = check_layers(files["integer"], built.reference, pictures)
        if graph.floats or not all(layer.ok for layer in layers):
            raise click.ClickException(f"width {width}: the integer file is not the network")
        small, large = files["integer"].stat().st_size, files["float"].stat().st_size
        rows: list[list[object]] = []
        for threads in (1, 2):
            measured = paired_milliseconds(files, px, threads=threads, rounds=rounds)
            times = {name: np.array(ms) for name, ms in measured.items()}
            medians = [f"{np.median(ms):.3g}" for ms in times.values()]
            ratios = [_ratio(times[name] / times["integer"]) for name in ("float", "wide")]
            network = f"width {width}, {blocks} blocks"
            sizes = [f"{large / 1e3:.0f}", f"{small / 1e3:.0f}", f"{small / large:.3f}"]
            rows.append([network, threads, *sizes, *medians, *ratios])
    return rows


def _ratio(ratios: np.ndarray) -> str:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()

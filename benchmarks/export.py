"""Integer files against float files of the same networks: bytes, milliseconds, and what the sub-pixel form is worth.

    OMP_NUM_THREADS=1 python -m benchmarks.export [--px 256] [--rounds 9] [--tiny]

CycleGAN generators with random weights, rounded to 8 bits: bytes and milliseconds are those of trained ones, pictures
are not. All files of a row take turns; ratios are medians over the rounds, in brackets their middle half.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.report import environment, table
from gs_search.export.float_graph import float_graph, import_onnx
from gs_search.networks import ResnetGenerator
from gs_search.slimming.layers import slimmable

NETWORKS = ((8, 3), (16, 3), (32, 6), (64, 9))
"""Width and residual blocks."""

MULTIPLE = 4


@click.command(help=__doc__)
@click.option("--px", default=256, show_default=True, help="Side of the pictures.")
@click.option("--rounds", default=9, show_default=True, help="Pictures behind each figure.")
@click.option("--tiny", is_flag=True, help="Only see whether it starts.")
def main(px: int, rounds: int, tiny: bool) -> None:
    import_onnx()
    rows = [row for width, blocks in (NETWORKS[:1] if tiny else NETWORKS) for row in _rows(width, blocks, px, rounds)]
    print(environment(px=px, rounds=rounds), "\n")
    header = ["network", "threads", "float KB", "integer KB", "share", "float ms", "sub-pixel float ms", "integer ms"]
    print(table([*header, "float / integer", "sub-pixel float / integer"], rows))


def _rows(width: int, blocks: int, px: int, rounds: int) -> list[list[object]]:
    import onnx

    from gs_search.export.models import float_model, integer_model
    from gs_search.export.proof import check_graph, check_layers
    from gs_search.export.runtime import paired_milliseconds

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

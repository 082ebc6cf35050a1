"""What a checkpoint holds, told from names and shapes alone: nothing of it is run, no picture is painted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gs_search.networks.checkpoints import candidates, fill, recognise, recognise_candidate
from gs_search.networks.recognised import Choice, Recognised, build_empty

__all__ = ["inspect_file"]

PX = 256
"""Side of the pictures at which multiply-adds are counted, or the next multiple that the generator takes."""

NORM_WORDS = {
    "instance": "InstanceNorm: statistics of each picture",
    "batch": "BatchNorm: running statistics of the file",
    "none": "no norms",
    "layer": "LayerNorm: over all channels and pixels of each picture",
}


def inspect_file(path: Path, key: str | None = None) -> dict[str, Any]:
    """Recognise every generator of a file, or the one of ``key``.

    Raises:
        CheckpointError: the file is no checkpoint, or holds no generator that is known here and sound.
    """
    found: list[tuple[dict[str, str | None], Recognised]]
    if key is not None:
        found = [({"key": key}, recognise(path, Choice(key=key)))]
    else:
        parts = candidates(path)
        keys = [part.key or "." for part in parts] if len(parts) > 1 else [None]
        found = [({"key": name}, recognise_candidate(part, Choice())) for name, part in zip(keys, parts, strict=True)]
    generators = [{**named, **_describe(recognised)} for named, recognised in found]
    for generator in generators:
        generator["study"] = _study_lines(path.resolve(), generator)
    return {"ok": True, "file": str(path), "bytes": path.stat().st_size, "generators": generators}


def _describe(found: Recognised) -> dict[str, Any]:
    generator = fill(found)  # which refuses what is missing, of a wrong shape or not finite
    described = found.architecture
    multiple = described.picture_multiple
    px = -(-PX // multiple) * multiple
    layers = _layers(found, px)
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in found.part.tensors.values() if tensor.dim() == 4}
    return {
        "architecture": described.to_json(),
        "norm": NORM_WORDS["layer" if described.name == "animeganv2" else described.norm],
        "affine": described.affine,
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
        "dtypes": sorted(kinds),
        "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
        "image_px": px,
        "layers": layers,
        "convention": {
            "range": [-1.0, 1.0],
            "order": "BGR in the file, turned to RGB here" if described.name == "cartoongan" else "RGB",
            "channels_in": found.channels[0],
            "channels_out": found.channels[1],
            "multiple": multiple,
        },
        "both_norms": found.both_norms,
        "notes": found.notes,
    }


def _layers(found: Recognised, px: int) -> list[dict[str, Any]]:
    """Every convolution by its name in the file: shape, and multiply-adds of one picture, from shapes alone."""
    network, counts = build_empty(found.architecture).eval(), {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str) -> None:
        area = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output  # what a transposed one truly costs
        counts[name] = module.weight.numel() * area.shape[-2] * area.shape[-1]  # type: ignore[operator]

    convolutions = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))}
    for name, module in convolutions.items():
        module.register_forward_hook(lambda m, x, y, name=name: count(m, x, y, name))
    with torch.no_grad(), torch.device("meta"):
        network(torch.empty(1, 3, px, px))
    return [
        {
            "name": found.name(f"{name}.weight"),
            "shape": list(module.weight.shape),
            "multiply_adds": counts[name],
        }
        for name, module in convolutions.items()
    ]


def _study_lines(path: Path, generator: dict[str, Any]) -> str:
    """The ``teacher`` section of a study."""
    described = generator["architecture"]
    lines = ["teacher:", "  kind: checkpoint", f"  path: {_yaml(str(path))}", f"  architecture: {described['name']}"]
    if generator["key"]:
        lines.append(f"  key: {_yaml(generator['key'])}")
    if generator["both_norms"]:
        other = "instance, with which the reference test scripts paint" if described["norm"] == "batch" else "batch"
        lines.append(f"  norm: {described['norm']}  # or {other}")
    if any(note.startswith("padding:") for note in generator["notes"]):
        lines.append("  padding: reflect  # or replicate")
    if any(note.startswith("align_corners:") for note in generator["notes"]):
        lines.append("  align_corners: true  # or false")
    return "\n".join(lines)


def _yaml(text: str) -> str:
    """Quoted, unless it is plain to any reader of YAML."""
    plain = text.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    if plain.isalnum() and not plain.isdecimal() and plain.isascii() and text.lower() not in ("null", "true", "false"):
        return text
    return "'" + text.replace("'", "''") + "'"

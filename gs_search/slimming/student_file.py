"""A student's tensors and their description as a small file: safetensors of one blob.

safetensors describes each tensor in some 90 bytes of JSON, which for a small student is as much as its weights. Here
the file has a single tensor of bytes, ``packed``: the description of the student and of its tensors, compressed by
zlib, then the tensors' bytes in that order. Files of the first format, a tensor each, are still read.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from gs_search.errors import CheckpointError
from gs_search.networks import read_tensors

__all__ = ["decode", "encode"]

FIRST, FORMAT = "gs-search student 1", "gs-search student 2"

MAX_DESCRIPTION = 1 << 24
"""Bytes of a description; a few of a file can unpack to any amount."""


_KIND = re.compile(r"(?:(.+?)\.)?((?:(?:weight|input|output)\.)?[^.]+)")
"""Splits a tensor's name into its module's and the rest."""


def encode(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> bytes:
    """The file of these tensors, by their names, and of what JSON can say of the student."""
    # Tensors of a kind together: the lists of their modules, and of shapes, resemble each other, and compress well.
    kinds: dict[tuple[str, str], list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        found = _KIND.fullmatch(name)
        assert found is not None, name
        kinds.setdefault((found[2], str(tensor.dtype).removeprefix("torch.")), []).append((found[1] or "", tensor))
    table = [
        [kind, dtype, [module for module, _ in members], [list(tensor.shape) for _, tensor in members]]
        for (kind, dtype), members in kinds.items()
    ]
    description = json.dumps({**described, "tensors": table}, separators=(",", ":")).encode()
    ordered = [tensor.cpu().contiguous() for members in kinds.values() for _, tensor in members]
    parts = [tensor.reshape(-1).view(torch.uint8) for tensor in ordered]
    blob = torch.cat([torch.frombuffer(bytearray(zlib.compress(description, 9)), dtype=torch.uint8), *parts])
    # One key, because safetensors writes several in no fixed order, and equal students are to be equal files.
    return save({"packed": blob}, {"student": FORMAT})


def decode(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a student's file.

    Raises:
        CheckpointError: not a student, or damaged.
    """
    tensors, metadata = read_tensors(path)
    try:
        told = metadata.get("student", "{}")
        if told == FORMAT:
            return _unpacked(tensors["packed"])
        described = {"format": told} if told.startswith("gs-search") else json.loads(told)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, zlib.error) as error:
        raise CheckpointError(f"{path}: a damaged student ({' '.join(str(error).split())[:200]})") from None
    found = described.get("format") if isinstance(described, dict) else None
    if found != FIRST:
        raise CheckpointError(f"{path}: not a student of this version (format {found!r})")
    return tensors, described


def _unpacked(blob: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    unpacker = zlib.decompressobj()
    description = unpacker.decompress(blob.numpy().tobytes(), MAX_DESCRIPTION)
    if not unpacker.eof:
        raise ValueError("its description has no end")
    described = json.loads(description)
    table, content = described.pop("tensors"), unpacker.unused_data
    tensors: dict[str, Tensor] = {}
    start = 0
    for kind, of_type, modules, shapes in table:
        dtype = getattr(torch, of_type)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{kind}: no tensors of {of_type}")
        for module, shape in zip(modules, shapes, strict=True):
            name = f"{module}.{kind}" if module else kind
            if any(type(size) is not int or size < 0 for size in shape):
                raise ValueError(f"{name}: no shape {shape}")
            end = start + math.prod(shape) * dtype.itemsize
            part = content[start:end]
            if len(part) != end - start:
                raise ValueError(f"{name}: cut off")
            empty = torch.empty(shape, dtype=dtype)
            tensors[name] = torch.frombuffer(bytearray(part), dtype=dtype).reshape(shape) if part else empty
            start = end
    if start != len(content):
        raise ValueError(f"{len(content) - start} bytes are left over")
    return tensors, described

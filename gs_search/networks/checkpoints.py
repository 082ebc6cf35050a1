"""Reading generators from files: our safetensors and the releases of the original authors.

Which layouts are known stands in ``layouts``. Foreign files are opened with ``weights_only=True`` and nothing
else: there is no fallback that could run code. Any dictionary in a file, and any common prefix of names in it, may hold
a generator; discriminators, optimizers and counters beside it are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import ARCHITECTURES, Architecture, build
from gs_search.networks.file_kinds import SAVE
from gs_search.networks.file_reading import read_file
from gs_search.networks.layouts import LAYOUTS, Layout
from gs_search.networks.nearest import OWN, describe_unknown
from gs_search.networks.recognised import (
    COUNTER,
    Choice,
    Part,
    Recognised,
    Tensors,
    build_empty,
    describe_shape,
    without_colour,
    wrong_choice,
)

__all__ = [
    "NO_GENERATOR",
    "Candidate",
    "candidates",
    "check_values",
    "fill",
    "load_generator",
    "read_tensors",
    "recognise",
    "recognise_candidate",
]

CONTAINERS = r"(?:^|(?<=\.))(?:model|main|model\.model)\.$"
"""First components of layouts' own names, which say nothing about which generator it is."""

NO_GENERATOR = re.compile(
    r"d(_\w+|\d)?|net_?d\w*|dis|disc\w*|\w*_disc\w*|vgg\w*|lpips\w*|\w*loss\w*|criteri\w*|percep\w*|inception\w*|fid\w*"
    r"|metrics?|\w*_metrics?|\w*optimi[sz]er\w*",
    re.IGNORECASE,
)
"""Modules beside a generator that are none, and no part of one."""


@dataclass(frozen=True)
class Candidate:
    """A part of a file that has the names of a known layout."""

    key: str
    """What ``Choice.key`` calls it: the keys that lead to it and the prefix, dotted; empty: the whole file."""
    part: Part
    layout: Layout | None
    """None: of this package's own layout."""
    architecture: Architecture | None = None
    """Of this package's own files."""


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Read all tensors of a file of this package, or of another flat one, and its text metadata.

    Raises:
        CheckpointError: missing, truncated, not a file of tensors, or one that wants to run code.
    """
    groups, metadata = read_file(Path(path))
    if () not in groups:
        raise CheckpointError(f"{path}: no state_dict in it; {SAVE}")
    return groups[()], metadata


def load_generator(
    path: Path,
    architecture: str = "auto",
    *,
    key: str | None = None,
    norm: str = "auto",
    padding: str = "auto",
    align_corners: bool | None = None,
) -> tuple[nn.Module, Architecture]:
    """Load a generator of a known architecture, taking RGB pictures in [-1, 1].

    Args:
        path: ``.safetensors`` or ``.pth``, whatever it is called.
        architecture, key, norm, padding, align_corners: see ``Choice``.

    Raises:
        CheckpointError: the file cannot be read, holds another architecture, or has weights that are not finite.
    """
    found = recognise(Path(path), Choice(architecture, key, norm, padding, align_corners))
    return fill(found), found.architecture


def recognise(path: Path, choice: Choice) -> Recognised:
    """Find the one generator of a file, or the one that ``choice`` names.

    Raises:
        CheckpointError: there is none or several, or it is not the one that is asked for.
    """
    found = candidates(path)
    if choice.key is not None:
        named = [candidate for candidate in found if _is_called(candidate, choice.key)]
        if len(named) != 1:
            keys = ", ".join(_shown(candidate) for candidate in found)
            how = "names several of the generators" if named else "names no generator of the file, which has"
            raise CheckpointError(f"{path}: teacher.key {choice.key!r} {how}: {keys}")
        found = named
    if len(found) > 1:
        keys = ", ".join(_shown(candidate) for candidate in found)
        raise CheckpointError(f"{path}: holds {len(found)} generators: {keys}; choose one with teacher.key (--key)")
    return recognise_candidate(found[0], choice)


def recognise_candidate(candidate: Candidate, choice: Choice) -> Recognised:
    """Give a part of a file our names, and settle what the file does not tell; raises CheckpointError."""
    part = candidate.part
    if candidate.layout is None:
        assert candidate.architecture is not None
        found = Recognised(candidate.architecture, dict(part.tensors), part, {})
        _heed_own(found, choice)
    else:
        if part.beside:
            raise CheckpointError(
                f"{part.where}: tensor {part.beside[0]} is in the same module as the {candidate.layout.architecture} "
                f"that begins with {part.prefix}, and has no place in it; {OWN}"
            )
        found = candidate.layout.read(part, choice)
        without_colour(found)
        if candidate.key:
            found.notes.insert(0, f"the generator is {candidate.key} of the file")
    name = found.architecture.name
    if choice.architecture not in ("auto", name):
        article = "an" if name[0] in "aeiou" else "a"
        raise CheckpointError(
            f"{part.where}: holds {article} {name} generator, but the study says {choice.architecture}"
        )
    if choice.padding != "auto" and name != "cyclegan_resnet":
        raise wrong_choice(part, f"padding says {choice.padding}", f"{name} has one kind of padding")
    if choice.norm != "auto" and name not in ("cyclegan_resnet", "pix2pix_unet"):
        raise wrong_choice(part, f"norm says {choice.norm}", f"{name} has one kind of norm")
    if choice.align_corners is not None and name != "animeganv2":
        raise wrong_choice(part, "align_corners is given", f"{name} enlarges otherwise; only animeganv2 has the choice")
    return found


def fill(found: Recognised) -> nn.Module:
    """Build the generator, in evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, of another shape, left over, or not finite; by its name in the file.
    """
    wanted = {n: t for n, t in build_empty(found.architecture).state_dict().items() if not n.endswith(COUNTER)}
    where = found.part.where
    for name, needed in wanted.items():
        if name not in found.tensors:
            raise CheckpointError(f"{where}: incomplete checkpoint, tensor {found.name(name)} is missing")
        tensor = found.tensors[name]
        if needed.shape != tensor.shape:
            raise CheckpointError(
                f"{where}: tensor {found.name(name)} is {describe_shape(tensor)}, this architecture needs "
                f"{describe_shape(needed)}"
            )
        check_values(tensor, f"{where}: tensor {found.name(name)}")
    for name in found.tensors:
        if name not in wanted and not name.endswith(COUNTER):
            raise CheckpointError(f"{where}: tensor {found.name(name)} does not belong to this architecture")
    generator = build(found.architecture)
    generator.load_state_dict({name: found.tensors[name].to(torch.float32) for name in wanted}, strict=False)
    return generator.eval()


def check_values(tensor: Tensor, where: str) -> None:
    """Refuse a tensor that holds no weights; raises CheckpointError, which begins with ``where``."""
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "no values (device meta)" if tensor.is_meta else "a sparse tensor"
        raise CheckpointError(f"{where} holds {kind}; give plain float weights")
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{where} holds {kind}, not floats; give the float weights")
    if not torch.isfinite(tensor.float()).all():
        raise CheckpointError(f"{where} holds NaN or infinity; the checkpoint is useless, take an earlier one")


def candidates(path: Path) -> list[Candidate]:
    """All generators of a file that have the names of a known layout.

    Raises:
        CheckpointError: the file cannot be read, or has none; then with the nearest layout.
    """
    groups, metadata = read_file(path)
    if "student" in metadata:
        raise CheckpointError(f"{path}: is a student that gs-search has slimmed; a teacher is a whole generator")
    own = _own(metadata)
    if own is not None:
        return [Candidate("", Part(str(path), "", groups[()]), None, own)]
    found = [
        _candidate(path, keys, tensors, layout, prefix)
        for keys, tensors in groups.items()
        for layout in LAYOUTS
        for prefix in layout.prefixes(tensors)
    ]
    if not found:
        raise CheckpointError(describe_unknown(path, groups))
    if len(found) == 1:  # what leads to the only one need not be said
        part = found[0].part
        return [Candidate(_without_wrapper(found[0].key), part, found[0].layout)]
    return found


def _candidate(path: Path, keys: tuple[str, ...], tensors: Tensors, layout: Layout, prefix: str) -> Candidate:
    """What begins with the prefix; whatever else is in the same module, and may be a part of it, is remembered."""
    owner = re.sub(CONTAINERS, "", prefix)
    others = [
        other for each in LAYOUTS for other in each.prefixes(tensors) if len(other) > len(owner) and other != prefix
    ]
    inner, beside = {}, []
    for name, tensor in tensors.items():
        first = name.removeprefix(owner).partition(".")[0]
        if not name.startswith(owner) or NO_GENERATOR.fullmatch(first):
            continue
        if any(name.startswith(other) for other in others) and not (
            len(prefix) > len(owner) and name.startswith(prefix)
        ):
            continue
        if name.startswith(prefix):
            inner[name.removeprefix(prefix)] = tensor
        elif tensor.dim():
            beside.append(name)
    where = str(path) + (f", {'.'.join(keys)}" if keys else "")
    place = ".".join([*keys, owner.rstrip(".")]).strip(".")
    return Candidate(place, Part(where, prefix, inner, tuple(beside)), layout)


def _without_wrapper(key: str) -> str:
    return "" if key in ("state_dict", "model_state_dict") else key.removeprefix("state_dict.")


def _is_called(candidate: Candidate, key: str) -> bool:
    full = candidate.key
    return key.strip(".") in (full, full.rpartition(".")[2], candidate.part.prefix.rstrip("."), _shown(candidate))


def _shown(candidate: Candidate) -> str:
    return candidate.key or "."


def _own(metadata: Mapping[str, str]) -> Architecture | None:
    """The architecture in the metadata of a file that this package wrote; others may use the same word."""
    try:
        fields = json.loads(metadata.get("architecture", "null"))
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("name") not in ARCHITECTURES:
        return None
    return Architecture.from_json(fields)


def _heed_own(found: Recognised, choice: Choice) -> None:
    """A file of this package tells everything; whoever says otherwise is told."""
    described = found.architecture
    for what in ("norm", "padding", "align_corners"):
        said, has = getattr(choice, what), getattr(described, what)
        if said not in ("auto", None, has):
            raise wrong_choice(found.part, f"{what} says {said}", f"the file, of gs-search's own, says {has}")

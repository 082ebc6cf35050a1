"""A generator that was found in a foreign file: what is said about it, its tensors by our names, norms and colours.

Nothing here knows a particular layout of names; those stand in ``layouts``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import Architecture, build

__all__ = [
    "COUNTER", "SCALES", "Choice", "Part", "Recognised", "Tensors", "build_empty", "describe_shape", "put", "rename",
    "settle_norm", "stem_width", "without_colour", "wrong_choice",
]  # fmt: skip

Tensors = dict[str, Tensor]

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value, as torchvision's and Pillow's conversions have them (ITU-R 601)."""

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"

SCALES = {"weight": "scale", "bias": "shift"}
"""CartoonGAN's words for a norm's parameters."""


@dataclass(frozen=True)
class Choice:
    """What somebody says about a checkpoint where the file does not tell."""

    architecture: str = "auto"
    """A name of ``ARCHITECTURES``, or ``auto``."""
    key: str | None = None
    """Which of several generators."""
    norm: str = "auto"
    """``batch``: normalise with the running statistics. ``instance``: with those of each picture."""
    padding: str = "auto"
    """``reflect`` or ``replicate``: margins of CycleGAN's residual blocks."""
    align_corners: bool | None = None
    """Of AnimeGANv2's enlargements."""


@dataclass(frozen=True)
class Part:
    """The tensors of a file that may be one generator."""

    where: str
    """The file, and which part of it, for messages."""
    prefix: str
    """What stands before ``tensors``' names in the file."""
    tensors: Tensors
    beside: tuple[str, ...] = ()
    """Names of other tensors of the same module, which this layout does not have."""

    def name(self, own: str) -> str:
        """A tensor's name as the file has it."""
        return self.prefix + own


@dataclass
class Recognised:
    """A generator that was found in a file; its tensors have our names, complete or not."""

    architecture: Architecture
    tensors: Tensors
    part: Part
    modules: Mapping[str, str]
    """Our module to theirs."""
    notes: list[str] = field(default_factory=list)
    """What was decided that the file does not tell, and what was changed."""
    both_norms: bool = False
    """Whether ``Choice.norm`` may be ``batch`` or ``instance``."""
    channels: tuple[int, int] = (3, 3)
    """Of the pictures that the file's network takes and returns; 1: three equal ones here."""

    def name(self, own: str) -> str:
        """A tensor's name as the file has it."""
        module, _, parameter = own.rpartition(".")
        theirs = self.modules.get(module, module)
        if self.architecture.name == "cartoongan" and theirs.startswith("in"):
            parameter = SCALES.get(parameter, parameter)
        return self.part.name(f"{theirs}.{parameter}")


def wrong_choice(part: Part, what: str, found: str) -> CheckpointError:
    """An error about a key of the study's ``teacher`` that does not suit the file."""
    return CheckpointError(f"{part.where}: teacher.{what}, but {found}")


def describe_shape(tensor: Tensor) -> str:
    """``64 x 3 x 7 x 7``"""
    return " x ".join(map(str, tensor.shape)) or "a single number"


def settle_norm(found: Recognised, normed: Iterable[str], choice: Choice, *, default_bias: bool | None) -> None:
    """Find out from a file which norms its network has; set architecture, notes, and add missing scales of ours."""
    tensors, places, part = found.part.tensors, found.modules, found.part
    normed = list(normed)
    scaled = [ours for ours in normed if f"{places[ours]}.weight" in tensors]
    bare = [ours for ours in normed if all(f"{places[ours]}.{name}" in tensors for name in STATISTICS)]
    tracked = [ours for ours in scaled if all(f"{places[ours]}.{name}" in tensors for name in STATISTICS)]
    # A norm's convolution stands right before it, and in the file it has the index before.
    biased = any(f"{place[: -len(index)]}{int(index) - 1}.bias" in tensors for place, index in _indexed(places, normed))
    norm = "batch" if 2 * len(tracked) > len(normed) else "instance"
    found.both_norms = norm == "batch"
    if not scaled and len(bare) == len(normed):
        # In files of PyTorch 0.3 any InstanceNorm has statistics, and none used them.
        found.both_norms = True
        if choice.norm == "batch":
            norm = "batch"
        elif choice.norm == "auto":
            found.notes.append(
                "norm: instance, although the file has running statistics: without scales they are left by "
                "InstanceNorm, which did not use them; norm: batch normalises with them"
            )
    if norm == "instance" and not scaled and not biased:
        norm = "none"
        if choice.norm == "instance":
            norm = "instance"
        else:
            found.notes.append(
                "no norms: the file has neither scales nor biases, as with the reference code's --norm none "
                "(norm: instance has norms without scales)"
            )
    if choice.norm == "batch" and norm != "batch":
        raise wrong_choice(part, "norm says batch", "the file has no running statistics, so that it is instance")
    if norm == "batch" and scaled:
        if choice.norm == "instance":
            norm = "instance"
        elif choice.norm == "auto":
            found.notes.append(
                "norm: batch, the running statistics of the file; the reference test scripts normalise with those of "
                "the one picture, which is norm: instance"
            )
    bias = biased if biased != default_bias else None
    if default_bias is None:  # the U-Net's: as norms have no shifts
        bias = biased if biased != (not scaled) else None
    found.architecture = dataclasses.replace(found.architecture, norm=norm, affine=bool(scaled), bias=bias)
    if norm == "instance" and scaled:  # in GAN Slimming's files only some norms have scales
        for ours in set(normed) - set(scaled):
            channels = dict(build_empty(found.architecture).named_parameters())[f"{ours}.weight"].shape
            found.tensors |= {f"{ours}.weight": torch.ones(channels), f"{ours}.bias": torch.zeros(channels)}


def _indexed(places: Mapping[str, str], normed: Iterable[str]) -> list[tuple[str, str]]:
    return [(places[ours], places[ours].rpartition(".")[2]) for ours in normed]


def rename(found: Recognised, kind: str, passed: Iterable[str] = ()) -> None:
    """Give all tensors our names; what the norms of this architecture do not have is passed over."""
    unused: tuple[str, ...] = (COUNTER,)
    if found.architecture.norm != "batch":
        unused += STATISTICS
    for name, tensor in found.part.tensors.items():
        module, _, parameter = name.rpartition(".")
        if name not in passed and parameter not in unused:
            put(found, name, module, parameter, tensor, kind)


def put(found: Recognised, name: str, module: str, parameter: str, tensor: Tensor, kind: str) -> None:
    """Give a tensor our name; one that has no place is refused, not dropped."""
    ours = {theirs: own for own, theirs in found.modules.items()}.get(module)
    if ours is None or parameter not in ("weight", "bias", *STATISTICS):
        raise CheckpointError(
            f"{found.part.where}: tensor {found.part.name(name)} does not belong to {kind} generator "
            f"of {found.architecture.blocks} {'levels' if found.architecture.name == 'pix2pix_unet' else 'blocks'}"
        )
    found.tensors[f"{ours}.{parameter}"] = tensor


def stem_width(part: Part, stem: str, kernel: int) -> int:
    if stem not in part.tensors:
        raise CheckpointError(f"{part.where}: incomplete checkpoint, tensor {part.name(stem)} is missing")
    tensor = part.tensors[stem]
    if tensor.dim() != 4 or tensor.shape[2:] != (kernel, kernel):
        raise CheckpointError(
            f"{part.where}: the first convolution, {part.name(stem)}, is {describe_shape(tensor)}, "
            f"expected width x 3 x {kernel} x {kernel}"
        )
    return int(tensor.shape[0])


def build_empty(architecture: Architecture) -> nn.Module:
    """The network without values."""
    with torch.device("meta"):
        return build(architecture)


def without_colour(found: Recognised) -> None:
    """Make of a network that takes or returns grey pictures one of three channels, exactly; other counts are refused.

    Its first convolution then reads the grey value of what it is given (any three equal channels are that value), its
    last one writes three equal channels.
    """
    stem = next(iter(dict(build_empty(found.architecture).named_parameters())))
    head, axis = _last(found.architecture)
    if stem not in found.tensors or f"{head}.weight" not in found.tensors:
        return  # what is missing will be named
    weight = found.tensors[f"{head}.weight"]
    found.channels = int(found.tensors[stem].shape[1]), int(weight.shape[axis]) if weight.dim() == 4 else 3
    for count, role, name in zip(found.channels, ("takes", "returns"), (stem, f"{head}.weight"), strict=True):
        if count not in (1, 3):
            raise CheckpointError(
                f"{found.part.where}: {role} pictures of {count} channels ({found.name(name)} is "
                f"{describe_shape(found.tensors[name])}); RGB and grey ones (3 or 1) can be slimmed"
            )
    if found.channels[0] == 1:
        shares = torch.tensor(LUMA[::-1] if found.architecture.name == "cartoongan" else LUMA)  # which turns to BGR
        found.tensors[stem] = found.tensors[stem].float() * shares.view(1, 3, 1, 1)
    if found.channels[1] == 1:
        found.tensors[f"{head}.weight"] = weight.repeat_interleave(3, axis)
        if f"{head}.bias" in found.tensors:
            found.tensors[f"{head}.bias"] = found.tensors[f"{head}.bias"].repeat(3)
    if 1 in found.channels:
        ends = {(1, 1): "takes and returns", (1, 3): "takes", (3, 1): "returns"}[found.channels]
        found.notes.append(f"{ends} grey pictures: here three equal channels, exact")


def _last(architecture: Architecture) -> tuple[str, int]:
    """The last convolution, and the axis of its outputs."""
    if architecture.name == "pix2pix_unet":
        return f"up.{architecture.blocks - 1}.1", 1
    return ("head.0" if architecture.name == "animeganv2" else "head.1"), 0

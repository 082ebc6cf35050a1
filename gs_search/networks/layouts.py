"""The names that other authors' releases give to a generator's tensors, and ours for them.

Known: CycleGAN's ResNet (``model.1.weight``, ``model.10.conv_block.1.weight``) with instance norms, batch norms or
none, with or without dropout, reflected, repeated or zero margins; GAN Slimming's own (the same names, scales in some
norms only); PyTorch-GAN's (``model.10.block.1.weight``, convolutions behind enlargements); CUT's (``model.7.filt``);
CartoonGAN (``conv01_1.weight``, ``in01_1.scale``); pix2pix's U-Net (``model.model.0.weight``,
``model.model.1.model.3.model.1.weight``; CycleGAN's is of the same names); AnimeGANv2's PyTorch port
(``block_a.0.1.weight``, ``block_c.1.layers.0.1.weight``). Any of them may stand behind a prefix.

What names and shapes do not tell is taken to be as in the original, said in ``Recognised.notes``, and chosen otherwise
by ``Choice``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import Architecture, build

__all__ = ["LAYOUTS", "Choice", "Layout", "Part", "Recognised", "Tensors", "describe_shape", "wrong_choice"]

Tensors = dict[str, Tensor]

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value, as torchvision's and Pillow's conversions have them (ITU-R 601)."""

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"

SCALES = {"weight": "scale", "bias": "shift"}
"""CartoonGAN's words for a norm's parameters."""

BINOMIAL = {3: (1.0, 2.0, 1.0), 4: (1.0, 3.0, 3.0, 1.0)}
"""CUT's filters by their size."""


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


@dataclass(frozen=True)
class Layout:
    """One way to name tensors."""

    architecture: str
    prefixes: Callable[[Tensors], list[str]]
    """All that stands before the names of this layout somewhere among a file's; the first component of the layout's own
    names is part of it where authors call it differently."""
    read: Callable[[Part, Choice], Recognised]
    example: Callable[[], dict[str, Tensor]]
    """Names and shapes of the published network, without values."""


def wrong_choice(part: Part, what: str, found: str) -> CheckpointError:
    """An error about a key of the study's ``teacher`` that does not suit the file."""
    return CheckpointError(f"{part.where}: teacher.{what}, but {found}")


def describe_shape(tensor: Tensor) -> str:
    """``64 x 3 x 7 x 7``"""
    return " x ".join(map(str, tensor.shape)) or "a single number"


# CycleGAN's ResNet, and its relatives


def _resnet_prefixes(tensors: Tensors) -> list[str]:
    """A first convolution of odd size (``P1.weight``), and convolutions in blocks (``P10.conv_block.1.weight``)."""
    found = []
    for name, tensor in tensors.items():
        match = re.fullmatch(r"((?:.*\.)?)1\.weight", name)
        if match and tensor.dim() == 4 and tensor.shape[-1] % 2 and tensor.shape[-1] > 3:
            block = re.compile(rf"{re.escape(match[1])}\d+\.[A-Za-z_]\w*\.\d+\.weight")
            if any(block.fullmatch(other) for other in tensors):
                found.append(match[1])
    return found


def _resnet_places(
    start: int, block: str, inner: tuple[int, int], architecture: Architecture
) -> tuple[dict[str, str], list[str]]:
    """Our modules to theirs, and which of ours are norms; ``inner``: indices of the convolutions in a block."""
    second = ("down.6", "down.7", 8, 9) if architecture.antialias else ("down.3", "down.4", 7, 8)
    convs = {"stem.1": 1, "down.0": 4, second[0]: second[2]}
    norms = {"stem.2": 2, "down.1": 5, second[1]: second[3]}
    after = start + architecture.blocks
    if architecture.upsampling == "transposed":
        convs |= {"up.0": after, "up.3": after + 3, "head.1": after + 7}
        norms |= {"up.1": after + 1, "up.4": after + 4}
    else:
        convs |= {"up.1": after + 1, "up.5": after + 5, "head.1": after + 9}
        norms |= {"up.2": after + 2, "up.6": after + 6}
    places = {ours: str(theirs) for ours, theirs in (convs | norms).items()}
    normed = list(norms)
    for number in range(architecture.blocks):
        for ours, theirs in ((1, inner[0]), (5, inner[1])):
            places[f"body.{number}.branch.{ours}"] = f"{start + number}.{block}.{theirs}"
            places[f"body.{number}.branch.{ours + 1}"] = f"{start + number}.{block}.{theirs + 1}"
            normed.append(f"body.{number}.branch.{ours + 1}")
    return places, normed


def _read_resnet(part: Part, choice: Choice) -> Recognised:
    """Translate names of one long Sequential; the indices tell what stands between the layers."""
    tensors = part.tensors
    width = _width(part, "1.weight", 7)
    inside: dict[int, list[int]] = {}
    word = ""
    for name, tensor in tensors.items():
        if tensor.dim() == 4 and (match := re.fullmatch(r"(\d+)\.([A-Za-z_]\w*)\.(\d+)\.weight", name)):
            inside.setdefault(int(match[1]), []).append(int(match[3]))
            word = word or match[2]
    start, last = min(inside), max(inside)
    filters = {int(m[1]) for name in tensors if (m := re.fullmatch(r"(\d+)\.filt", name))}
    plain = [int(m[1]) for n, t in tensors.items() if t.dim() == 4 and (m := re.fullmatch(r"(\d+)\.weight", n))]
    antialias = any(index < start for index in filters)
    ups = {index - last - 1 for index in plain if index > last}
    upsampling = "transposed"
    if any(index > last for index in filters):
        upsampling = "blur"
    elif ups & {1, 5, 9} and not ups & {0, 3}:
        upsampling = "nearest"
    if start != (12 if antialias else 10):
        raise CheckpointError(
            f"{part.where}: a ResNet whose blocks begin at {part.name(f'{start}.{word}')}; known are two halvings "
            f"before them, as in CycleGAN's, where they begin at 10 (with CUT's filters at 12)"
        )
    pairs = [sorted(found) for found in inside.values() if len(found) == 2]
    first, second = pairs[0] if pairs else (1, 5)
    margin = 1 if first else 0
    if first > 1 or not 0 <= second - first - 3 - margin <= 1:
        raise CheckpointError(
            f"{part.where}: a block whose convolutions are {part.name(f'{start}.{word}.{first}')} and .{second}; known "
            "are those of CycleGAN's, 1 and 5 (6 with dropout), with zero padding 0 and 3 (4)"
        )
    padding = "zero" if not margin else "reflect" if choice.padding == "auto" else choice.padding
    if not margin and choice.padding not in ("auto", "zero"):
        raise wrong_choice(part, f"padding says {choice.padding}", "its names are those of zero padding")
    if margin and choice.padding == "zero":
        raise wrong_choice(part, "padding says zero", "its names are those of padding by modules of their own")
    described = Architecture(
        "cyclegan_resnet", width, last - start + 1, padding=padding, antialias=antialias, upsampling=upsampling
    )
    places, normed = _resnet_places(start, word, (first, second), described)
    for index in sorted(filters):
        _check_filter(part, f"{index}.filt")
    notes = []
    if margin and choice.padding == "auto":
        notes.append("padding: reflect, as CycleGAN's (the file cannot tell it from replicate)")
    found = Recognised(described, {}, part, places, notes=notes)
    _settle_norm(found, normed, choice, default_bias=True)
    _rename(found, "a CycleGAN ResNet", passed={f"{index}.filt" for index in filters})
    return found


def _check_filter(part: Part, name: str) -> None:
    tensor = part.tensors[name].float()
    size = tensor.shape[-1] if tensor.dim() == 4 else 0
    side = torch.tensor(BINOMIAL.get(size, (1.0,)))
    wanted = torch.outer(side, side)
    wanted = wanted / wanted.sum() * (4 if size == 4 else 1)
    if size not in BINOMIAL or not torch.allclose(tensor, wanted.expand_as(tensor), atol=1e-3):
        raise CheckpointError(
            f"{part.where}: tensor {part.name(name)} ({describe_shape(part.tensors[name])}) is not CUT's filter of "
            "1 2 1, or 1 3 3 1 on the way up, the only ones known here"
        )


def _settle_norm(found: Recognised, normed: Iterable[str], choice: Choice, *, default_bias: bool | None) -> None:
    """Find out from a file which norms its network has; set architecture, notes, and add missing scales of ours."""
    tensors, places, part = found.part.tensors, found.modules, found.part
    normed = list(normed)
    scaled = [ours for ours in normed if f"{places[ours]}.weight" in tensors]
    tracked = [ours for ours in scaled if all(f"{places[ours]}.{name}" in tensors for name in STATISTICS)]
    # A norm's convolution stands right before it, and in the file it has the index before.
    biased = any(f"{place[: -len(index)]}{int(index) - 1}.bias" in tensors for place, index in _indexed(places, normed))
    # InstanceNorm without scales never used its statistics, which files of PyTorch 0.3 hold.
    norm = "batch" if 2 * len(tracked) > len(normed) else "instance"
    found.both_norms = norm == "batch"
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
    if norm == "batch":
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


# CartoonGAN


def _cartoongan_places(blocks: int) -> dict[str, str]:
    """Our modules to the authors' (``conv04_2``, ``in04_2``, ``deconv01_1``)."""
    modules = {
        **{"stem.1": "conv01_1", "stem.2": "in01_1", "head.1": "deconv03_1"},
        **{"down.0": "conv02_1", "down.1": "conv02_2", "down.2": "in02_1"},
        **{"down.4": "conv03_1", "down.5": "conv03_2", "down.6": "in03_1"},
        **{"up.0": "deconv01_1", "up.1": "deconv01_2", "up.2": f"in{blocks + 4:02d}_1"},
        **{"up.4": "deconv02_1", "up.5": "deconv02_2", "up.6": f"in{blocks + 5:02d}_1"},
    }
    for block in range(blocks):
        branch, number = f"body.{block}.branch", f"{block + 4:02d}"
        modules |= {f"{branch}.1": f"conv{number}_1", f"{branch}.2": f"in{number}_1"}
        modules |= {f"{branch}.5": f"conv{number}_2", f"{branch}.6": f"in{number}_2"}
    return modules


def _read_cartoongan(part: Part, choice: Choice) -> Recognised:
    last = max((int(match[1]) for name in part.tensors if (match := re.match(r"conv(\d+)_", name))), default=0)
    blocks = last - 3
    if blocks < 1:
        raise CheckpointError(f"{part.where}: CartoonGAN names, but no residual blocks ({part.name('conv04_1')}, …)")
    modules = _cartoongan_places(blocks)
    width = _width(part, "conv01_1.weight", 7)
    found = Recognised(Architecture("cartoongan", width, blocks), {}, part, modules)
    for name, tensor in part.tensors.items():
        module, _, parameter = name.rpartition(".")
        if module.startswith("in"):
            parameter = {theirs: ours for ours, theirs in SCALES.items()}.get(parameter, parameter)
        _put(found, name, module, parameter, tensor, "a CartoonGAN")
    return found


# pix2pix's U-Net


def _unet_prefixes(tensors: Tensors) -> list[str]:
    """The second level (``model.model.1.model.1.weight``), behind which no other one stands."""
    names = [re.fullmatch(r"((?:.*\.)?)1\.model\.1\.weight", n) for n, t in tensors.items() if t.dim() == 4]
    return [match[1] for match in names if match]


def _unet_places(last: int) -> tuple[dict[str, str], list[str]]:
    """Our modules to theirs, and which of ours are norms.

    Their blocks are nested: block 1 is ``model.model.1``, the others child 3 of the one around them. Inside, a
    convolution is child 1 and its norm child 2; the transposed one is child 5 with norm 6, or, in the innermost block,
    which has no first norm and no child block, 3 and 4.
    """
    modules, norms = {"down.0.0": "0", f"up.{last}.1": "3"}, []
    for level in range(1, last + 1):
        inner = "1.model" + ".3.model" * (level - 1)
        down, up = f"down.{level}", f"up.{last - level}"
        if level == last:
            modules |= {f"{down}.0": f"{inner}.1", f"{up}.1": f"{inner}.3", f"{up}.2": f"{inner}.4"}
        else:
            modules |= {f"{down}.0": f"{inner}.1", f"{down}.1": f"{inner}.2"}
            modules |= {f"{up}.1": f"{inner}.5", f"{up}.2": f"{inner}.6"}
            norms.append(f"{down}.1")
        norms.append(f"{up}.2")
    return modules, norms


def _read_unet(part: Part, choice: Choice) -> Recognised:
    depths = [
        match[1].count(".3.model")
        for name in part.tensors
        if (match := re.match(r"1\.model((?:\.3\.model)*)\.\d+\.weight", name))
    ]
    last = max(depths) + 1
    modules, norms = _unet_places(last)
    described = Architecture("pix2pix_unet", _width(part, "0.weight", 4), last + 1)
    found = Recognised(described, {}, part, modules)
    _settle_norm(found, norms, choice, default_bias=None)
    _rename(found, "a pix2pix U-Net")
    return found


# AnimeGANv2


def _animegan_places(blocks: int) -> dict[str, str]:
    """Our modules to ``block_a`` .. ``block_e``, whose convolutions are child 1 and norms child 2 of each member."""
    members = {"block_a.0": "stem", "block_a.1": "down.0", "block_a.2": "down.1"}
    members |= {"block_b.0": "down.2", "block_b.1": "down.3", "block_c.0": "body.0"}
    modules = {"head.0": "out_layer.0"}
    for block in range(1, blocks + 1):
        theirs, ours = f"block_c.{block}.layers", f"body.{block}.branch"
        members |= {f"{theirs}.{member}": f"{ours}.{member}" for member in (0, 1)}
        modules |= {f"{ours}.{child}": f"{theirs}.{child}" for child in (2, 3)}
    members |= {f"block_c.{blocks + 1}": f"body.{blocks + 1}", "block_d.0": "up.1", "block_d.1": "up.2"}
    members |= {"block_e.0": "up.4", "block_e.1": "up.5", "block_e.2": "up.6"}
    return modules | {f"{ours}.{child}": f"{theirs}.{child}" for theirs, ours in members.items() for child in (1, 2)}


def _read_animegan(part: Part, choice: Choice) -> Recognised:
    inner = (re.match(r"block_c\.(\d+)\.layers\.", name) for name in part.tensors)
    blocks = max((int(match[1]) for match in inner if match), default=0)
    if blocks < 1:
        missing = part.name("block_c.1.layers.0.1.weight")
        raise CheckpointError(f"{part.where}: AnimeGANv2 names, but no residual blocks ({missing})")
    aligned = choice.align_corners is not False
    described = Architecture("animeganv2", _width(part, "block_a.0.1.weight", 7), blocks, align_corners=aligned)
    found = Recognised(described, {}, part, _animegan_places(blocks))
    if choice.align_corners is None:
        found.notes.append("align_corners: true, the port's own default (the file cannot tell it from false)")
    _rename(found, "an AnimeGANv2")
    return found


# What they have in common


def _rename(found: Recognised, kind: str, passed: Iterable[str] = ()) -> None:
    """Give all tensors our names; what the norms of this architecture do not have is passed over."""
    unused: tuple[str, ...] = (COUNTER,)
    if found.architecture.norm != "batch":
        unused += STATISTICS
    for name, tensor in found.part.tensors.items():
        module, _, parameter = name.rpartition(".")
        if name not in passed and parameter not in unused:
            _put(found, name, module, parameter, tensor, kind)


def _put(found: Recognised, name: str, module: str, parameter: str, tensor: Tensor, kind: str) -> None:
    """Give a tensor our name; one that has no place is refused, not dropped."""
    ours = {theirs: own for own, theirs in found.modules.items()}.get(module)
    if ours is None or parameter not in ("weight", "bias", *STATISTICS):
        raise CheckpointError(
            f"{found.part.where}: tensor {found.part.name(name)} does not belong to {kind} generator "
            f"of {found.architecture.blocks} {'levels' if found.architecture.name == 'pix2pix_unet' else 'blocks'}"
        )
    found.tensors[f"{ours}.{parameter}"] = tensor


def _width(part: Part, stem: str, kernel: int) -> int:
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


def _prefixes(pattern: str) -> Callable[[Tensors], list[str]]:
    compiled = re.compile(rf"((?:.*\.)?){pattern}")

    def find(tensors: Tensors) -> list[str]:
        return list(dict.fromkeys(match[1] for name in tensors if (match := compiled.match(name))))

    return find


def _example(architecture: Architecture, modules: Mapping[str, str], prefix: str = "") -> dict[str, Tensor]:
    found = {}
    for name, tensor in build_empty(architecture).state_dict().items():
        module, _, parameter = name.rpartition(".")
        if modules[module].startswith("in"):
            parameter = SCALES[parameter]
        found[f"{prefix}{modules[module]}.{parameter}"] = tensor
    return found


def _example_resnet() -> dict[str, Tensor]:
    described = Architecture("cyclegan_resnet", 64, 9, affine=False)
    return _example(described, _resnet_places(10, "conv_block", (1, 5), described)[0], "model.")


def _example_unet() -> dict[str, Tensor]:
    return _example(Architecture("pix2pix_unet", 64, 8, norm="batch"), _unet_places(7)[0], "model.model.")


LAYOUTS = (
    Layout("cyclegan_resnet", _resnet_prefixes, _read_resnet, _example_resnet),
    Layout(
        "cartoongan",
        _prefixes(r"conv01_1\.weight"),
        _read_cartoongan,
        lambda: _example(Architecture("cartoongan", 64, 8), _cartoongan_places(8)),
    ),
    Layout("pix2pix_unet", _unet_prefixes, _read_unet, _example_unet),
    Layout(
        "animeganv2",
        _prefixes(r"block_[ac]\.\d"),
        _read_animegan,
        lambda: _example(Architecture("animeganv2", 32, 4), _animegan_places(4)),
    ),
)

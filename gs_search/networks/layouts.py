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

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import Architecture
from gs_search.networks.recognised import (
    SCALES,
    Choice,
    Part,
    Recognised,
    Tensors,
    build_empty,
    describe_shape,
    put,
    rename,
    settle_norm,
    stem_width,
    wrong_choice,
)

__all__ = ["LAYOUTS", "Layout"]

BINOMIAL = {3: (1.0, 2.0, 1.0), 4: (1.0, 3.0, 3.0, 1.0)}
"""CUT's filters by their size."""


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
    width = stem_width(part, "1.weight", 7)
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
    settle_norm(found, normed, choice, default_bias=True)
    rename(found, "a CycleGAN ResNet", passed={f"{index}.filt" for index in filters})
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
    width = stem_width(part, "conv01_1.weight", 7)
    found = Recognised(Architecture("cartoongan", width, blocks), {}, part, modules)
    for name, tensor in part.tensors.items():
        module, _, parameter = name.rpartition(".")
        if module.startswith("in"):
            parameter = {theirs: ours for ours, theirs in SCALES.items()}.get(parameter, parameter)
        put(found, name, module, parameter, tensor, "a CartoonGAN")
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
    described = Architecture("pix2pix_unet", stem_width(part, "0.weight", 4), last + 1)
    found = Recognised(described, {}, part, modules)
    settle_norm(found, norms, choice, default_bias=None)
    rename(found, "a pix2pix U-Net")
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
    described = Architecture("animeganv2", stem_width(part, "block_a.0.1.weight", 7), blocks, align_corners=aligned)
    found = Recognised(described, {}, part, _animegan_places(blocks))
    if choice.align_corners is None:
        found.notes.append("align_corners: true, the port's own default (the file cannot tell it from false)")
    rename(found, "an AnimeGANv2")
    return found


# All of them


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

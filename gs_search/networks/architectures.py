"""The generators that a study file can name, with the arguments that build them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from gs_search.errors import CheckpointError
from gs_search.networks.cartoongan import CartoonGenerator
from gs_search.networks.resnet import ResnetGenerator

__all__ = ["ARCHITECTURES", "Architecture", "build"]


@dataclass(frozen=True)
class Architecture:
    """A generator's name and size: enough, with a file of tensors, to build it again.

    ``affine`` says whether the norms carry scales and shifts (always so for CartoonGAN).
    """

    name: str
    width: int
    blocks: int
    affine: bool = True

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
            return cls(**fields)  # type: ignore[arg-type]
        except TypeError as error:
            raise CheckpointError(f"the architecture's description is damaged: {error}") from None


ARCHITECTURES: dict[str, Callable[[Architecture], nn.Module]] = {
    "cyclegan_resnet": lambda a: ResnetGenerator(a.width, a.blocks, affine=a.affine),
    "cartoongan": lambda a: CartoonGenerator(a.width, a.blocks),
}


def build(architecture: Architecture) -> nn.Module:
    """Return the generator with random weights."""
    return ARCHITECTURES[architecture.name](architecture)

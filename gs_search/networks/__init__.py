"""Generators, discriminator, and the reading of foreign checkpoints."""

from __future__ import annotations

from gs_search.networks.architectures import ARCHITECTURES, Architecture, build
from gs_search.networks.cartoongan import CartoonGenerator
from gs_search.networks.checkpoints import load_generator, read_tensors
from gs_search.networks.patchgan import PatchGan
from gs_search.networks.resnet import ResidualBlock, ResnetGenerator

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CartoonGenerator",
    "PatchGan",
    "ResidualBlock",
    "ResnetGenerator",
    "build",
    "load_generator",
    "read_tensors",
]

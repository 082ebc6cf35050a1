"""Generators, discriminator, and the reading of foreign checkpoints."""

from __future__ import annotations

from gs_search.networks.animegan import AnimeGenerator, InvertedResidualBlock
from gs_search.networks.architectures import ARCHITECTURES, Architecture, build
from gs_search.networks.cartoongan import CartoonGenerator
from gs_search.networks.checkpoints import load_generator, read_tensors, recognise
from gs_search.networks.inspection import inspect_file
from gs_search.networks.own_module import ModuleArchitecture, build_module, load_module
from gs_search.networks.patchgan import PatchGan
from gs_search.networks.recognised import Choice
from gs_search.networks.resnet import ResidualBlock, ResnetGenerator
from gs_search.networks.unet import UnetGenerator

__all__ = [
    "ARCHITECTURES",
    "AnimeGenerator",
    "Architecture",
    "CartoonGenerator",
    "Choice",
    "InvertedResidualBlock",
    "ModuleArchitecture",
    "PatchGan",
    "ResidualBlock",
    "ResnetGenerator",
    "UnetGenerator",
    "build",
    "build_module",
    "inspect_file",
    "load_generator",
    "load_module",
    "read_tensors",
    "recognise",
]

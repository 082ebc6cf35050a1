"""Descriptions in files: those of earlier versions, those of this one, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gs_search.errors import CheckpointError
from gs_search.networks import ARCHITECTURES, Architecture, build, load_generator

SMALL = [
    Architecture("cyclegan_resnet", 4, 1),
    Architecture("cyclegan_resnet", 4, 1, affine=False),
    Architecture("cartoongan", 4, 1),
    Architecture("pix2pix_unet", 4, 3, norm="batch"),
    Architecture("pix2pix_unet", 4, 3),
    Architecture("pix2pix_unet", 4, 3, affine=False),
    Architecture("animeganv2", 4, 1),
    Architecture("animeganv2", 4, 1, align_corners=False),
]


def test_every_architecture_is_tried_here() -> None:
    assert {architecture.name for architecture in SMALL} == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_a_file_of_ours_builds_the_same_network_again(tmp_path: Path, architecture: Architecture) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    generator = build(architecture)
    with torch.no_grad():
        generator(x)  # in training mode, so that running statistics are no longer those of a new network
    metadata = {"architecture": json.dumps(architecture.to_json())}
    save_file(generator.state_dict(), tmp_path / "net.safetensors", metadata)
    loaded, found = load_generator(tmp_path / "net.safetensors")
    assert found == architecture
    with torch.no_grad():
        assert torch.equal(loaded(x), generator.eval()(x))
        assert loaded(x).shape == x.shape


def test_descriptions_of_earlier_versions_mean_what_they_meant() -> None:
    earlier = {"name": "cyclegan_resnet", "width": 8, "blocks": 2, "affine": False}
    assert Architecture.from_json(earlier) == Architecture("cyclegan_resnet", 8, 2, affine=False)
    assert Architecture.from_json({"name": "cartoongan", "width": 8, "blocks": 2}).affine


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "stylegan"}, "unknown architecture 'stylegan'"),
        ({"name": "pix2pix_unet", "width": 8}, "description is damaged"),
        ({"name": "pix2pix_unet", "width": 8, "blocks": 5, "norm": "layer"}, "unknown norm 'layer'"),
        ({"name": "pix2pix_unet", "width": 8, "blocks": 5, "norm": ["batch"]}, "unknown norm"),
        ({"name": "animeganv2", "width": 8, "blocks": 5, "dropout": True}, "description is damaged"),
    ],
)
def test_descriptions_that_cannot_be_built_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as refusal:
        Architecture.from_json(fields)
    assert "\n" not in str(refusal.value)

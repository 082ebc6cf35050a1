"""A tiny teacher with random weights and its lessons, for tests of the algorithm itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gs_search.networks import ResnetGenerator
from gs_search.slimming import Batch, Teacher
from gs_search.slimming.layers import norms


def random_teacher(width: int = 8, blocks: int = 2, image_px: int = 32) -> Teacher:
    """A ResNet generator whose norms have uneven scales and shifts, so that nothing cancels by chance."""
    torch.manual_seed(1)
    generator = ResnetGenerator(width, blocks)
    with torch.no_grad():
        for norm in norms(generator).values():
            norm.weight.uniform_(0.2, 1.5)
            norm.bias.normal_(0, 0.1)
    return Teacher(generator, image_px)


class RandomLessons:
    """Smooth random pictures with the teacher's answers."""

    def __init__(self, teacher: Teacher, count: int = 8, image_px: int = 32) -> None:
        noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(2)) * 2 - 1
        self.inputs = torch.nn.functional.interpolate(noise, size=image_px, mode="bicubic").clamp(-1, 1)
        self.outputs, self.features = teacher.answer(self.inputs)
        self.featured = count

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        rows = torch.as_tensor(indices)
        return Batch(self.inputs[rows], self.outputs[rows], {k: v[rows] for k, v in self.features.items()})

"""The terms of the GAN Slimming objective (Wang et al., ECCV 2020).

``min over G, max over D:  adversarial_weight * L_GAN + distill_weight * L_pixel + feature_weight * L_feature +
rho * ||scales||_1``; the last term is the proximal step of ``sparsity``. The adversarial term is LSGAN's
(Mao et al., ICCV 2017), as in the reference code; patches are averaged after the square, not before.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ImageBuffer", "discriminator_loss", "feature_loss", "generator_loss", "pixel_loss"]


def generator_loss(scores: Tensor) -> Tensor:
    """LSGAN for the generator: its pictures should score one."""
    return (scores.float() - 1.0).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """LSGAN for the discriminator, halved as in CycleGAN: real ones score one, fakes zero."""
    return 0.5 * ((real.float() - 1.0).square().mean() + fake.float().square().mean())


def pixel_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of pictures in [-1, 1]."""
    return (student.float() - teacher.float()).abs().mean()


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of N x C x h x w features over the teacher's mean square: 1 for a student of zeros."""
    student, teacher = student.float(), teacher.float()
    return (student - teacher).square().mean() / teacher.square().mean().clamp_min(1e-8)


class ImageBuffer:
    """The last student's pictures, half of them replayed to the discriminator (Shrivastava et al., CVPR 2017)."""

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        self.capacity, self.generator = capacity, generator
        self.pictures: list[Tensor] = []

    def swap(self, batch: Tensor) -> Tensor:
        """Store a detached batch (N x 3 x H x W); return as many pictures, each new or an older one."""
        answer = []
        for picture in batch:
            if len(self.pictures) < self.capacity:
                self.pictures.append(picture.clone())
                answer.append(picture)
            elif torch.rand((), generator=self.generator) < 0.5:
                place = int(torch.randint(self.capacity, (), generator=self.generator))
                answer.append(self.pictures[place])
                self.pictures[place] = picture.clone()
            else:
                answer.append(picture)
        return torch.stack(answer)

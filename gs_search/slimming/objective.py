"""The terms of the GAN Slimming objective (Wang et al., ECCV 2020).

``min over G, max over D:  adversarial_weight * L_GAN + distill_weight * L_pixel + feature_weight * L_feature +
critic_feature_weight * L_critic + rho * ||scales||_1``; the last term is the proximal step of ``sparsity``, and
the perceptual terms are in ``perceptual``. The discriminator gives raw scores; L_GAN is one of

- ``lsgan`` (Mao et al., ICCV 2017), as in the reference code,
- ``hinge`` (Lim and Ye, Geometric GAN, 2017),
- ``log``, the paper's: E log D(y) + E log(1 - D(G(x))), D the sigmoid of the scores.

Every term is computed in float32, whatever arithmetic the networks ran in. Scores are maps of patches of any
shape: averaged after the loss, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gs_search.errors import CheckpointError

__all__ = [
    "ImageBuffer",
    "critic_feature_loss",
    "critic_features",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
    "pixel_loss",
]


def generator_loss(scores: Tensor, kind: str = "lsgan") -> Tensor:
    """What the generator pays for the scores of its pictures.

    ``lsgan``: (s - 1)^2; ``hinge``: -s; ``log``: -log D. The paper's own log(1 - D) has no gradient left where
    the discriminator wins, so this is its usual stand-in with the same equilibrium (Goodfellow et al., 2014).
    """
    scores = scores.float()
    if kind == "lsgan":
        return (scores - 1.0).square().mean()
    if kind == "hinge":
        return -scores.mean()
    if kind == "log":
        return F.softplus(-scores).mean()
    raise ValueError(f"adversarial loss must be lsgan, hinge or log, not {kind!r}")


def discriminator_loss(real: Tensor, fake: Tensor, kind: str = "lsgan") -> Tensor:
    """What the discriminator pays for its scores of real pictures and of fakes.

    ``lsgan``: ((r - 1)^2 + f^2) / 2, halved as in CycleGAN; ``hinge``: max(0, 1 - r) + max(0, 1 + f);
    ``log``: -log D(r) - log(1 - D(f)).
    """
    real, fake = real.float(), fake.float()
    if kind == "lsgan":
        return 0.5 * ((real - 1.0).square().mean() + fake.square().mean())
    if kind == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
    if kind == "log":  # -log sigmoid(s) = softplus(-s), without an overflow at either end
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    raise ValueError(f"adversarial loss must be lsgan, hinge or log, not {kind!r}")


def pixel_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of pictures in [-1, 1]."""
    return _difference(student, teacher).abs().mean()


def feature_loss(student: Tensor, teacher: Tensor, mean_square: Tensor | None = None) -> Tensor:
    """Squared difference of N x C x h x w features over the teacher's mean square: 1 for a student of zeros.

    Args:
        mean_square: the teacher's, where ``teacher`` holds a part of a step's pictures only.
    """
    scale = teacher.float().square().mean() if mean_square is None else mean_square
    return _difference(student, teacher).square().mean() / scale.clamp_min(1e-8)


def critic_feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Feature matching (Wang et al., pix2pixHD, CVPR 2018): mean over layers of the mean absolute difference.

    Args:
        student: the discriminator's features of the student's pictures, from ``critic_features``.
        teacher: those of the teacher's pictures; no gradient reaches them.
    """
    layers = [_difference(s, t.detach()).abs().mean() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(layers).mean()


def critic_features(critic: nn.Module, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Scores of pictures (N x 3 x H x W in [-1, 1]), as ``critic(pictures)``, and what each activation let through.

    Args:
        critic: a ``PatchGan``: its ``model`` is one chain of layers.
    """
    features, x = [], pictures
    for layer in cast(nn.Sequential, critic.model):
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            features.append(x)
    return x, features


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
                answer.append(self.pictures[place].to(picture.device))  # a loaded one may still lie on the CPU
                self.pictures[place] = picture.clone()
            else:
                answer.append(picture)
        return torch.stack(answer)

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that a resumed buffer needs to go on bit for bit.

        ``pictures`` (count x 3 x H x W; empty at first), ``count``, and ``generator``, the state of the generator,
        also where others draw from it too.
        """
        pictures = torch.stack(self.pictures) if self.pictures else torch.empty(0)
        return {"pictures": pictures, "count": len(self.pictures), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from a ``state_dict``; sets the generator, too.

        Raises:
            CheckpointError: the state is incomplete, or of a larger buffer.
        """
        pictures, count, generator = (state.get(name) for name in ("pictures", "count", "generator"))
        if not isinstance(pictures, Tensor) or not isinstance(generator, Tensor) or len(pictures) != count:
            raise CheckpointError("the image buffer's state is damaged: start this run anew")
        if len(pictures) > self.capacity:
            raise CheckpointError(f"the stored image buffer has {count} pictures, this one holds {self.capacity}")
        self.pictures = [picture.clone() for picture in pictures]  # clones: views would keep the whole stack alive
        self.generator.set_state(generator.cpu())


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    """In float32; shapes must agree, for broadcasting would compare every picture with every other."""
    assert student.shape == teacher.shape, (student.shape, teacher.shape)
    return student.float() - teacher.float()

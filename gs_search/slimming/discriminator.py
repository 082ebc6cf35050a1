"""The discriminator of the minimax game: its network, its optimizer, and its memory of old fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gs_search.networks import PatchGan
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.objective import ImageBuffer, discriminator_loss
from gs_search.study.settings import SlimmingSettings

__all__ = ["Adversary", "mean_of"]

BUFFER = 50
"""Pictures replayed to the discriminator, as in CycleGAN."""


class Adversary:
    """The discriminator with its optimizer and its buffer of old fakes; it outlives the phases of a run.

    Args:
        generator: of the initial weights and of the buffer.
        network: another discriminator than the PatchGAN of the settings.
        team: with whom it learns; ``generator`` and buffer are the same in all of them.
    """

    def __init__(
        self,
        settings: SlimmingSettings,
        generator: torch.Generator,
        device: torch.device | str,
        network: nn.Module | None = None,
        team: Team = ALONE,
    ) -> None:
        self.kind = settings.adversarial_loss
        own = PatchGan(settings.discriminator_width).initialise(generator) if network is None else network
        self.network = own.to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.discriminator_learning_rate, betas=(0.5, 0.999), fused=True
        )
        self.buffer = ImageBuffer(BUFFER, generator)
        self.team = team
        self._both = team.replica(_Both(self.network))

    def learn(self, real: Tensor, fake: Tensor, autocast: torch.autocast, parts: int = 1) -> Tensor:
        """One step of ascent; returns the loss, whose value needs no waiting for the device.

        Args:
            real, fake: this process's pictures of the step, N x 3 x H x W.
            parts: in how many equal parts they go through the network, whose gradients are averaged.
        """
        self.network.requires_grad_(True)
        old_and_new = self.team.part(self.buffer.swap(self.team.gather(fake)))
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for truth, guess in zip(real.chunk(parts), old_and_new.chunk(parts), strict=True):
            with autocast:
                real_scores, fake_scores = self._both(truth, guess)
            loss = discriminator_loss(real_scores, fake_scores, self.kind)
            (loss / parts).backward()
            losses.append(loss.detach())
        self.optimizer.step()
        return mean_of(losses)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, bit for bit."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])


def mean_of(parts: Sequence[Tensor]) -> Tensor:
    """The mean of scalars, summed as a team of as many processes sums them."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum() / len(parts)


class _Both(nn.Module):
    """Scores of real pictures and of fakes in one call, after which a team averages its gradients once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(real), self.network(fake)

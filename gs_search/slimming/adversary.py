"""The discriminator of the minimax game: its network, its optimizer, and its memory of old fakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gs_search.networks import PatchGan
from gs_search.settings import SlimmingSettings
from gs_search.slimming.objective import ImageBuffer, discriminator_loss

__all__ = ["Adversary"]

BUFFER = 50
"""Pictures replayed to the discriminator, as in CycleGAN."""


class Adversary:
    """The discriminator with its optimizer and its buffer of old fakes; it outlives the phases of a run.

    Args:
        generator: of the initial weights and of the buffer.
        network: another discriminator than the PatchGAN of the settings.
    """

    def __init__(
        self,
        settings: SlimmingSettings,
        generator: torch.Generator,
        device: torch.device | str,
        network: nn.Module | None = None,
    ) -> None:
        self.kind = settings.adversarial_loss
        own = PatchGan(settings.discriminator_width).initialise(generator) if network is None else network
        self.network = own.to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.discriminator_learning_rate, betas=(0.5, 0.999), fused=True
        )
        self.buffer = ImageBuffer(BUFFER, generator)

    def learn(self, real: Tensor, fake: Tensor, autocast: torch.autocast) -> Tensor:
        """One step of ascent; returns the loss, whose value needs no waiting for the device."""
        self.network.requires_grad_(True)
        with autocast:
            real_scores, fake_scores = self.network(real), self.network(self.buffer.swap(fake))
        loss = discriminator_loss(real_scores, fake_scores, self.kind)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

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

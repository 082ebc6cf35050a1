"""What the student is held to: the teacher's picture, its features, and how a network of ImageNet sees them.

``L_dist`` of the paper (Wang et al., ECCV 2020) is one distance between pictures; here it is a weighted sum of
terms, each of them logged. Whatever needs the teacher alone is computed without gradients and remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gs_search.slimming.channels import Alive
from gs_search.slimming.distributed import ALONE, Team
from gs_search.slimming.importance import Scaling
from gs_search.slimming.objective import feature_loss, pixel_loss
from gs_search.slimming.perceptual import Perceptual, PerceptualCache, content_loss, style_loss
from gs_search.slimming.teacher import Batch, Teacher
from gs_search.study.settings import SlimmingSettings

__all__ = ["Distillation", "perceptual_of"]


class Distillation(nn.Module):
    """The distillation terms of one phase.

    Args:
        scaling: what was done to the student's scales; the teacher's features grow by as much.
        alive: channels that the student has; of an unextracted one they change as it shrinks.
        extracted: whether dead channels are gone from the student.
        perceptual: shared by all phases of a run; None where no perceptual term is asked for.
        team: among whom the pictures of a step are dealt out.
    """

    def __init__(
        self,
        teacher: Teacher,
        scaling: Scaling,
        alive: Alive,
        settings: SlimmingSettings,
        *,
        extracted: bool,
        perceptual: PerceptualCache | None,
        team: Team = ALONE,
    ) -> None:
        super().__init__()
        self.teacher, self.scaling, self.alive, self.settings = teacher, scaling, alive, settings
        self.extracted, self.team = extracted, team
        # In a list, so that its frozen weights are no parameters of this module.
        self._perceptual = [perceptual] if perceptual is not None else []
        layers = teacher.graph.layers
        self.weights = {t: settings.per_group("feature_weight", layers[t].group) for t in teacher.taps}
        self._kept = {tap: self._tap(tap) for tap in teacher.taps} if extracted else {}
        self.maps = nn.ParameterDict()
        if settings.feature_match == "map":
            for tap in (t for t, weight in self.weights.items() if weight):
                self.maps[_key(tap)] = nn.Parameter(self._placing(tap))

    def terms(
        self,
        fake: Tensor,
        features: Mapping[str, Tensor],
        batch: Batch,
        mean_squares: Mapping[str, Tensor] | None = None,
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term.

        Args:
            fake: the student's pictures, N x 3 x H x W in [-1, 1].
            features: the student's at the teacher's taps.
            mean_squares: from the method of this name, where ``batch`` is a part of the step's pictures.
        """
        settings = self.settings
        found = {"pixel": (settings.distill_weight, pixel_loss(fake, batch.outputs))}
        if batch.features and any(self.weights.values()):
            found["feature"] = (1.0, self._features(features, batch, mean_squares or {}))
        if self._perceptual:
            cache = self._perceptual[0]
            wanted = cache.describe(batch.outputs, batch.indices)
            seen = cache.perceptual.describe(fake)
            if settings.perceptual_weight:
                found["perceptual"] = (settings.perceptual_weight, content_loss(seen, wanted))
            if settings.style_weight:
                found["style"] = (settings.style_weight, style_loss(seen, wanted))
        return found

    def mean_squares(self, batches: Sequence[Batch]) -> dict[str, Tensor] | None:
        """Denominators of the feature term over all pictures of a step; None where one batch has all of them."""
        taps = [tap for tap, weight in self.weights.items() if weight and tap in batches[0].features]
        if not taps or len(batches) * self.team.size == 1:
            return None
        rows = [torch.stack([self._wanted(tap, batch)[0].float().square().mean() for tap in taps]) for batch in batches]
        means = self.team.mean(torch.stack(rows).sum(dim=0) / len(rows))
        return dict(zip(taps, means, strict=True))

    def _wanted(self, tap: str, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The teacher's features as the student's are to be, and which channels they are; None: all, through a map."""
        if _key(tap) in self.maps:
            return batch.features[tap], None
        positions, growth = self._kept[tap] if tap in self._kept else self._tap(tap)
        return batch.features[tap][:, positions] * growth.view(1, -1, 1, 1), positions

    def _features(self, features: Mapping[str, Tensor], batch: Batch, mean_squares: Mapping[str, Tensor]) -> Tensor:
        """The weighted mean over taps; a tap whose residual block has vanished counts nothing."""
        total = batch.outputs.new_zeros(())
        for tap, weight in self.weights.items():
            if not weight or tap not in batch.features or tap not in features:
                continue
            student, (wanted, positions) = features[tap], self._wanted(tap, batch)
            if positions is None:
                student = torch.einsum("tc,nchw->nthw", self.maps[_key(tap)], student.float())
            elif not self.extracted:
                student = student[:, positions]
            total = total + weight / len(self.weights) * feature_loss(student, wanted, mean_squares.get(tap))
        return total

    def _tap(self, tap: str) -> tuple[Tensor, Tensor]:
        device = next(self.teacher.network.parameters()).device
        positions, growth = self.teacher.tap_growth(self.scaling, self.alive, tap)
        return torch.as_tensor(positions, device=device), torch.as_tensor(growth, dtype=torch.float32, device=device)

    def _placing(self, tap: str) -> Tensor:
        """A 1x1 map that puts each of the student's channels where the teacher has it: T x C."""
        positions, growth = self._tap(tap)
        width = self.teacher.graph.layers[tap].inputs
        placed = torch.zeros(width, len(positions) if self.extracted else width, device=growth.device)
        placed[positions, torch.arange(len(positions)) if self.extracted else positions] = 1 / growth
        return placed


@functools.lru_cache(maxsize=2)
def _network(name: str, style: bool, device: str) -> Perceptual:
    return Perceptual(name, style=style).to(device)


def perceptual_of(settings: SlimmingSettings, device: torch.device | str) -> PerceptualCache | None:
    """The feature network that the settings ask for, with an empty memory, or None.

    Raises:
        BadInput: its weights are not to be had.
    """
    if not settings.perceptual_weight and not settings.style_weight:
        return None
    return PerceptualCache(_network(settings.perceptual_network, settings.style_weight > 0, str(device)))


def _key(tap: str) -> str:
    return tap.replace(".", "/")

"""The dense generator as slimming sees it: its channels traced, its answers remembered.

``Teacher`` holds the slimmable copy of a generator and says what a student is taught: the teacher's picture and
its features, taken where convolutions read normalised streams.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming.adoption import plain_copy
from gs_search.slimming.channel_graph import trace
from gs_search.slimming.channels import Alive, ChannelGraph
from gs_search.slimming.importance import Scaling, group_factors, rescale_, stiff_groups, taylor_scores, weight_scores
from gs_search.slimming.layers import SlimLayer, SlimLinear, slim_layers, slimmable
from gs_search.slimming.proving import small_pictures

__all__ = ["Batch", "Teacher", "record_features"]


MOST_FROZEN = 0.5
"""Share of frozen multiply-adds above which a generator is refused."""


@dataclass(frozen=True)
class Batch:
    """One step's material; all float32 on the training device.

    Attributes:
        inputs: N x 3 x H x W in [-1, 1].
        outputs: the teacher's pictures, the same shape and range.
        features: tap to the teacher's N x C x h x w; empty where they are not taught.
        indices: numbers of the lessons, by which what is computed of ``outputs`` may be remembered; or None.
    """

    inputs: Tensor
    outputs: Tensor
    features: Mapping[str, Tensor]
    indices: tuple[int, ...] | None = None


class Teacher:
    """A generator prepared for slimming.

    Args:
        generator: takes and returns N x 3 x H x W in [-1, 1]; is copied, never changed.
        image_px: size of the pictures at which costs are counted and the graph is traced.

    Raises:
        UnsupportedNetwork: the generator cannot be slimmed.
    """

    def __init__(self, generator: nn.Module, image_px: int) -> None:
        self.notes: list[str] = []
        """What was changed to make the generator slimmable and must be said, one line each."""
        self.network = slimmable(generator, self.notes).eval()
        self.image_px = image_px
        self.graph: ChannelGraph = trace(self.network, image_px)
        self.network.requires_grad_(False)
        _check_same(generator, self.network, _probe(self.network, image_px))
        _check_pairs(self.network, _probe(self.network, image_px))
        self.taps = _taps(self.graph, self.network)
        self._stiff: frozenset[str] | None = None
        self._scores: dict[str, dict[str, Tensor]] = {}

    @property
    def frozen_share(self) -> float:
        """Share of the multiply-adds that nothing can lessen for want of knowledge, see ``graph.frozen``."""
        return sum(part.macs_share for part in self.graph.frozen)

    def check_frozen(self) -> None:
        """Refuse a generator most of which would not be slimmed.

        Raises:
            UnsupportedNetwork: more than half of the multiply-adds are frozen; the message names the largest part.
        """
        if self.frozen_share > MOST_FROZEN:
            largest = max(self.graph.frozen, key=lambda part: part.macs_share)
            raise UnsupportedNetwork(
                f"{self.frozen_share:.0%} of the generator's multiply-adds cannot be slimmed, most in {largest} "
                "(allow_frozen: true under teacher in a study, or allow_frozen=True in slim_generator, slims the rest)"
            )

    def to(self, device: torch.device | str) -> Teacher:
        self.network.to(device)
        self._scores.clear()
        return self

    def student(self, importance: str = "rank", pictures: Tensor | None = None) -> tuple[nn.Module, Scaling]:
        """A trainable copy whose scales mean importance, and what was done to them.

        Args:
            importance: ``rank``, ``taylor`` or ``raw``, see ``SlimmingSettings``.
            pictures: N x 3 x H x W in [-1, 1] on which ``taylor`` measures; remembered from the first call.
        """
        network = copy.deepcopy(self.network).requires_grad_(True)
        if importance == "raw":
            return network, Scaling.none(self.graph)
        if importance not in self._scores:
            if importance == "taylor":
                assert pictures is not None, "importance taylor is measured on pictures"
                self._scores[importance] = taylor_scores(self.graph, self.network, pictures)
            else:
                self._scores[importance] = weight_scores(self.graph, self.network)
        if self._stiff is None:
            self._stiff = stiff_groups(self.graph, self.network, _probe(self.network, self.image_px))
        scores = self._scores[importance]
        factors = group_factors(self.graph, scores) if importance == "taylor" else None
        return network, rescale_(self.graph, network, scores, self._stiff, factors)

    @torch.no_grad()
    def answer(self, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's pictures and the features at its taps."""
        with record_features(self.network, self.taps) as features:
            outputs = self.network(pictures)
        return outputs, dict(features)

    def tap_growth(self, scaling: Scaling, alive: Alive, tap: str) -> tuple[np.ndarray, np.ndarray]:
        """Channels of a tap that are alive (positions), and how much the rescale has grown each of them."""
        width = self.graph.layers[tap].inputs
        keep = self.graph.kept(alive, tap, "in", width)
        growth = np.ones(width, dtype=np.float32)
        for name, group in self.graph.groups.items():
            for slot in group.slots:
                if slot.module == tap and slot.role == "in":
                    growth[slot.positions] = scaling.growth[name][slot.channels]
        positions = np.flatnonzero(keep)
        return positions, growth[positions]


@contextmanager
def record_features(network: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open, every forward pass leaves the inputs of the convolutions ``taps`` in the dict.

    A tap whose residual block has vanished leaves nothing.
    """
    features: dict[str, Tensor] = {}
    handles = []
    layers = slim_layers(network)
    for name in (tap for tap in taps if tap in layers):

        def record(module: SlimLayer, inputs: tuple[Tensor, ...], name: str = name) -> None:
            features[name] = inputs[0]

        handles.append(layers[name].register_forward_pre_hook(record))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def _probe(network: nn.Module, image_px: int) -> Tensor:
    """A random picture of the traced size."""
    noise = torch.rand(1, 3, image_px, image_px, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(next(network.parameters()).device)


@torch.no_grad()
def _check_same(generator: nn.Module, network: nn.Module, picture: Tensor) -> None:
    """The slimmable copy must compute what the generator computes; activations in place may be why it does not.

    Those that change a skip connection are put back in place.
    """
    original = plain_copy(generator)[0].eval()
    wanted = original(picture.clone())

    def same() -> bool:
        return bool((network(picture.clone()) - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp_min(1.0))

    if same():
        return
    in_place = [name for name, m in original.named_modules() if getattr(m, "inplace", False) is True]
    for value in (True, False):
        for name in in_place:
            module: Any = network.get_submodule(name)
            module.inplace = value
            if not value and not same():
                module.inplace = True
        if not same():
            raise UnsupportedNetwork(
                "the generator gives another picture each time, or changes when its layers are replaced (random "
                "functions outside of nn.Dropout, hooks); make it deterministic in evaluation mode"
            )


def _check_pairs(network: nn.Module, picture: Tensor) -> None:
    """The generator must take several pictures at once, as training gives them."""
    pictures = small_pictures(network, picture).repeat(2, 1, 1, 1)
    try:
        with torch.no_grad():
            shape = network(pictures).shape
    except Exception as error:  # whatever somebody's code raises
        brief = " ".join(str(error).split())[:200]
        raise UnsupportedNetwork(f"the generator takes one picture, but fails on two at once: {brief}") from None
    if len(shape) != 4 or shape[0] != 2:
        raise UnsupportedNetwork("the generator does not return a picture for each of two; it must keep them apart")


def _taps(graph: ChannelGraph, network: nn.Module) -> tuple[str, ...]:
    """Convolutions whose inputs are taught: those that read a normalised stream outside residual branches."""
    layers = slim_layers(network)
    taps = []
    for name in graph.layers:
        sources = [g for g in graph.groups.values() if any(s.module == name and s.role == "in" for s in g.slots)]
        gated = any(layers[s.module].gate is not None for g in sources for s in g.slots if s.role == "out")
        if graph.costs is not None and isinstance(layers[name], SlimLinear):  # tokens, not places of a picture
            continue
        if sources and not gated and not any(group.block for group in sources):
            taps.append(name)
    return tuple(taps)

"""Whether a graph tells the truth about its network: tried out, and counted by somebody else."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming.channels import Alive, ChannelGraph
from gs_search.slimming.extraction import check_parity, extract
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.sparsity import mask_

__all__ = ["add_gates_", "check_count", "count_products", "fault", "faults", "small_pictures"]

CROP_PX = 64
"""Side of the pictures on which masked and cut networks are compared (in double precision), where they take them."""

MANY = 2e10
"""Multiply-adds that take about as long as setting up torch's meta device."""

COUNT_TOLERANCE = 1e-6
"""Relative difference of two counts of multiply-adds."""


def count_products(network: nn.Module, image_px: int, expected: float = 0.0) -> float:
    """Multiply-adds of one picture by torch's own counter: convolutions, matrix products, attention.

    Args:
        expected: about how many there are. Where they are many, and the network can run without data (on torch's meta
            device, which takes a second to set up), nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    def count(network: nn.Module, device: torch.device | str) -> float:
        picture = torch.zeros(1, 3, image_px, image_px, device=device)
        with slow_attention(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(picture)
        return counter.get_total_flops() / 2

    still = copy.deepcopy(network).requires_grad_(False)  # the counter would hang itself on gradients
    if expected > MANY:
        try:
            return count(copy.deepcopy(still).to("meta"), "meta")
        except (RuntimeError, NotImplementedError, ValueError, TypeError, LookupError):  # its code looks at values
            pass
    return count(still, next(network.parameters()).device)


class slow_attention:  # noqa: N801  # a context manager
    """Without torch's fused encoder, whose multiply-adds no counter sees."""

    def __enter__(self) -> None:
        self.before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *error: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self.before)


def check_count(graph: ChannelGraph, counted: float, alive: Alive, what: str) -> None:
    """Compare the package's count of a network (``what``) with the channels ``alive`` with torch's, ``counted``.

    Raises:
        UnsupportedNetwork: they differ, so that no figure would be true.
    """
    own = graph.products(alive)
    if abs(own - counted) > COUNT_TOLERANCE * max(own, counted):
        raise UnsupportedNetwork(
            f"the {what}'s multiply-adds cannot be told: {own:.6g} by the layers that are known, {counted:.6g} by "
            "torch's count of what runs; something multiplies outside of them, or a layer changes with the picture"
        )


def add_gates_(graph: ChannelGraph, network: nn.Module, normed: Iterable[str]) -> None:
    """Give a scale to every layer that a group needs and no norm rules, in place."""
    layers, ruled = slim_layers(network), set(normed)
    for group in graph.groups.values():
        for slot in group.slots:
            if slot.role == "out" and slot.module not in ruled and layers[slot.module].gate is None:
                layers[slot.module].add_gate()


@torch.no_grad()
def faults(graph: ChannelGraph, network: nn.Module, normed: Iterable[str], image_px: int) -> dict[str, str]:
    """Groups that cannot lose channels as the graph says, with what happens; empty where all can.

    Raises:
        UnsupportedNetwork: the network cannot even be copied and run as it is.
    """
    picture = _picture(network, image_px)
    wrong: dict[str, str] = {}
    if fault(graph, network, normed, picture, graph.groups) is None:
        return wrong
    whole = fault(graph, network, normed, picture, ())
    if whole is not None and "does not run" not in whole:
        raise UnsupportedNetwork(
            "the generator gives another picture each time (random functions outside of nn.Dropout); make it "
            "deterministic in evaluation mode"
        )
    if whole is not None:
        raise UnsupportedNetwork(
            f"the generator cannot be tried out in double precision: {whole.partition(': its code')[0]}; tensors and "
            "modules must be attributes of its modules, not kept in lists or closures"
        )
    sound: list[str] = []
    for name in graph.groups:
        found = fault(graph, network, normed, picture, [*sound, name])
        if found is None:
            sound.append(name)
        else:
            wrong[name] = found
    return wrong


@torch.no_grad()
def fault(
    graph: ChannelGraph, network: nn.Module, normed: Iterable[str], picture: Tensor, groups: Iterable[str]
) -> str | None:
    """What goes wrong when these groups lose half of their channels; None where masked and cut network are one."""
    masked = _shaken(network)
    add_gates_(graph, masked, normed)
    alive, chance = graph.all_alive(), np.random.default_rng(0)
    for name in groups:
        size = graph.groups[name].size
        alive[name] = chance.permutation(size) < max(1, size // 2)
    try:
        mask_(graph, masked, alive)
        student = extract(graph, masked, alive)
        check_parity(graph, masked, student, alive, picture)
    except UnsupportedNetwork as error:
        return " ".join(str(error).split())
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        return f"its channels cannot be cut ({str(error).strip().splitlines()[0]})"
    return None


def _shaken(network: nn.Module) -> nn.Module:
    """A copy with other weights: a scale of zero, as before training, would hide what it scales."""
    shaken = copy.deepcopy(network).requires_grad_(False).eval()
    chance = torch.Generator().manual_seed(0)
    for parameter in shaken.parameters():
        noise = torch.randn(parameter.shape, generator=chance).to(parameter)
        parameter.data += 0.1 * (parameter.abs().mean() + 0.1) * noise
    return shaken


def _picture(network: nn.Module, image_px: int) -> Tensor:
    """A random picture, small where the network takes small ones."""
    noise = torch.rand(1, 3, image_px, image_px, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return small_pictures(network, noise.to(next(network.parameters()).device))


@torch.no_grad()
def small_pictures(network: nn.Module, pictures: Tensor) -> Tensor:
    """Corners of pictures, or the pictures themselves where a network does not take ones so small."""
    crops = pictures[:, :, :CROP_PX, :CROP_PX]
    try:
        return crops if network(crops[:1]).shape[-1] % crops.shape[-1] == 0 else pictures
    except Exception:  # of a fixed size, or shrunk to nothing
        return pictures

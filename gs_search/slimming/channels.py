"""Groups of coupled channels: what can be pruned together, and what it costs.

The dependency graph is traced by torch-pruning (Fang et al., CVPR 2023). A *group* is a set of channels that
live or die together in every layer that writes or reads them: the residual stream is one, the inner width of a
residual block is another. ``ChannelGraph`` also knows each layer's multiply-adds as a function of the channels
that are alive, counted as fvcore counts them, so that a sparsity target needs no forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

__all__ = ["Alive", "ChannelGraph", "ChannelGroup", "Frozen", "Layer", "OperationCost", "Slot", "tensor_of"]

FVCORE_PER_VALUE = {nn.InstanceNorm2d: 5.0, nn.BatchNorm2d: 2.0, nn.GroupNorm: 5.0}
"""What fvcore counts for one value that passes an affine norm in evaluation."""

FVCORE_PER_PIXEL = {"UpsampleNearest2DBackward0": 1.0, "UpsampleBilinear2DBackward0": 4.0}
"""What fvcore counts for one value that an enlargement puts out, by the name of autograd's node."""

Alive = dict[str, np.ndarray]
"""Group name to a mask of its channels, True where alive."""


@dataclass(frozen=True)
class Slot:
    """One place where a group's channels appear.

    Attributes:
        module: name of the layer, norm or PReLU.
        role: ``out`` or ``in`` of a convolution or linear layer, ``norm``, ``slope`` of a PReLU, or ``resize`` of an
            enlargement (then ``module`` is a name that the trace gives it). Of a tensor that no known layer owns
            ``module`` is the name: ``axis 0``, ``axis 1`` and so on, and also ``scale`` where it scales the channels.
        positions: channels of the module, each belonging to the group's channel of ``channels``.
        channels: same length as ``positions``.
        shift: of a ``scale``: the name of the tensor that is added after it, or None.
    """

    module: str
    role: str
    positions: np.ndarray
    channels: np.ndarray
    shift: str | None = None

    @property
    def axis(self) -> int | None:
        """The axis of a tensor that no known layer owns; None for other roles."""
        return int(self.role.removeprefix("axis ")) if self.role.startswith("axis ") else None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live or die together.

    Attributes:
        name: name of the first layer that writes them.
        size: how many channels.
        slots: every place that writes, scales or reads them.
        layers: the layer group (``stem`` .. ``head``) of the first convolution that writes them.
        inner: whether a single convolution writes them: the paper's choice of what may be pruned.
        block: name of the residual block that may vanish if all of them die, or None.
    """

    name: str
    size: int
    slots: tuple[Slot, ...]
    layers: str
    inner: bool
    block: str | None

    def scales(self, network: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter | None, Slot]]:
        """The group's prunable scales in ``network``: (scale, shift or None, where), norms and gates alike."""
        found: list[tuple[nn.Parameter, nn.Parameter | None, Slot]] = []
        for slot in self.slots:
            if slot.role == "scale":
                shift = None if slot.shift is None else tensor_of(network, slot.shift)
                found.append((cast(nn.Parameter, tensor_of(network, slot.module)), cast(Any, shift), slot))
            if slot.role not in ("norm", "out"):
                continue
            module: Any = network.get_submodule(slot.module)
            if slot.role == "norm":
                found.append((module.weight, module.bias, slot))
            elif module.gate is not None:
                found.append((module.gate, None, slot))
        return found


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as the cost model and the per-group settings see it.

    Attributes:
        group: ``stem``, ``down``, ``body``, ``up`` or ``head``.
        macs_per_pair: multiply-adds for one (input channel, output channel) pair.
        depthwise: each output channel reads the input channel of the same number alone.
    """

    name: str
    group: str
    inputs: int
    outputs: int
    macs_per_pair: float
    depthwise: bool


@dataclass(frozen=True)
class Frozen:
    """What is not slimmed: tensors and operations that no slimmable layer owns, layers that keep their channels.

    Attributes:
        name: qualified name of the module, or of the tensor.
        reason: why, in words.
        macs_share: of the generator's multiply-adds, those that run there in floats, or that no cut lessens.
        bytes: of its tensors, which are stored as floats.
    """

    name: str
    reason: str
    macs_share: float
    bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.macs_share:.1%} of the multiply-adds, {self.bytes} bytes of floats): {self.reason}"


@dataclass(frozen=True)
class OperationCost:
    """Multiply-adds of one operation: ``each`` times the channels alive on each of its axes.

    Attributes:
        product: whether it is a convolution or matrix product; else a norm or an enlargement, as fvcore counts them.
        factors: for each axis, how many of its places stay, and those that live or die: (group, its channels).
    """

    product: bool
    each: float
    factors: tuple[tuple[int, tuple[tuple[str, np.ndarray], ...]], ...]

    def macs(self, alive: Alive) -> float:
        total = self.each
        for fixed, parts in self.factors:
            total *= fixed + sum(int(alive[group][channels].sum()) for group, channels in parts)
        return total


def tensor_of(network: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its qualified name."""
    place, _, own = name.rpartition(".")
    return cast(Tensor, getattr(network.get_submodule(place), own))


@dataclass(frozen=True)
class ChannelGraph:
    """All prunable groups and all layers of a generator; costs are for pictures of the size it was traced at."""

    groups: dict[str, ChannelGroup]
    layers: dict[str, Layer]
    norm_macs: dict[str, float]
    """Norm to fvcore's count for one channel."""
    norm_widths: dict[str, int]
    resizes: dict[str, tuple[float, int]]
    """Enlargement to fvcore's count for one channel, and its channels."""
    feeds: dict[str, str]
    """Layer to the one layer that alone reads what it hands on, through nothing but pads and ReLUs."""
    centred: frozenset[str]
    """Layers whose output instance norms alone read, which take off each picture's constants."""
    _members: dict[tuple[str, str], list[tuple[str, Slot]]] = field(repr=False)
    costs: tuple[OperationCost, ...] | None = None
    """Every operation's cost, where the channels were followed axis by axis; else the layers say what they cost."""
    tensors: tuple[str, ...] = ()
    """Tensors that no known layer owns and some of whose channels may go."""
    frozen: tuple[Frozen, ...] = ()
    """What is not slimmed."""

    def all_alive(self) -> Alive:
        return {name: np.ones(group.size, dtype=bool) for name, group in self.groups.items()}

    def kept(self, alive: Alive, module: str, role: str, width: int) -> np.ndarray:
        """Mask over the module's ``width`` channels in that role (True where no group reaches)."""
        mask = np.ones(width, dtype=bool)
        for group, slot in self._members.get((module, role), []):
            mask[slot.positions] = alive[group][slot.channels]
        return mask

    def macs(self, alive: Alive) -> float:
        """fvcore's count of the extracted network (multiply-adds of convolutions plus its norm count)."""
        if self.costs is not None:
            return sum(cost.macs(alive) for cost in self.costs)
        total = self.products(alive)
        vanished = tuple(f"{g.block}." for n, g in self.groups.items() if g.block and not alive[n].any())
        for name, each in self.norm_macs.items():
            if vanished and name.startswith(vanished):
                continue
            total += each * self._count(alive, name, "norm", self.norm_widths[name])
        for name, (each, width) in self.resizes.items():
            total += each * self._count(alive, name, "resize", width)
        return total

    def products(self, alive: Alive) -> float:
        """Multiply-adds of convolutions, linear layers and matrix products alone, as torch counts them."""
        if self.costs is not None:
            return sum(cost.macs(alive) for cost in self.costs if cost.product)
        total = 0.0
        for name, layer in self.layers.items():
            outputs = self._count(alive, name, "out", layer.outputs)
            inputs = 1 if layer.depthwise else self._count(alive, name, "in", layer.inputs)
            total += layer.macs_per_pair * inputs * outputs
        return total

    def _count(self, alive: Alive, module: str, role: str, width: int) -> int:
        for group, slot in self._members.get((module, role), []):
            width += int(alive[group][slot.channels].sum()) - len(slot.channels)
        return width

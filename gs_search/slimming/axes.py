"""Which axes of which tensors hold the same channels, read off one forward pass, operation by operation.

Every axis of a parameter begins with *atoms*, one for each place. Operations hand them on and make some of them one:
a sum of two streams those of its two operands, a convolution those of its input and of the second axis of its weight.
What an operation does with channels is stated for each kind (``axis_rules``); what is not stated *freezes* the
channels that it reads, with its name and place as the reason. So nothing is cut of which it is not known what it is.

Each operation's multiply-adds are noted as a product over its axes, so that the cost of any cut is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from gs_search.slimming.layers import SlimLayer

__all__ = ["ANY", "Atoms", "Axes", "Axis", "AxisTrace", "Cost", "PICTURE", "Leaf", "Rule"]

PICTURE = "the picture's own channels"
"""Why nobody expects these to go."""

ANY = "any"
"""An axis that fits every other one: of length 1, expanded, or of a constant that the code makes."""

Axis = np.ndarray | str | None
"""Atoms of an axis; ``ANY``; any other word: why its channels cannot be known; None: places of the picture, or the
batch, that hold no channels."""

Axes = list[Axis]

Rule = Callable[["AxisTrace", str, dict[str, Any], list[Tensor]], None]
"""What an operation does: of its name, arguments by name and results, it sets the results' axes."""


class Atoms:
    """Sets that are merged, each of which may be frozen for a reason."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: dict[int, str] = {}

    def new(self, count: int) -> np.ndarray:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def roots(self, atoms: np.ndarray) -> np.ndarray:
        return np.array([self.root(int(atom)) for atom in atoms], dtype=np.int64)

    def unite(self, one: np.ndarray, other: np.ndarray) -> None:
        """Make the atoms of two equally long axes one, place by place."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if a == b:
                continue
            first, second = sorted((self.root(a), self.root(b)))
            if first != second:
                self._parent[second] = first
                reason = self._frozen.pop(second, None)
                if reason is not None:
                    self._frozen.setdefault(first, reason)

    def freeze(self, atoms: np.ndarray, reason: str) -> None:
        for atom in atoms.tolist():
            self._frozen.setdefault(self.root(atom), reason)

    def reason(self, atom: int) -> str | None:
        """Why an atom must stay; None where it need not."""
        return self._frozen.get(self.root(atom))


@dataclass(frozen=True)
class Leaf:
    """A parameter or buffer that the forward pass reads.

    Attributes:
        axes: the atoms of each of its axes.
    """

    name: str
    tensor: Tensor
    axes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Cost:
    """What one operation costs: ``each`` times the length of every axis in ``factors``.

    Attributes:
        kind: ``product`` (multiply-adds of convolutions and matrix products), ``norm`` or ``resize``.
        module: where it runs.
        within: whether a slimmable layer runs it.
        factors: axes of channels; of lengths that no cut changes ``each`` has the product.
    """

    kind: str
    module: str
    operation: str
    within: bool
    each: float
    factors: tuple[np.ndarray, ...]


ELEMENTWISE = {
    *("clone", "_to_copy", "detach", "alias", "contiguous", "lift_fresh", "lift_fresh_copy", "native_dropout"),
    *("constant", "_prelu_kernel", "where", "masked_fill", "gelu", "silu", "mish", "hardtanh", "leaky_relu", "elu"),
    *("copy", "lerp", "addcmul", "addcdiv", "clamp", "threshold", "relu", "rrelu_with_noise", "celu"),
}
"""Operations that keep shapes, beside those that torch itself calls pointwise."""

MAKES = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones"}
MAKES |= {"new_full", "new_empty", "empty_strided", "new_empty_strided", "bernoulli"}
"""Operations that take of a tensor its shape alone."""

PRODUCTS = {"convolution", "mm", "bmm", "addmm", "baddbmm"}
"""Operations that are counted even where they work on constants alone."""

VIEWS = {
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "clone",
    "_to_copy",
    "detach",
    "alias",
    "expand",
    "repeat",
}
VIEWS |= {"unsqueeze", "squeeze", "contiguous", "unflatten", "flatten"}
"""Operations whose result is still the same parameter, or the same layer's output."""


class AxisTrace(TorchDispatchMode):
    """While entered, follows the channels of a network through all that it runs.

    Args:
        network: slimmable, without quantizers and gates, on whose modules hooks are put for as long.
        picture: what it is run on, 1 x 3 x H x W.
        rule_of: operation's name to what it does with channels, or None; ``axis_rules.rule_of``.
    """

    def __init__(self, network: nn.Module, picture: Tensor, rule_of: Callable[[str], Rule | None]) -> None:
        super().__init__()
        self._rule_of = rule_of
        self.atoms = Atoms()
        self.leaves: dict[str, Leaf] = {}
        self.costs: list[Cost] = []
        self.read: list[np.ndarray] = []
        """Axes over which convolutions and matrix products sum."""
        self.writer: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """What a layer puts out, and other views of it, to the layer's name."""
        self.read_by: dict[str, set[str]] = {}
        """Layer to the kinds of operations that read its output: ``norm`` and ``other``."""
        self.ruled: set[str] = set()
        """Layers whose output a norm with a scale reads."""
        self.centred: set[str] = set()
        """Layers whose output a norm reads that takes off each picture's own means."""
        self.normalised: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """What a norm without a scale puts out, to the layer before it."""
        self.shifts: dict[str, str | None] = {}
        """Scales of one's own, one for each channel, to the shifts that go with them."""
        self.outside: dict[str, str] = {}
        """Layers whose weights are also read by other modules, to one of those."""
        self._axes: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._origin: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._scaled: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._names = {module: name for name, module in network.named_modules()}
        self._stack: list[nn.Module] = [network]
        self._layer_of = {id(m.weight): m for m in network.modules() if isinstance(m, SlimLayer)}
        self._leaf_names = {id(t): n for n, t in (*network.named_buffers(), *network.named_parameters())}
        self._network = network
        self._axes[picture] = [None, PICTURE, None, None]

    def run(self, picture: Tensor) -> Any:
        """The network's output on ``picture``; its channels are frozen."""
        handles = []
        for module in self._network.modules():
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with torch.no_grad(), self:
                output = self._network(picture)
        finally:
            for handle in handles:
                handle.remove()
        if isinstance(output, Tensor):
            self._read(output, "other")
            for axis in self._axes.get(output, []):
                self.freeze(axis, PICTURE)
        return output

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._stack.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop()
        if isinstance(module, SlimLayer) and isinstance(output, Tensor):
            self.writer[output] = self._names[module]

    @property
    def module(self) -> nn.Module:
        """The module whose forward runs."""
        return self._stack[-1]

    @property
    def place(self) -> str:
        """Its name."""
        return self._names.get(self.module, "") or "the generator"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        in_place = name.endswith("_") and not name.startswith("__")
        name = name.removesuffix("_") if in_place else name
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        tensors = [t for value in given.values() for t in _each(value)]
        known = [t for t in tensors if self.of(t) is not None]
        outs = [t for t in _each(out)]
        if name in VIEWS:
            self._hand_on(given, outs)
        else:
            kind = "norm" if "batch_norm" in name or name == "native_group_norm" else "other"
            for tensor in known:
                self._read(tensor, kind)
        if (not known and name not in PRODUCTS) or name in MAKES:
            return out
        try:
            self._follow(name, func, given, known, outs, in_place)
        except (LookupError, ValueError, TypeError, AttributeError):  # arguments of a kind that no rule foresees
            self._not_known(name, known, outs)
        return out

    def _follow(
        self, name: str, func: Any, given: dict[str, Any], known: list[Tensor], outs: list[Tensor], in_place: bool
    ) -> None:
        rule = self._rule_of(name)
        if rule is not None:
            rule(self, name, given, outs)
        elif torch.Tag.pointwise in func.tags or name in ELEMENTWISE:
            self._pointwise(name, known, outs, in_place)
        else:
            self._not_known(name, known, outs)

    def of(self, tensor: Any) -> Axes | None:
        """The axes of a tensor, or None for a constant that the network's code makes."""
        if not isinstance(tensor, Tensor):
            return None
        found: Axes | None = self._axes.get(tensor)
        if found is None and id(tensor) in self._leaf_names:
            name = self._leaf_names[id(tensor)]
            atoms = tuple(self.atoms.new(length) for length in tensor.shape)
            self.leaves[name] = Leaf(name, tensor, atoms)
            found = list(atoms)
            self._axes[tensor] = found
            self._origin[tensor] = name
        layer = self._layer_of.get(id(tensor))
        if layer is not None and self.module is not layer:
            self.outside.setdefault(self._names[layer], self.place)
        return found

    def axes(self, tensor: Tensor) -> Axes:
        """The axes of a tensor; those of a constant fit all."""
        return self.of(tensor) or [ANY] * tensor.dim()

    def set(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Say what the axes of an operation's result are."""
        self._axes[tensor] = list(axes)

    def freeze(self, axis: Axis, reason: str) -> None:
        """Keep an axis's channels, if it has any."""
        if isinstance(axis, np.ndarray):
            self.atoms.freeze(axis, reason)

    def merge(self, *axes: Axis) -> Axis:
        """One axis that stands for several of the same length."""
        arrays = [axis for axis in axes if isinstance(axis, np.ndarray)]
        words = [axis for axis in axes if isinstance(axis, str) and axis != ANY]
        plain = any(axis is None for axis in axes)
        if not arrays:
            return words[0] if words else None if plain else ANY
        for array in arrays[1:]:
            self.atoms.unite(arrays[0], array)
        if words or plain:
            reason = words[0] if words else f"read as places, not as channels, in {self.place}"
            self.atoms.freeze(arrays[0], reason)
            return reason
        return arrays[0]

    def _not_known(self, name: str, known: list[Tensor], outs: list[Tensor]) -> None:
        reason = f"{name} in {self.place} is not followed"
        for tensor in known:
            for axis in self.of(tensor) or []:
                self.freeze(axis, reason)
        for out in outs:
            self.set(out, [reason] * out.dim())

    def _read(self, tensor: Tensor, kind: str) -> None:
        name = self.writer.get(tensor)
        if name is not None:
            self.read_by.setdefault(name, set()).add(kind)

    def _hand_on(self, given: dict[str, Any], outs: list[Tensor]) -> None:
        """Remember of which leaf or layer a view is one."""
        source = given.get("self")
        if not isinstance(source, Tensor) or len(outs) != 1:
            return
        self.of(source)
        for memory in (self.writer, self.normalised, self._origin):
            name = memory.get(source)
            if name is not None and (outs[0].numel() == source.numel() or memory is self._origin):
                memory[outs[0]] = name

    def _pointwise(self, name: str, known: list[Tensor], outs: list[Tensor], in_place: bool) -> None:
        shape = outs[0].shape
        axes: Axes = []
        for index in range(len(shape)):
            back = len(shape) - index
            met = []
            for tensor in known:
                if tensor.dim() >= back and (tensor.shape[-back] == shape[index]):
                    of = self.of(tensor)
                    assert of is not None
                    if shape[index] > 1 or isinstance(of[-back], np.ndarray):
                        met.append(of[-back])
            axes.append(self.merge(*met) if met else ANY)
        if in_place and self._axes.get(outs[0]) is None and outs[0].untyped_storage().nbytes() > outs[0].nbytes:
            for axis in axes:
                self.freeze(axis, f"written into a part of another tensor in {self.place}")
        for out in outs:
            if out.shape == shape:
                self.set(out, axes)
        self._scales(name, known, outs[0])

    def _scales(self, name: str, known: list[Tensor], out: Tensor) -> None:
        """Note ``x * scale`` and what is added to it, where both are parameters with one value for each channel."""
        if name not in ("mul", "add") or len(known) != 2:
            return
        for stream, other in (known, known[::-1]):
            leaf = self.own_scale(other)
            if leaf is None or self._origin.get(stream) is not None or other.numel() == 1:
                continue
            if name == "mul":
                self.shifts.setdefault(leaf, None)
                self._scaled[out] = leaf
                if stream in self.normalised:
                    self.ruled.add(self.normalised[stream])
            elif stream in self._scaled and self.shifts[self._scaled[stream]] is None:
                self.shifts[self._scaled[stream]] = leaf

    def own_scale(self, tensor: Any) -> str | None:
        """The parameter with one axis of which a tensor is a view, or None."""
        name = self._origin.get(tensor) if isinstance(tensor, Tensor) else None
        if name is None or not isinstance(self.leaves[name].tensor, nn.Parameter):
            return None
        return str(name) if self.leaves[name].tensor.dim() == 1 else None

    def sums_over(self, axis: Axis) -> None:
        """Note that something reads these channels."""
        if isinstance(axis, np.ndarray):
            self.read.append(axis)

    def cost(self, kind: str, operation: str, each: float, *axes: tuple[Axis, int]) -> None:
        """Note an operation's cost; ``axes`` with their lengths."""
        factors = tuple(axis for axis, _ in axes if isinstance(axis, np.ndarray))
        fixed = math.prod(length for axis, length in axes if not isinstance(axis, np.ndarray))
        within = isinstance(self.module, SlimLayer)
        self.costs.append(Cost(kind, self.place, operation, within, each * fixed, factors))


def _each(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, (list, tuple)) else []

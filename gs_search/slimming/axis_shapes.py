"""What torch's operations do with channels that only lay values out anew: views, slices, joins, shuffles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gs_search.slimming.axes import ANY, Axes, Axis, AxisTrace, Rule

__all__ = ["SHAPES", "dims_of"]


def dims_of(given: dict[str, Any], rank: int) -> list[int]:
    """The axes that an operation names: all where it names none."""
    dims = given.get("dim")
    dims = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return sorted(dim % max(rank, 1) for dim in dims)


def _pad(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    read, pads = list(trace.axes(given["self"])), given["pad"]
    reason = f"channels are padded in {trace.place}"
    for place in range(len(pads) // 2):
        axis = read[-1 - place]
        if (pads[2 * place] or pads[2 * place + 1]) and isinstance(axis, np.ndarray):
            trace.freeze(axis, reason)
            read[-1 - place] = reason
    trace.set(outs[0], read)


def _view(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, out = given["self"], outs[0]
    read, old, new = trace.axes(x), list(x.shape), list(out.shape)
    axes: Axes = []
    for left, right in _blocks(old, new):
        axes += _regrouped(trace, [old[i] for i in left], [read[i] for i in left], [new[i] for i in right])
    trace.set(out, axes)


def _blocks(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """Which old axes become which new ones: the finest runs of equal products."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old):
            left, a, i = [i], old[i], i + 1
        if j < len(new):
            right, b, j = [j], new[j], j + 1
        while a != b:
            if a < b and i < len(old):
                a, left, i = a * old[i], [*left, i], i + 1
            elif j < len(new):
                b, right, j = b * new[j], [*right, j], j + 1
            else:
                raise ValueError("shapes that do not fit")
        found.append((left, right))
    return found


def _regrouped(trace: AxisTrace, old: list[int], axes: Axes, new: list[int]) -> Axes:
    """Axes of lengths ``old`` as axes of lengths ``new``."""
    if len(old) == len(new) == 1:
        return list(axes)
    held = [i for i, axis in enumerate(axes) if isinstance(axis, np.ndarray) and old[i] > 1]
    words = [axis for axis in axes if isinstance(axis, str) and axis != ANY]
    if not held or words or len(held) > 1:
        reason = words[0] if words else f"channels are folded into one another in {trace.place}"
        for i in held:
            trace.freeze(axes[i], reason)
        plain: Axis = reason if words or held else None if None in axes else ANY
        return [ANY if length == 1 else plain for length in new]
    atoms = axes[held[0]]
    assert isinstance(atoms, np.ndarray)
    shape = [1] * len(old)
    shape[held[0]] = len(atoms)
    grid = np.broadcast_to(atoms.reshape(shape), old).reshape(new)
    # Where channels are laid out over several axes, the longest has them, and all of its neighbours share theirs.
    varying = [d for d in range(len(new)) if new[d] > 1 and (grid != grid.take([0], axis=d)).any()]
    chosen = max(varying, key=lambda d: (new[d], d)) if varying else new.index(max(new))
    rows = np.moveaxis(grid, chosen, 0).reshape(new[chosen], -1)
    for column in range(1, rows.shape[1]):
        trace.atoms.unite(rows[:, 0], rows[:, column])
    return [rows[:, 0].copy() if d == chosen else ANY if length == 1 else None for d, length in enumerate(new)]


def _permute(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given["self"]
    read, order = trace.axes(x), list(range(x.dim()))
    if name == "permute":
        order = [dim % x.dim() for dim in given["dims"]]
    elif x.dim() > 1:
        a, b = (given["dim0"] % x.dim(), given["dim1"] % x.dim()) if name == "transpose" else (0, 1)
        order[a], order[b] = order[b], order[a]
    trace.set(outs[0], [read[dim] for dim in order])


def _expand(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, out = given["self"], outs[0]
    read: Axes = [*[ANY] * (out.dim() - x.dim()), *trace.axes(x)]
    lengths = [1] * (out.dim() - x.dim()) + list(x.shape)
    axes: Axes = []
    for axis, before, after in zip(read, lengths, out.shape, strict=True):
        if before == after:
            axes.append(axis)
        elif before == 1:
            axes.append(ANY)
        else:
            axes.append(np.tile(axis, after // before) if isinstance(axis, np.ndarray) else axis)
    trace.set(out, axes)


def _squeeze(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, out = given["self"], outs[0]
    axes = list(trace.axes(x))
    if name == "unsqueeze":
        axes.insert(given["dim"] % (x.dim() + 1), ANY)
    else:
        dims = [dim for dim in dims_of(given, x.dim()) if x.shape[dim] == 1]
        axes = [axis for dim, axis in enumerate(axes) if dim not in dims]
    if len(axes) != out.dim():
        raise ValueError(name)
    trace.set(out, axes)


def _slice(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given["self"]
    read, dim = trace.axes(x), given.get("dim", 0) % x.dim()
    places = torch.arange(x.shape[dim])
    at = 0
    for out in outs:
        axes = list(read)
        axis = axes[dim]
        if name in ("select", "unbind"):
            del axes[dim]
            trace.freeze(axis, f"channels are taken out one by one in {trace.place}")
        elif isinstance(axis, np.ndarray):
            if name == "slice":
                chosen = places[slice(given.get("start"), given.get("end"), given.get("step", 1))]
            else:
                chosen = places[at : at + out.shape[dim]]
                at += out.shape[dim]
            axes[dim] = axis[chosen.numpy()]
        trace.set(out, axes)


def _cat(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    tensors: list[Tensor] = [t for t in given["tensors"] if t.numel()]
    read = [trace.axes(t) for t in tensors]
    dim = given.get("dim", 0) % outs[0].dim()
    if name == "stack":
        merged = [trace.merge(*axes) for axes in zip(*read, strict=True)]
        trace.set(outs[0], [*merged[:dim], None, *merged[dim:]])
        return
    axes: Axes = []
    for d in range(outs[0].dim()):
        met = [each[d] for each in read]
        if d != dim or len(met) == 1:
            axes.append(trace.merge(*met))
        elif not any(isinstance(axis, np.ndarray) for axis in met):
            axes.append(trace.merge(*met))
        else:
            axes.append(np.concatenate([_atoms(trace, axis, t.shape[d]) for axis, t in zip(met, tensors, strict=True)]))
    trace.set(outs[0], axes)


def _atoms(trace: AxisTrace, axis: Axis, length: int) -> np.ndarray:
    """An axis's atoms; of what holds no known channels new ones, that stay."""
    if isinstance(axis, np.ndarray):
        return axis
    atoms = trace.atoms.new(length)
    known = isinstance(axis, str) and axis != ANY
    trace.atoms.freeze(atoms, str(axis) if known else f"joined to channels in {trace.place}")
    return atoms


def _glu(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given["self"]
    read, dim = list(trace.axes(x)), given.get("dim", -1) % x.dim()
    axis = read[dim]
    if isinstance(axis, np.ndarray):
        half = len(axis) // 2
        read[dim] = trace.merge(axis[:half], axis[half:])
    trace.set(outs[0], read)


def _shuffle(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    """PixelShuffle and its inverse: the channels that make one place of the picture live or die together."""
    read = trace.axes(given["self"])
    factor: int = given["upscale_factor" if name == "pixel_shuffle" else "downscale_factor"]
    axis = read[-3]
    if isinstance(axis, np.ndarray):
        if name == "pixel_shuffle":
            rows = axis.reshape(-1, factor**2)
            for column in range(1, rows.shape[1]):
                trace.atoms.unite(rows[:, 0], rows[:, column])
            axis = rows[:, 0].copy()
        else:
            axis = np.repeat(axis, factor**2)
    trace.set(outs[0], [*read[:-3], axis, None, None])


def _channel_shuffle(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    """Channels in the same place of all groups live or die together, so that groups stay of one size."""
    read, groups = list(trace.axes(given["self"])), given["groups"]
    axis = read[1]
    if isinstance(axis, np.ndarray):
        rows = axis.reshape(groups, -1)
        for row in rows[1:]:
            trace.atoms.unite(rows[0], row)
        read[1] = rows.T.flatten()
    trace.set(outs[0], read)


def _moved(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    read = trace.axes(given["self"])
    for dim in given.get("dims") or range(len(read)):
        trace.freeze(read[dim], f"channels change places in {trace.place}")
    trace.set(outs[0], read)


SHAPES: dict[str, Rule] = {
    "constant_pad_nd": _pad,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten"), _view),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    **dict.fromkeys(("expand", "repeat"), _expand),
    **dict.fromkeys(("squeeze", "unsqueeze"), _squeeze),
    **dict.fromkeys(("slice", "select", "split", "split_with_sizes", "chunk", "unbind"), _slice),
    **dict.fromkeys(("cat", "stack"), _cat),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffle),
    **dict.fromkeys(("roll", "flip"), _moved),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    "glu": _glu,
}

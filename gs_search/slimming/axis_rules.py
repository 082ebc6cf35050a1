"""What each kind of torch's operations does with channels, and what it costs."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gs_search.slimming.axes import ANY, AxisTrace, Rule
from gs_search.slimming.axis_shapes import SHAPES, dims_of
from gs_search.slimming.layers import SlimGroupNorm

__all__ = ["rule_of"]

SUMS = {"sum"}
REDUCTIONS = {"mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "prod", "linalg_vector_norm", "norm"}
REDUCTIONS |= {"logsumexp", "argmax", "any", "all", "max", "min", "median"}
ALONG = {"_softmax", "_log_softmax", "softmax", "cumsum", "cumprod", "sort", "logcumsumexp"}
SPATIAL = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}
SPATIAL |= {"reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"}
SPATIAL |= {"_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d"}
RESIZES = {"upsample_nearest2d": 1.0, "upsample_bilinear2d": 4.0}
"""What fvcore counts for one value that an enlargement puts out."""


def rule_of(name: str) -> Rule | None:
    """What the operation ``name`` does with channels; None where it keeps every value's place, or is unknown."""
    if "batch_norm" in name:
        return _batch_norm
    for kinds, rule in ((SPATIAL, _spatial), (REDUCTIONS | SUMS, _reduction), (ALONG, _along)):
        if name in kinds:
            return rule
    return RULES.get(name)


def _convolution(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    read, own, out = trace.axes(x), trace.axes(weight), outs[0]
    shift = trace.axes(bias)[0] if bias is not None else ANY
    kernel, transposed = math.prod(weight.shape[2:]), given["transposed"]
    area = x.shape[0] * math.prod((x if transposed else out).shape[2:])
    for axis in read[2:]:
        trace.freeze(axis, f"channels are convolved over in {trace.place}")
    if groups == 1:
        first, second = (1, 0) if transposed else (0, 1)
        inner = trace.merge(read[1], own[second])
        written = trace.merge(own[first], shift)
        trace.sums_over(inner)
        trace.cost("product", name, area * kernel, (inner, x.shape[1]), (written, out.shape[1]))
    elif groups == x.shape[1] == out.shape[1]:
        written = trace.merge(read[1], own[0], shift)
        trace.cost("product", name, area * kernel, (written, out.shape[1]))
    else:
        written = f"a grouped convolution, {trace.place}, keeps its channels"
        for axis in (read[1], *own, shift):
            trace.freeze(axis, written)
        trace.cost("product", name, area * weight.numel())
    trace.set(out, [read[0], written, *[None] * (out.dim() - 2)])


def _matmul(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    a, b = (given["self"], given["mat2"]) if name in ("mm", "bmm") else (None, None)
    if name == "addmm":
        a, b = given["mat1"], given["mat2"]
    elif name == "baddbmm":
        a, b = given["batch1"], given["batch2"]
    assert a is not None and b is not None
    left, right = trace.axes(a), trace.axes(b)
    inner = trace.merge(left[-1], right[-2])
    trace.sums_over(inner)
    batch = [trace.merge(left[0], right[0])] if a.dim() == 3 else []
    rows, columns = left[-2], right[-1]
    if name in ("addmm", "baddbmm"):
        shift = given["self"]
        columns = trace.merge(columns, trace.axes(shift)[-1] if shift.shape[-1] == b.shape[-1] else ANY)
    lengths = [(rows, a.shape[-2]), (inner, a.shape[-1]), (columns, b.shape[-1])]
    trace.cost("product", name, 1.0, *lengths, *((axis, a.shape[0]) for axis in batch))
    trace.set(outs[0], [*batch, rows, columns])


def _attention(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    query, key, value = (given[n] for n in ("query", "key", "value"))
    q, k, v = (trace.axes(t) for t in (query, key, value))
    inner = trace.merge(q[-1], k[-1])
    trace.sums_over(inner)
    trace.freeze(inner, f"attention in {trace.place} divides by the number of channels")
    heads = [trace.merge(*three) for three in zip(q[:-2], k[:-2], v[:-2], strict=True)]
    for axis in (*heads, q[-2], k[-2], v[-2]):
        trace.freeze(axis, f"attention in {trace.place} runs over channels")
    pairs = math.prod(query.shape[:-2]) * query.shape[-2] * key.shape[-2]
    trace.cost("product", name, pairs * query.shape[-1])
    trace.cost("product", name, pairs, (v[-1], value.shape[-1]))
    trace.set(outs[0], [None] * (query.dim() - 1) + [v[-1]])


def _batch_norm(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, out = given["input"], outs[0]
    read = trace.axes(x)
    parts = [given.get(n) for n in ("weight", "bias", "running_mean", "running_var")]
    channels = trace.merge(read[1], *(trace.axes(part)[0] for part in parts if isinstance(part, Tensor)))
    training = bool(given.get("training", given.get("train", False)))
    for axis in (read[0], *read[2:]):
        if training:
            trace.freeze(axis, f"a norm in {trace.place} runs over channels")
    affine = parts[0] is not None
    each = (5.0 if affine else 4.0) if training else (2.0 if affine else 1.0)
    trace.cost("norm", name, each * x.numel() / x.shape[1], (channels, x.shape[1]))
    trace.set(out, [read[0], channels, *read[2:]])
    layer = trace.writer.get(x)
    if layer is not None and training:
        trace.centred.add(layer)
    _ruled(trace, layer, parts[0], out)
    scale = trace.own_scale(parts[0])
    if scale is not None:
        trace.shifts[scale] = trace.own_scale(parts[1])


def _ruled(trace: AxisTrace, layer: str | None, scale: Any, out: Tensor) -> None:
    if layer is not None and scale is None:
        trace.normalised[out] = layer
    elif layer is not None and trace.own_scale(scale) is not None:
        trace.ruled.add(layer)


def _group_norm(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x, out = given["input"], outs[0]
    read = trace.axes(x)
    parts = [given.get(n) for n in ("weight", "bias")]
    channels = trace.merge(read[1], *(trace.axes(part)[0] for part in parts if isinstance(part, Tensor)))
    module = trace.module
    if isinstance(module, SlimGroupNorm):  # takes care of dead channels itself
        trace.merge(channels, trace.axes(module.weight)[0])
    elif given["group"] != x.shape[1]:
        trace.freeze(channels, f"a group norm in {trace.place} mixes channels")
    each = 5.0 if parts[0] is not None else 4.0
    trace.cost("norm", name, each * x.numel() / x.shape[1], (channels, x.shape[1]))
    trace.set(out, [read[0], channels, *read[2:]])
    _ruled(trace, trace.writer.get(x), parts[0], out)


def _layer_norm(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given["input"]
    read, count = trace.axes(x), len(given["normalized_shape"])
    reason = f"a layer norm in {trace.place} mixes channels"
    for part in (given.get("weight"), given.get("bias")):
        if isinstance(part, Tensor):
            for axis, other in zip(read[-count:], trace.axes(part), strict=True):
                trace.merge(axis, other)
    for axis in read[-count:]:
        trace.freeze(axis, reason)
    trace.cost("norm", name, (5.0 if given.get("weight") is not None else 4.0) * x.numel())
    trace.set(outs[0], read)


def _spatial(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given.get("self", given.get("input"))
    assert isinstance(x, Tensor)
    read = trace.axes(x)
    for axis in read[-2:]:
        trace.freeze(axis, f"{name} in {trace.place} runs over channels")
    for out in outs:
        trace.set(out, [*read[:-2], None, None])
    if name in RESIZES:
        places = RESIZES[name] * outs[0].numel() / x.shape[1]
        trace.cost("resize", name, places, (read[1], x.shape[1]))
    elif name == "_adaptive_avg_pool2d":
        trace.cost("resize", name, x.numel() / x.shape[1], (read[1], x.shape[1]))


def _reduction(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    x = given["self"]
    read, dims = trace.axes(x), dims_of(given, x.dim())
    if name not in SUMS:
        for dim in dims:
            trace.freeze(read[dim], f"{name} in {trace.place} runs over channels")
    kept = [ANY if i in dims else axis for i, axis in enumerate(read) if i not in dims or given.get("keepdim")]
    for out in outs:
        trace.set(out, kept if len(kept) == out.dim() else [None] * out.dim())


def _along(trace: AxisTrace, name: str, given: dict[str, Any], outs: list[Tensor]) -> None:
    read = trace.axes(given["self"])
    trace.freeze(read[given["dim"]], f"{name.strip('_')} in {trace.place} runs over channels")
    for out in outs:
        trace.set(out, read)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), _matmul),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    **SHAPES,
}

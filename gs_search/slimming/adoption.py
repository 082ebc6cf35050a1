"""A generator as people write it, made of torch's own layers as far as that changes nothing.

A layer that somebody wrote anew (a subclass, a weight-standardised convolution, a norm that calls
``F.instance_norm`` with parameters of its own) is tried out alone: where one of torch's layers with some weights
gives the same outputs whatever the parameters and the input are, it takes the place. All else stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gs_search.errors import UnsupportedNetwork, one_line

__all__ = ["adopt_", "convolves_by_its_weight", "in_double", "plain_copy"]

SAME = 1e-9
"""Largest difference, in double precision and relative to the largest output, between a layer and its stand-in."""

SIDE = 12
"""Side of the pictures on which layers are tried out, more where a kernel reaches further."""

FACTORIES = {"float", "half", "bfloat16"}


class _Doubles(TorchFunctionMode):
    """Casts to another floating type, in the midst of a network, become casts to double."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in FACTORIES and args and isinstance(args[0], Tensor):
            return args[0].double()
        if name in ("to", "type") or "dtype" in kwargs:
            args = tuple(torch.float64 if _narrow(value) else value for value in args)
            kwargs = {key: torch.float64 if _narrow(value) else value for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _narrow(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point


@contextmanager
def in_double() -> Iterator[None]:
    """Run a network whose weights are doubles, whatever it casts to and however it makes its constants."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Doubles():
            yield
    finally:
        torch.set_default_dtype(before)


def plain_copy(generator: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy without ``torch.compile``, in float32, whose tensors are parameters or buffers; and what was done.

    Raises:
        UnsupportedNetwork: it cannot be copied, or holds what is no number; the message names it.
    """
    notes: list[str] = []
    try:
        generator = copy.deepcopy(_unwrapped(generator, notes))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UnsupportedNetwork(f"the generator cannot be copied: {one_line(error)}") from None
    for name, module in list(generator.named_modules()):
        if isinstance(module, torch.jit.ScriptModule):
            place = f"module {name}" if name else "the generator"
            raise UnsupportedNetwork(f"{place} is TorchScript, which cannot be taken apart; give its Python module")
        for key, child in list(module.named_children()):
            inner = _unwrapped(child, notes)
            if inner is not child:
                setattr(module, key, inner)
        for key, value in list(vars(module).items()):
            if isinstance(value, Tensor):  # else it stays behind when the network changes its device or type
                delattr(module, key)
                module.register_buffer(key, value.detach())
    halves = [n for n, p in _tensors(generator) if p.is_floating_point() and p.dtype != torch.float32]
    if halves:
        kind = str(dict(_tensors(generator))[halves[0]].dtype).removeprefix("torch.")
        notes.append(f"{len(halves)} tensors ({halves[0]} first) are {kind}: slimmed as float32")
        generator.float()
    for name, tensor in _tensors(generator):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UnsupportedNetwork(f"tensor {name}: {int((~torch.isfinite(tensor)).sum())} values are not numbers")
    return generator, notes


def adopt_(generator: nn.Module) -> list[str]:
    """Put torch's own layers in the place of layers that compute the same; weights that are shared become several.

    Works in place on a ``plain_copy``; returns what was done, one line each.
    """
    notes = []
    for module in list(generator.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                setattr(module, key, _batch_norm(child))
            elif next(child.children(), None) is None and _own(child):
                known = _known(child)
                if known is not None:
                    setattr(module, key, known.train(child.training))
    seen: dict[int, str] = {}
    for place, module in generator.named_modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            name = f"{place}.{key}" if place else key
            first = seen.setdefault(id(parameter), name)
            if first != name:
                module._parameters[key] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                notes.append(f"{name} and {first} are one tensor: the student has one each")
    return notes


def _unwrapped(module: nn.Module, notes: list[str]) -> nn.Module:
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
        module = inner
        notes.append("torch.compile is taken off: the network below it is slimmed")
    return module


def _tensors(generator: nn.Module) -> list[tuple[str, Tensor]]:
    return [*generator.named_parameters(), *generator.named_buffers()]


def _own(module: nn.Module) -> bool:
    """Whether somebody wrote the layer's forward anew, or its constructor."""
    if type(module).__module__.startswith("torch.nn.") or module._forward_hooks or module._forward_pre_hooks:
        return False
    return any(True for _ in module.parameters())


PLAIN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _known(module: nn.Module) -> nn.Module | None:
    """One of torch's layers that computes the same as a layer of one's own, or None."""
    for kind in PLAIN:  # the quickest proof: it has inherited what is run
        same = type(module).forward is kind.forward
        if same and (kind is not nn.Conv2d or type(module)._conv_forward is nn.Conv2d._conv_forward):  # type: ignore[attr-defined]
            return None  # ``layers`` takes subclasses
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for shape in _input_shapes(module):
            for hypothesis in (_as_layer, _as_norm):
                if _holds(module, shape, hypothesis):
                    return hypothesis(copy.deepcopy(module).cpu().double().eval(), _picture(shape), exact=True)
    return None


Hypothesis = Callable[..., "nn.Module | None"]


def _holds(module: nn.Module, shape: tuple[int, ...], hypothesis: Hypothesis) -> bool:
    """Whether the stand-in does the same for other parameters and other inputs; else it would be chance."""
    for _ in range(2):
        other = copy.deepcopy(module).cpu().double().eval()
        for parameter in other.parameters():
            parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
        try:
            with in_double():
                found = hypothesis(other, _picture(shape))
                if found is None:
                    return False
                x = 2 * _picture(shape) + 0.5
                wanted = other(x.clone())
                if not (found.double()(x) - wanted).abs().max() <= SAME * wanted.abs().max().clamp_min(1.0):
                    return False
        except Exception:  # whatever somebody's code raises on a picture that it does not expect
            return False
    return True


def _picture(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _input_shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of inputs that a layer with such parameters may read."""
    widths: list[int] = []
    side, flat = SIDE, True
    for parameter in module.parameters(recurse=False):
        if parameter.dim() == 4:
            flat = False
            side = max(side, 4 * max(parameter.shape[2:]))
            groups = getattr(module, "groups", 1)
            each = groups if isinstance(groups, int) else 1
            widths += [getattr(module, "in_channels", 0), parameter.shape[1] * each, *parameter.shape[:2]]
        elif parameter.dim() == 2:
            widths += [parameter.shape[1], parameter.shape[0]]
        elif parameter.numel() > 1:
            widths.append(parameter.numel())
    widths = [width for width in dict.fromkeys(widths) if isinstance(width, int) and width > 0]
    pictures: list[tuple[int, ...]] = [(2, width, side, side) for width in widths]
    return [(2, 5, width) for width in widths] + pictures if flat else pictures


class _Captured(TorchDispatchMode):
    """The arguments of every convolution, matrix product and norm that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.last: Any = None
        """What the last of them gave."""
        self.transposed: dict[int, Tensor] = {}
        self._held: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in ("t", "transpose"):
            self.transposed[id(out)] = args[0]
            self._held.append(out)
        if name in ("convolution", "addmm", "mm", "native_group_norm") or "batch_norm" in name:
            names = [argument.name for argument in func._schema.arguments]
            self.calls.append((name, dict(zip(names, args, strict=False)) | (kwargs or {})))
            self.last = out
        return out


def convolves_by_its_weight(layer: nn.Module) -> bool:
    """Whether a subclass of a convolution puts out what one convolution by its very weight makes of its input."""
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return False
    layer = copy.deepcopy(layer).cpu().double().eval()
    side = max(SIDE, 4 * max(layer.kernel_size))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), in_double():
        torch.manual_seed(0)
        x = _picture((2, layer.in_channels, side, side))
        try:
            y, captured = _run(layer, x)
        except Exception:  # somebody's code
            return False
    if len(captured.calls) != 1 or captured.calls[0][0] != "convolution" or captured.last is not y:
        return False
    given = captured.calls[0][1]
    same = given["weight"] is layer.weight and given["bias"] is layer.bias and given["groups"] == layer.groups
    return same and tuple(given["input"].shape[:2]) == tuple(x.shape[:2])


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, _Captured]:
    captured = _Captured()
    with captured:
        y = module(x.clone())
    return y, captured


def _as_layer(module: nn.Module, x: Tensor, *, exact: bool = False) -> nn.Module | None:
    """A convolution or linear layer with the weights that the module gives to its one operation."""
    with in_double():
        _, captured = _run(module, x)
    if len(captured.calls) != 1:
        return None
    name, given = captured.calls[0]
    made: nn.Module
    if name == "convolution":
        weight, bias, groups = given["weight"], given["bias"], given["groups"]
        transposed = given["transposed"]
        inputs = weight.shape[0] if transposed else weight.shape[1] * groups
        outputs = weight.shape[1] * groups if transposed else weight.shape[0]
        where = {key: tuple(given[key]) for key in ("stride", "padding", "dilation")}
        more: dict[str, Any] = {**where, "groups": groups, "bias": bias is not None}
        if transposed:
            more["output_padding"] = tuple(given["output_padding"])
        kind: Any = nn.ConvTranspose2d if transposed else nn.Conv2d
        made = kind(inputs, outputs, tuple(weight.shape[2:]), **more)
    elif name in ("addmm", "mm"):
        product = given["mat2"]
        found = captured.transposed.get(id(product))
        if found is None:
            return None
        weight, bias = found, given.get("self") if name == "addmm" else None
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        return None
    made = made.double()
    cast(Any, made).weight.copy_(weight)
    if bias is not None:
        cast(Any, made).bias.copy_(bias)
    return made.float() if exact else made


def _as_norm(module: nn.Module, x: Tensor, *, exact: bool = False) -> nn.Module | None:
    """An instance or group norm whose scale and shift are read off the module's output."""
    with in_double():
        y, captured = _run(module, x)
    if x.dim() != 4 or y.shape != x.shape or len(captured.calls) != 1:
        return None
    name, given = captured.calls[0]
    eps, width = given.get("eps", 1e-5), x.shape[1]
    made: nn.InstanceNorm2d | nn.GroupNorm
    if "batch_norm" in name and given.get("training", given.get("train")):
        made = nn.InstanceNorm2d(width, eps=eps, affine=True)
        normed = F.instance_norm(x, eps=eps)
    elif name == "native_group_norm":
        made = nn.GroupNorm(given["group"], width, eps=eps)
        normed = F.group_norm(x, given["group"], eps=eps)
    else:
        return None
    values, wanted = (t.transpose(0, 1).flatten(1) for t in (normed, y))
    centred = values - values.mean(dim=1, keepdim=True)
    scale = (centred * wanted).sum(dim=1) / centred.square().sum(dim=1)
    shift = wanted.mean(dim=1) - scale * values.mean(dim=1)
    made = made.double()
    made.weight.copy_(scale)
    made.bias.copy_(shift)
    if not exact:
        return made
    made = made.float()
    for place in (made.weight, made.bias):  # the parameter itself, where it is one, to the last bit
        for own in module.parameters():
            if own.numel() == place.numel() and torch.allclose(own.flatten(), place.double(), rtol=1e-6, atol=1e-7):
                place.copy_(own.flatten())
    return made


def _batch_norm(norm: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    """What a synchronised batch norm is on one machine."""
    more: Any = {"eps": norm.eps, "momentum": norm.momentum, "affine": norm.affine}
    plain = nn.BatchNorm2d(norm.num_features, track_running_stats=norm.track_running_stats, **more)
    plain.load_state_dict(norm.state_dict())
    return plain.train(norm.training)

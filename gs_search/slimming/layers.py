"""Layers that can be slimmed: with quantizers, with a gate where no norm follows, and norms that may lose channels.

``slimmable`` copies a generator and replaces its convolutions and linear layers. A layer whose output no norm
scales gets a *gate*, a vector of ones that multiplies its output channels: the prunable scale that the paper
takes from norms. Norms without scales get scale 1 and shift 0, which changes nothing. A batch norm right behind a
layer becomes part of it on a device, so that what the layer hands on is rounded behind that norm.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gs_search.errors import UnsupportedNetwork
from gs_search.slimming.adoption import adopt_, convolves_by_its_weight, plain_copy
from gs_search.slimming.output_quantizer import OutputQuantizer
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer

__all__ = [
    "NORMS",
    "Norm",
    "SlimBatchNorm2d",
    "SlimConv2d",
    "SlimConvTranspose2d",
    "SlimGroupNorm",
    "SlimLayer",
    "SlimLinear",
    "is_norm",
    "norm_width",
    "norms",
    "output_module",
    "slim_layers",
    "slimmable",
    "stays_float",
    "unowned",
]

NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d, nn.GroupNorm)
Norm = nn.InstanceNorm2d | nn.BatchNorm2d | nn.GroupNorm


class _Slim(nn.Module):
    """What all kinds of layers add: quantizers of input, weight and output, and a gate."""

    weight: Tensor
    bias: Tensor | None
    input_quantizer: ActivationQuantizer | None
    weight_quantizer: WeightQuantizer | None
    output_quantizer: OutputQuantizer | None
    gate: nn.Parameter | None
    out_axis: int
    plain = True
    """Whether it reads the picture as its attributes say; else its outputs cannot be written as a matrix product."""
    in_channels: int
    out_channels: int
    groups: int

    def _extend(self) -> None:
        self.input_quantizer = None
        self.weight_quantizer = None
        self.output_quantizer = None
        self.register_parameter("gate", None)

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        y = self._apply_weight(x, weight)
        if self.gate is not None:
            y = y * self.as_channels(self.gate).to(y.dtype)
        return y if self.output_quantizer is None else self.output_quantizer(y)

    def as_channels(self, values: Tensor) -> Tensor:
        """One value for each output channel, in a shape that multiplies the output."""
        return values.view(1, -1, 1, 1)

    def positions(self, y: Tensor) -> Tensor:
        """An output as one row for each place of the picture: P x C."""
        return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])

    @property
    def num_inputs(self) -> int:
        return self.in_channels

    @property
    def num_outputs(self) -> int:
        return self.out_channels

    @property
    def num_groups(self) -> int:
        return self.groups

    def set_widths(self, inputs: int, outputs: int, groups: int) -> None:
        """Say what the sliced weight's shape means."""
        self.in_channels, self.out_channels, self.groups = inputs, outputs, groups

    def add_gate(self) -> None:
        """Give every output channel a scale of one."""
        self.gate = nn.Parameter(torch.ones(self.num_outputs, dtype=self.weight.dtype, device=self.weight.device))


class SlimConv2d(_Slim, nn.Conv2d):
    out_axis = 0

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(x, weight, self.bias)


class SlimConvTranspose2d(_Slim, nn.ConvTranspose2d):  # type: ignore[misc]  # no output_size here
    out_axis = 1

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x,
            weight,
            self.bias,
            cast("tuple[int, int]", self.stride),
            cast("tuple[int, int]", self.padding),
            cast("tuple[int, int]", self.output_padding),
            self.groups,
            cast("tuple[int, int]", self.dilation),
        )


class SlimLinear(_Slim, nn.Linear):  # type: ignore[misc]  # torch says that its bias is always there
    """A linear layer over the last dimension."""

    out_axis = 0

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)

    def as_channels(self, values: Tensor) -> Tensor:
        return values

    def positions(self, y: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[-1])

    @property
    def num_inputs(self) -> int:
        return self.in_features

    @property
    def num_outputs(self) -> int:
        return self.out_features

    @property
    def num_groups(self) -> int:
        return 1

    def set_widths(self, inputs: int, outputs: int, groups: int) -> None:
        self.in_features, self.out_features = inputs, outputs


class _OwnForward(_Slim):
    """A convolution with a forward of its own, which may pad in its own way: run as it is, with the rounded weight."""

    plain = False
    _own: type[nn.Module]

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        vars(self)["weight"] = weight  # found before the parameter
        try:
            return cast(Tensor, self._own.forward(self, x))
        finally:
            del vars(self)["weight"]


SlimLayer = SlimConv2d | SlimConvTranspose2d | SlimLinear
SLIM = (SlimConv2d, SlimConvTranspose2d, SlimLinear)
_KINDS: dict[type[nn.Module], type[_Slim]] = {
    nn.Conv2d: SlimConv2d,
    nn.ConvTranspose2d: SlimConvTranspose2d,
    nn.Linear: SlimLinear,
}


class SlimGroupNorm(nn.GroupNorm):
    """A GroupNorm whose groups may lose channels unevenly, before and after the dead ones are cut out.

    Dead channels must not count in a group's mean and variance, or the network would change when they are
    removed. ``sizes`` are the channels of each group; ``alive`` masks them (ones where all live).
    """

    sizes: list[int]
    alive: Tensor

    def _extend(self) -> None:
        self.sizes = [self.num_channels // self.num_groups] * self.num_groups
        self.register_buffer("alive", torch.ones(self.num_channels, device=self.weight.device), persistent=False)
        self.masked = False

    def set_alive(self, alive: Tensor) -> None:
        """Which channels live, one bool each."""
        self.alive.copy_(alive)
        self.masked = not bool(alive.all())

    def forward(self, x: Tensor) -> Tensor:
        if self.masked:
            with torch.autocast(x.device.type, enabled=False):  # means in bfloat16 would be wrong by 0.4 %
                return self._without_dead(x)
        if len(set(self.sizes)) == 1:
            return F.group_norm(x, len(self.sizes), self.weight, self.bias, self.eps)
        groups = zip(*(t.split(self.sizes, dim) for t, dim in ((x, 1), (self.weight, 0), (self.bias, 0))), strict=True)
        return torch.cat([F.group_norm(part, 1, weight, bias, self.eps) for part, weight, bias in groups], dim=1)

    def _without_dead(self, x: Tensor) -> Tensor:
        values = x if x.dtype == torch.float64 else x.float()
        alive = self.alive.to(values.dtype)
        group = torch.arange(len(self.sizes), device=x.device).repeat_interleave(
            torch.tensor(self.sizes, device=x.device)
        )
        members = F.one_hot(group, len(self.sizes)).to(values.dtype)  # C x G
        count = (alive @ members).clamp_min(1) * x.shape[2] * x.shape[3]

        def group_mean(y: Tensor) -> Tensor:
            return ((y.sum(dim=(2, 3)) * alive) @ members / count @ members.T)[:, :, None, None]

        centred = values - group_mean(values)
        normed = centred * torch.rsqrt(group_mean(centred.square()) + self.eps)
        return normed * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class SlimBatchNorm2d(nn.BatchNorm2d):
    """A batch norm, and the quantizer of what the layer before it hands on through it."""

    output_quantizer: OutputQuantizer | None

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.output_quantizer is None else self.output_quantizer(y)


def slimmable(generator: nn.Module, notes: list[str] | None = None) -> nn.Module:
    """Return a copy whose layers are slimmable, whose norms have scales, and which computes the same.

    Parametrisations (spectral norm and the like) become plain weights, for training would fight them. In-place
    activations are not in place any more: one hides the norm before it from the dependency graph. (Where a
    network relies on them changing a skip connection, ``Teacher`` notices.)

    Args:
        notes: what was changed on the way and must be said is added here, one line each.
    """
    for name, module in generator.named_modules():
        if type(module) in _KINDS and "weight" not in module._parameters:
            raise UnsupportedNetwork(
                f"layer {name}: a hook computes its weight (torch.nn.utils.spectral_norm or weight_norm); take it off "
                "with remove_spectral_norm or remove_weight_norm first"
            )
    generator, said = plain_copy(generator)
    for module in list(generator.modules()):
        if parametrize.is_parametrized(module):
            _with_own_class(module)
            for name in list(cast(Any, module.parametrizations)):
                parametrize.remove_parametrizations(module, name)
    said += adopt_(generator)
    if notes is not None:
        notes += said
    for module in list(generator.modules()):
        if isinstance(module, nn.MultiheadAttention):  # reads its inner layer's weight past that layer
            continue
        for name, child in list(module.named_children()):
            kind = _kind(child)
            if kind is not None:
                # Keeps hooks and training mode; only the behaviour of forward is new.
                child.__class__ = kind
                cast(_Slim, child)._extend()
            elif is_norm(child):
                scaled = child if child.affine else _with_scales(child)
                if isinstance(scaled, nn.GroupNorm):
                    scaled.__class__ = SlimGroupNorm
                    cast(SlimGroupNorm, scaled)._extend()
                elif isinstance(scaled, nn.BatchNorm2d):
                    scaled.__class__ = SlimBatchNorm2d
                    cast(SlimBatchNorm2d, scaled).output_quantizer = None
                setattr(module, name, scaled)
            elif getattr(child, "inplace", False) is True:
                cast(Any, child).inplace = False
    return generator


def _kind(layer: nn.Module) -> type[_Slim] | None:
    """The slimmable class for a layer: of one of torch's, or of a subclass that runs as torch's does."""
    if type(layer) in _KINDS:
        return _KINDS[type(layer)]
    for plain, slim in _KINDS.items():
        inherited = ("forward", "_conv_forward") if plain is nn.Conv2d else ("forward",)
        if not isinstance(layer, plain):
            continue
        if all(getattr(type(layer), n) is getattr(plain, n) for n in inherited):
            return type(type(layer).__name__, (slim, type(layer)), {})  # what else it can do may be called from outside
        if convolves_by_its_weight(layer):
            return type(type(layer).__name__, (_OwnForward, slim, type(layer)), {"_own": type(layer)})
    return None


def slim_layers(network: nn.Module) -> dict[str, SlimLayer]:
    """All slimmable convolutions and linear layers by name, in order of definition."""
    return {n: m for n, m in network.named_modules() if isinstance(m, SLIM)}


def output_module(network: nn.Module, name: str) -> SlimLayer | SlimBatchNorm2d:
    """The module that hands on a layer's output and rounds it: a batch norm right behind it, or itself."""
    place, _, own = name.rpartition(".")
    parent = network.get_submodule(place)
    if isinstance(parent, nn.Sequential):
        behind = [child for key, child in parent.named_children() if key.isdigit() and int(key) == int(own) + 1]
        if behind and isinstance(behind[0], SlimBatchNorm2d):
            return behind[0]
    return cast("SlimLayer", network.get_submodule(name))


def stays_float(layer: SlimLayer) -> bool:
    """Whether an integer device computes a quantized layer in floats.

    Linear layers, and a convolution that pads the picture itself with zeros: 0 lies between two bytes.
    """
    if isinstance(layer, SlimLinear):
        return True
    return layer.input_quantizer is None and layer.padding not in (0, (0, 0), "valid")


def is_norm(module: nn.Module) -> TypeGuard[Norm]:
    """Whether it is one of torch's norms, or of a subclass that runs as torch's does."""
    if not isinstance(module, NORMS):
        return False
    own = (SlimGroupNorm, SlimBatchNorm2d)
    return isinstance(module, own) or any(type(module).forward is kind.forward for kind in NORMS)


def norms(network: nn.Module) -> dict[str, Norm]:
    """All norms by name, in order of definition."""
    return {n: m for n, m in network.named_modules() if is_norm(m)}


def unowned(network: nn.Module) -> dict[str, Tensor]:
    """Stored tensors that no slimmable layer or norm owns, by name: slopes of PReLUs, what is not slimmed.

    A module under two names counts under its first one.
    """
    found: dict[str, Tensor] = {}
    owned: tuple[str, ...] = ()
    for place, module in network.named_modules():
        if isinstance(module, SLIM) or is_norm(module):
            owned = (*owned, f"{place}.")  # with its quantizers
            continue
        if place.startswith(owned):
            continue
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and key not in module._non_persistent_buffers_set:
                found[f"{place}.{key}" if place else key] = tensor.detach()
    return found


def norm_width(norm: Norm) -> int:
    """Its number of channels."""
    return norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features


def _with_own_class(module: nn.Module) -> None:
    """A parametrized module's copy shares its class with the original, which loses its weight when the copy does."""
    kind = type(module)
    own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)


def _with_scales(norm: Norm) -> Norm:
    device = next((t.device for t in norm.buffers()), torch.device("cpu"))
    scaled: Norm
    if isinstance(norm, nn.GroupNorm):
        return nn.GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps, affine=True).train(norm.training)
    kept = {"eps": norm.eps, "momentum": norm.momentum, "track_running_stats": norm.track_running_stats}
    kind = nn.BatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.InstanceNorm2d  # not a subclass's constructor
    scaled = kind(norm.num_features, affine=True, **cast(Any, kept)).to(device)
    scaled.load_state_dict(norm.state_dict(), strict=False)
    return scaled.train(norm.training)

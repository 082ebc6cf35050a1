"""Narrow students with random weights, rounded as trained ones are, for tests of the export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gs_search.networks import AnimeGenerator, CartoonGenerator, ResnetGenerator, UnetGenerator
from gs_search.slimming import Teacher
from gs_search.slimming.layers import norms, slim_layers, slimmable
from gs_search.slimming.output_quantizer import OutputQuantizer
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer, activation_range, best_weight_range
from gs_search.slimming.repair import attach_quantizers
from gs_search.study.settings import SlimmingSettings

PX = 32

GENERATORS = {
    "cartoongan": lambda: CartoonGenerator(4, 1),
    "cyclegan": lambda: ResnetGenerator(4, 1),
    "unet": lambda: UnetGenerator(4, 3),
    "unet_instance": lambda: UnetGenerator(4, 3, norm="instance"),
    "anime": lambda: AnimeGenerator(4, 1),
    "cut": lambda: ResnetGenerator(4, 1, antialias=True, upsampling="blur"),
    "resnet_batch": lambda: ResnetGenerator(4, 1, norm="batch", bias=False, padding="zero", upsampling="nearest"),
}


def pictures(count: int = 2, px: int = PX) -> Tensor:
    """Smooth random pictures whose values are bytes, in [-1, 1]."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(2)) * 255
    smooth = nn.functional.interpolate(noise, size=px, mode="bicubic")
    return smooth.round().clamp(0, 255) / 127.5 - 1.0


@torch.no_grad()
def plain_student(name: str) -> nn.Module:
    """A generator with uneven norms, gates of both signs, and batch norms that have seen something."""
    torch.manual_seed(3)
    student = slimmable(GENERATORS[name]())
    for norm in norms(student).values():
        norm.weight.uniform_(0.3, 1.5)
        norm.bias.normal_(0, 0.2)
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            norm.weight[0] *= -1
    for layer in slim_layers(student).values():
        if layer.bias is not None:
            layer.bias.normal_(0, 0.1)
    gated = next(layer for layer_name, layer in slim_layers(student).items() if not layer_name.startswith("stem"))
    gated.add_gate()
    assert gated.gate is not None
    gated.gate.uniform_(0.5, 1.5)
    gated.gate[1] *= -1
    return student.eval().requires_grad_(False)


@torch.no_grad()
def rounded_student(name: str, *, weight_bits: int = 8, activation_bits: int = 8) -> nn.Module:
    """The same with quantizers: the first layer and the last have 8 bits, the first reads pixels."""
    student = plain_student(name)
    layers = slim_layers(student)
    order: list[str] = []
    inputs: dict[str, Tensor] = {}
    for layer_name, layer in layers.items():

        def record(module: nn.Module, arguments: tuple[Tensor, ...], name: str = layer_name) -> None:
            order.append(name)
            inputs[name] = arguments[0]

        handle = layer.register_forward_pre_hook(record)
        inputs[layer_name] = torch.zeros(1)
        layer.handle = handle  # type: ignore[assignment]
    student(pictures())
    for layer_name, layer in layers.items():
        layer.handle.remove()  # type: ignore[union-attr, operator]
        del layer.handle
        outer = layer_name in (order[0], order[-1])
        bits = 8 if outer else weight_bits
        groups = layer.num_groups if layer.out_axis == 1 else 1
        ranges = best_weight_range(layer.weight, bits, layer.out_axis, groups)
        layer.weight_quantizer = WeightQuantizer(bits, ranges, layer.out_axis, groups)
        if layer_name != order[0]:
            bits = 8 if outer else activation_bits
            x = inputs[layer_name]
            signed = bool(x.min() < 0)
            layer.input_quantizer = ActivationQuantizer(bits, activation_range(x, bits, signed=signed), signed=signed)
    return student.eval().requires_grad_(False)


@torch.no_grad()
def deployed_student(name: str, *, weight_bits: int = 8, activation_bits: int = 8) -> nn.Module:
    """The same with outputs on a device's grids too, whose steps and codes of zero training has moved."""
    teacher = Teacher(plain_student(name), PX)
    student, _ = teacher.student("raw")
    settings = SlimmingSettings(weight_bits=weight_bits, activation_bits=activation_bits, quantize="deploy")
    attach_quantizers(teacher.graph, student, settings, pictures(4))
    generator = torch.Generator().manual_seed(4)
    for module in student.modules():
        if isinstance(module, OutputQuantizer):
            module.change.uniform_(-0.02, 0.02, generator=generator)
    return student.eval().requires_grad_(False)

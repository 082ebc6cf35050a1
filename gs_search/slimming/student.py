"""The small network as a file: every weight packed at its bit-width, and nothing else.

A student is a ``.safetensors`` whose length is the ``size_mb`` of a trial: codes of ``b`` bits an element, one float32
step for each output channel, float32 norms and biases; of a student that was trained on a device's grid also a step
and a code of zero for each channel that is rounded. Its description says how to build the network again; loading
gives the same codes, steps and pictures to the last bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks import Architecture, ModuleArchitecture, build
from gs_search.networks.resnet import ResidualBlock
from gs_search.slimming.extraction import ChannelConstant, resize_layer_, resize_norm_, set_group_sizes_
from gs_search.slimming.layers import (
    SlimGroupNorm,
    SlimLayer,
    is_norm,
    norm_width,
    norms,
    output_module,
    slim_layers,
    slimmable,
    unowned,
)
from gs_search.slimming.output_quantizer import OUTPUT_BITS, OutputGrid, OutputQuantizer
from gs_search.slimming.quantize import FLOAT_BITS, ActivationQuantizer, WeightQuantizer
from gs_search.slimming.student_file import decode, encode
from gs_search.system.files import draft_of

__all__ = [
    "StudentLayer",
    "load_student",
    "pack",
    "pack_codes",
    "save_student",
    "stored_bits",
    "stored_bytes",
    "student_mb",
    "unpack_codes",
]


Known = Architecture | ModuleArchitecture


@dataclass(frozen=True)
class StudentLayer:
    """How one layer is stored: its weight's shape, its bits (32: float), its input's sign."""

    name: str
    shape: list[int]
    weight_bits: int
    activation_bits: int
    signed: bool
    output_bits: int = FLOAT_BITS


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack signed symmetric codes, ``bits`` bits an element, most significant bit first, into bytes (1-D)."""
    high = 2 ** (bits - 1) - 1
    unsigned = (codes.cpu().numpy().astype(np.int16).ravel() + high).astype(np.uint8)
    spread = np.unpackbits(unsigned[:, None], axis=1)[:, 8 - bits :]
    return torch.from_numpy(np.packbits(spread.ravel()))


def unpack_codes(packed: Tensor, bits: int, shape: list[int]) -> Tensor:
    """Invert ``pack_codes``; int16 codes of ``shape``."""
    count = int(np.prod(shape))
    if len(packed) != -(-count * bits // 8):
        raise ValueError(f"{len(packed)} bytes hold no {count} codes of {bits} bits")
    spread = np.unpackbits(packed.cpu().numpy())[: count * bits].reshape(count, bits)
    full = np.concatenate([np.zeros((count, 8 - bits), dtype=np.uint8), spread], axis=1)
    codes = np.packbits(full, axis=1).ravel().astype(np.int16) - (2 ** (bits - 1) - 1)
    return torch.from_numpy(codes.reshape(shape))


@torch.no_grad()
def pack(student: nn.Module) -> tuple[dict[str, Tensor], list[StudentLayer]]:
    """All tensors of an extracted student as they are stored, and the description of its layers."""
    tensors: dict[str, Tensor] = {}
    layers = []
    for name, layer in slim_layers(student).items():
        weights, inputs = layer.weight_quantizer, layer.input_quantizer
        if weights is None:
            tensors[f"{name}.weight"] = layer.weight.detach().float()
        else:
            tensors[f"{name}.weight.codes"] = pack_codes(weights.codes(layer.weight), weights.bits)
            tensors[f"{name}.weight.step"] = weights.step.detach().float()
        if inputs is not None:
            tensors[f"{name}.input.step"] = inputs.step.detach().float().reshape(1)
        for extra in ("bias", "gate"):
            if getattr(layer, extra) is not None:
                tensors[f"{name}.{extra}"] = getattr(layer, extra).detach().float()
        if (outputs := output_module(student, name).output_quantizer) is not None:
            zero = outputs.zero.detach()
            narrow = bool(((zero >= 0) & (zero <= 255)).all())
            tensors[f"{name}.output.step"] = outputs.step.detach().float()
            tensors[f"{name}.output.zero"] = zero.to(torch.uint8 if narrow else torch.int16)
        layers.append(
            StudentLayer(
                name=name,
                shape=list(layer.weight.shape),
                weight_bits=weights.bits if weights is not None else FLOAT_BITS,
                activation_bits=inputs.bits if inputs is not None else FLOAT_BITS,
                signed=inputs.signed if inputs is not None else True,
                output_bits=outputs.bits if outputs is not None else FLOAT_BITS,
            )
        )
    for name, module in student.named_modules():
        own = {}
        if isinstance(module, ChannelConstant):
            own = {"shift": module.shift}
        elif is_norm(module):
            own = {n: t for n, t in module.state_dict().items() if "." not in n and t.is_floating_point()}
        tensors |= {f"{name}.{key}": value.detach().float() for key, value in own.items()}
    tensors |= {name: tensor.detach() for name, tensor in _rest(student).items()}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, layers


def stored_bytes(student: nn.Module) -> int:
    """Length of the file that ``save_student`` writes of a student of one's own generator."""
    return len(encode(*_described(student, None)))


def stored_bits(student: nn.Module) -> float:
    """Stored bits for each weight, bias, scale and shift of a student, ranges of quantizers not counted as numbers."""
    quantizers = (ActivationQuantizer, WeightQuantizer, OutputQuantizer)
    ranges = {id(p) for m in student.modules() if isinstance(m, quantizers) for p in m.parameters()}
    return 8 * stored_bytes(student) / max(1, sum(p.numel() for p in student.parameters() if id(p) not in ranges))


def _rest(student: nn.Module) -> dict[str, Tensor]:
    """What no layer, norm or vanished block owns: slopes of PReLUs, tensors that are not slimmed."""
    vanished = tuple(f"{n}." for n, m in student.named_modules() if isinstance(m, ChannelConstant))
    return {name: tensor for name, tensor in unowned(student).items() if not name.startswith(vanished)}


def save_student(path: Path, student: nn.Module, architecture: Known | None, **notes: str) -> dict[str, Tensor]:
    """Write a student atomically and return the tensors that were written.

    Args:
        architecture: of the teacher; one of this package's is written. ``load_student`` must be given the generator of
            any other: no file of weights says what code is run.
        notes: further text for the description.
    """
    tensors, described = _described(student, architecture)
    with draft_of(path) as draft:
        draft.write_bytes(encode(tensors, {**described, **notes}))
    return tensors


def student_mb(student: nn.Module, architecture: Known | None) -> float:
    """The objective: the length of the file that ``save_student`` would write, in 10^6 bytes."""
    return len(encode(*_described(student, architecture))) / 1e6


def _described(student: nn.Module, architecture: Known | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Packed tensors of a student, and how to build it again."""
    tensors, layers = pack(student)
    rows = [asdict(layer) for layer in layers]
    # By columns, which compress better.
    columns = {field.name: [row[field.name] for row in rows] for field in fields(StudentLayer)}
    described: dict[str, Any] = {"layers": columns}
    uneven = {name: norm.sizes for name, norm in norms(student).items() if isinstance(norm, SlimGroupNorm)}
    if uneven:
        described["norm_groups"] = uneven
    in_place = [name for name, module in student.named_modules() if getattr(module, "inplace", False) is True]
    if in_place:
        described["in_place"] = in_place  # where a network relies on it, see ``teacher``
    if isinstance(architecture, Architecture):
        described["architecture"] = architecture.to_json()
    return tensors, described


def load_student(path: Path, generator: nn.Module | None = None) -> nn.Module:
    """Build a student from its file, in evaluation mode, with its quantizers.

    Args:
        path: written by ``save_student``.
        generator: the dense generator, for students of architectures that this package does not build.

    Raises:
        CheckpointError: not a student, damaged, or of another generator.
    """
    path = Path(path)
    tensors, described = decode(path)
    if generator is None:
        if "architecture" not in described:
            raise CheckpointError(f"{path}: a student of a generator of one's own; pass that generator too")
        generator = build(Architecture.from_json(described["architecture"]))
    student = slimmable(generator)
    try:
        layers = [StudentLayer(**row) for row in _rows(described["layers"])]
        _collapse(student, tensors)
        for layer in layers:
            _fill_layer(cast(Any, student.get_submodule(layer.name)), layer, tensors)
        for name, norm in norms(student).items():
            resize_norm_(norm, np.arange(norm_width(norm)) < len(tensors[f"{name}.weight"]))
            if isinstance(norm, SlimGroupNorm):
                set_group_sizes_(norm, described["norm_groups"][name])
            wanted = [key for key, value in norm.state_dict().items() if value.is_floating_point()]
            norm.load_state_dict({key: tensors[f"{name}.{key}"] for key in wanted}, strict=False)
        for layer in layers:
            if layer.output_bits == OUTPUT_BITS:
                _fill_output(student, layer.name, tensors)
        for name in described.get("in_place", []):
            cast(Any, student.get_submodule(name)).inplace = True
        for name in _rest(student):
            _replace(student, name, tensors[name])
    except (LookupError, AttributeError, RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        brief = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its generator or is damaged ({brief})") from None
    return student.eval().requires_grad_(False)


def _rows(layers: Any) -> list[dict[str, Any]]:
    """Descriptions of layers: columns, or rows in files of the first format."""
    if isinstance(layers, list):
        return layers
    return [dict(zip(layers, row, strict=True)) for row in zip(*layers.values(), strict=True)]


def _collapse(student: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name in tensors:
        if name.endswith(".branch.shift"):
            block = cast(ResidualBlock, student.get_submodule(name.removesuffix(".branch.shift")))
            block.branch = ChannelConstant(tensors[name])


def _replace(student: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor where the generator has one of the same name, perhaps of another width."""
    place, _, own = name.rpartition(".")
    module: Any = student.get_submodule(place)
    setattr(module, own, nn.Parameter(tensor) if own in module._parameters else tensor)
    if isinstance(module, nn.PReLU):
        module.num_parameters = len(tensor)


@torch.no_grad()
def _fill_layer(layer: SlimLayer, stored: StudentLayer, tensors: dict[str, Tensor]) -> None:
    name, axis = stored.name, layer.out_axis
    if f"{name}.gate" in tensors:
        layer.add_gate()
    outputs, inputs = stored.shape[axis], stored.shape[1 - axis]
    if layer.num_groups > 1:
        depthwise = layer.num_groups == layer.num_inputs == layer.num_outputs
        inputs, outputs = (stored.shape[0],) * 2 if depthwise else (layer.num_inputs, layer.num_outputs)
    resize_layer_(layer, np.arange(layer.num_inputs) < inputs, np.arange(layer.num_outputs) < outputs)
    if stored.weight_bits == FLOAT_BITS:
        layer.weight.copy_(tensors[f"{name}.weight"])
    else:
        step = tensors[f"{name}.weight.step"]
        groups = layer.num_groups if axis == 1 else 1
        quantizer = WeightQuantizer(stored.weight_bits, torch.ones_like(step), axis, groups)
        quantizer.base.copy_(step)
        codes = unpack_codes(tensors[f"{name}.weight.codes"], stored.weight_bits, stored.shape)
        layer.weight.copy_(codes.float() * quantizer.broadcast(step, codes))
        layer.weight_quantizer = quantizer
    if stored.activation_bits != FLOAT_BITS:
        stream = ActivationQuantizer(stored.activation_bits, torch.ones(()), signed=stored.signed)
        stream.base.copy_(tensors[f"{name}.input.step"].reshape(()))
        layer.input_quantizer = stream
    for extra in ("bias", "gate"):
        if getattr(layer, extra) is not None:
            getattr(layer, extra).copy_(tensors[f"{name}.{extra}"])


@torch.no_grad()
def _fill_output(student: nn.Module, name: str, tensors: dict[str, Tensor]) -> None:
    step, zero = tensors[f"{name}.output.step"], tensors[f"{name}.output.zero"]
    if not step.shape == zero.shape == (slim_layers(student)[name].num_outputs,):
        raise ValueError(f"{name}: {len(step)} steps and {len(zero)} codes of zero do not fit its outputs")
    grid = OutputGrid(step, zero.float())
    output_module(student, name).output_quantizer = OutputQuantizer(grid, centred=zero.dtype != torch.uint8)

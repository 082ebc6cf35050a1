"""The two models of a student: the float one, and the integer one with what it is to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from gs_search import __version__
from gs_search.export.grids import InputGrid, calibrate_outputs, complete
from gs_search.export.lowering import integer_layers, lower
from gs_search.export.onnx.float_graph import float_graph
from gs_search.export.onnx.integer_graph import integer_graph
from gs_search.export.onnx.proof import Reference
from gs_search.export.onnx.wiring import roles
from gs_search.slimming.layers import output_module, slim_layers
from gs_search.slimming.output_quantizer import OutputGrid

__all__ = ["IntegerModel", "add_metadata", "float_model", "integer_model"]


@dataclass(frozen=True)
class IntegerModel:
    """A student in whole numbers.

    Attributes:
        model: the ONNX model.
        reference: what it is to compute.
        lowered: the plain torch network of the same structure.
        integer_tensors: names of its tensors that became whole numbers.
        floats: layers that stayed float.
        calibrated: what the student had no quantizer for: ``layer: weight``, ``input`` or ``output``.
    """

    model: onnx.ModelProto
    reference: Reference
    lowered: nn.Module
    integer_tensors: frozenset[str]
    floats: tuple[str, ...]
    calibrated: tuple[str, ...]


def float_model(student: nn.Module, multiple: int, image_px: int) -> onnx.ModelProto:
    """The student without its rounding of activations, as torch exports it; weights are those that its codes mean."""
    return float_graph(lower(student), multiple, image_px)


def integer_model(
    student: nn.Module,
    pictures: Tensor,
    multiple: int,
    image_px: int,
    tick: Callable[[int], None] = lambda done: None,
    vnni: bool = False,
) -> IntegerModel:
    """The student in whole numbers.

    Args:
        pictures: N x 3 x H x W in [-1, 1], on which is calibrated what the student has no quantizers for.
        multiple: divides the sides of all pictures that the student takes.
        image_px: side of the picture that it is traced with.
        tick: told how many pictures the calibration has looked at; it looks twice.
        vnni: see ``integer_graph``.

    Raises:
        UnsupportedNetwork: torch cannot export the network, or it has no integer form.
    """
    completed, added = complete(student, pictures)
    lowered = lower(completed, multiple=multiple)
    layers = integer_layers(completed, lowered)
    graph = float_graph(lowered, multiple, image_px)
    trained = {name for name in slim_layers(completed) if output_module(completed, name).output_quantizer is not None}
    found = roles(graph, layers, trained)
    wanted = [layer.name for layer in layers if layer.name not in found.direct]
    outputs = calibrate_outputs(completed, pictures, wanted, found.centred, tick)
    for name in trained:  # from here on its grids are told apart from it
        output_module(completed, name).output_quantizer = None
    inputs = {layer.name: layer.input for layer in layers}
    grids: dict[str, OutputGrid | InputGrid] = {name: inputs[readers[0]] for name, readers in found.direct.items()}
    moved = {tensor for layer in layers for tensor in (layer.weight_name, layer.weight_name[: -len("weight")] + "bias")}
    shifts = {layer.name: torch.from_numpy(layer.sums(outputs.get(layer.name)).shift) for layer in layers}
    return IntegerModel(
        model=integer_graph(graph, layers, outputs, vnni),
        reference=Reference(completed, {**grids, **outputs}, shifts),
        lowered=lowered,
        integer_tensors=frozenset(moved),
        floats=tuple(name for name in slim_layers(completed) if name not in inputs),
        calibrated=(*added, *(f"{name}: output" for name in wanted if name not in trained)),
    )


def add_metadata(model: onnx.ModelProto, notes: Mapping[str, str]) -> None:
    """Write notes into a model, in place of what the exporter said of itself."""
    model.producer_name, model.producer_version, model.domain, model.model_version = "gs-search", __version__, "", 1
    del model.metadata_props[:]
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)

"""A plain network as an ONNX graph: exported by torch, stripped of what tells about the exporting machine."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from gs_search.errors import BadInput, UnsupportedNetwork

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT", "OPSET", "OUTPUT", "float_graph", "import_onnx", "set_sides"]

INPUT, OUTPUT = "picture", "painted"
"""Names of the graph's one input and one output: N x 3 x H x W in [-1, 1], float32."""

OPSET = 21
"""Operators of ONNX 1.16 (ONNX Runtime 1.20 and later): the first with 4-bit tensors."""

MOST_PX = 8192
"""Largest side that torch is told of; the graph itself has no limit."""


def import_onnx() -> None:
    """Raise BadInput where the extra ``export`` is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        missing = f"{error.name} is missing" if error.name else str(error)
        raise BadInput(f"export: {missing}; install the extra: pip install 'gs-search[export]'") from None


def float_graph(network: nn.Module, multiple: int, image_px: int) -> onnx.ModelProto:
    """Export a network for any number of pictures whose sides are multiples of ``multiple``.

    Args:
        network: takes and returns N x 3 x H x W in [-1, 1], in evaluation mode.
        image_px: side of the picture that it is traced with, itself such a multiple.

    Raises:
        UnsupportedNetwork: torch cannot export it.
    """
    side = max(image_px, 2 * multiple)  # torch takes a one for a constant, also for the one multiple of a side
    shapes = {
        0: torch.export.Dim("n", min=1, max=1 << 16),
        2: multiple * torch.export.Dim("height", min=2, max=MOST_PX // multiple),
        3: multiple * torch.export.Dim("width", min=2, max=MOST_PX // multiple),
    }
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxscript reports each of its rewrites
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, side, side),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        brief = " ".join(str(error.__cause__ or error).split())[:300]
        raise UnsupportedNetwork(f"torch cannot export this network to ONNX: {brief}") from None
    finally:
        logging.disable(level)
    _strip(model)
    set_sides(model, None)
    return model


def set_sides(model: onnx.ModelProto, image_px: int | None) -> None:
    """Declare the sides of the pictures that a graph takes: ``image_px``, or free ones; changed in place."""
    for value in (model.graph.input[0], model.graph.output[0]):
        n, channels, *sides = value.type.tensor_type.shape.dim
        n.dim_param, channels.dim_value = "n", 3
        for side, name in zip(sides, ("height", "width"), strict=True):
            if image_px is None:
                side.dim_param = name
            else:
                side.dim_value = image_px


def _strip(model: onnx.ModelProto) -> None:
    """Take off what only the exporter needed: its stack traces, paths of source files, shapes of inner values."""
    graph = model.graph
    for container in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *model.functions):
        del container.metadata_props[:]
        container.doc_string = ""
    del graph.value_info[:]
    graph.name = "generator"

"""Core ML's files: a network converted to an ML program, and what of it can be checked where it cannot run.

Prediction needs macOS or iOS, so a file is converted here and read back, never run: names, shapes, what it says of
itself, and every weight, as the program stores it, against the student's codes and steps. It computes in 16-bit floats;
weights are the student's own codes, a byte each whatever their bits, with a step for each channel. Activations are not
rounded: what the file computes is the float network.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers dequantize_per_channel
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search import __version__
from gs_search.errors import BadInput, UnsupportedNetwork
from gs_search.export.executorch.program import quiet
from gs_search.export.lowering import IntegerLayer
from gs_search.export.onnx.float_graph import INPUT, OUTPUT
from gs_search.export.subpixel import SubPixelConv2d

__all__ = ["check_package", "coded_network", "import_coremltools", "package_bytes", "write_package"]

TARGET = "iOS16"
"""The oldest that stores weights as codes with steps (macOS 13)."""


class CodedConv2d(nn.Module):
    """A convolution whose weight is codes (int8) and steps, one for each output channel."""

    steps: Tensor
    weight: Tensor
    zeros: Tensor

    def __init__(self, conv: nn.Conv2d, layer: IntegerLayer) -> None:
        super().__init__()
        kernel = torch.from_numpy(layer.kernel)
        kernel = kernel if layer.taps is None else layer.taps.deal(kernel)
        self.register_buffer("weight", kernel.contiguous())
        self.register_buffer("steps", torch.from_numpy(layer.steps.astype(np.float32).repeat(layer.factor**2)))
        self.register_buffer("zeros", torch.zeros(len(kernel), dtype=torch.int8))
        self.bias = conv.bias
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.weight, self.steps, self.zeros, 0, -128, 127, torch.int8
        )
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def import_coremltools() -> None:
    """Raise BadInput where the extra ``coreml`` is not installed."""
    try:
        with quiet():
            import coremltools  # noqa: F401
    except ImportError as error:
        missing = f"{error.name} is missing" if error.name else str(error)
        raise BadInput(
            f'--format coreml: {missing}; install the extra in the checkout: pip install -e ".[coreml]"'
        ) from None


@torch.no_grad()
def coded_network(lowered: nn.Module, layers: list[IntegerLayer]) -> nn.Module:
    """The lowered network, in sub-pixel form, with the weights of ``layers`` as codes; it is left as it was."""
    network = copy.deepcopy(lowered)
    for layer in layers:
        plain = network.get_submodule(layer.name)
        if isinstance(plain, SubPixelConv2d):
            plain.conv = CodedConv2d(plain.conv, layer)
        else:
            assert isinstance(plain, nn.Conv2d)
            network.set_submodule(layer.name, CodedConv2d(plain, layer))
    return network.eval().requires_grad_(False)


def write_package(network: nn.Module, image_px: int, path: Path, notes: Mapping[str, str]) -> None:
    """Convert a network to an ML program at ``path``, a folder that ends in ``.mlpackage``.

    Args:
        network: takes and returns 1 x 3 x H x W in [-1, 1], in evaluation mode.
        notes: what the file says of itself.

    Raises:
        UnsupportedNetwork: torch or coremltools cannot convert it.
    """
    import_coremltools()
    import coremltools

    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (torch.zeros(1, 3, image_px, image_px),)).run_decompositions({})
            model = coremltools.convert(
                program,
                convert_to="mlprogram",
                inputs=[coremltools.TensorType(name=INPUT, shape=(1, 3, image_px, image_px))],
                outputs=[coremltools.TensorType(name=OUTPUT)],
                minimum_deployment_target=getattr(coremltools.target, TARGET),
                skip_model_load=True,
            )
            model.author, model.version = f"gs-search {__version__}", notes.get("commit", "")
            model.license = notes.get("teacher_licence", "")
            model.short_description = f"{notes.get('study', '')}, {notes.get('student', '')}"
            model.user_defined_metadata.update(dict(notes))
            model.save(str(path))
    except (RuntimeError, ValueError, NotImplementedError, KeyError, AssertionError) as error:
        shutil.rmtree(path, ignore_errors=True)
        brief = " ".join(str(error.__cause__ or error).split())[:300]
        raise UnsupportedNetwork(f"coremltools cannot convert this network: {brief}") from None


@torch.no_grad()
def check_package(path: Path, network: nn.Module, image_px: int, notes: Mapping[str, str]) -> dict[str, Any]:
    """Read a package back and compare it with the network that it was converted from.

    Returns:
        ``input``, ``output``: name to shape; ``weights``: how many the file stores as codes; ``expected``;
        ``wrong``: names of the layers whose codes or steps it does not hold; ``notes``: whether it says of itself what
        it should.
    """
    import coremltools

    with quiet():
        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        description = model.get_spec().description
        program = model._mil_program
        if program is None:
            program = _program(model)
    stored = _stored_weights(program)
    wrong = []
    coded = {name: module for name, module in network.named_modules() if isinstance(module, CodedConv2d)}
    for name, module in coded.items():
        codes, steps = module.weight.numpy(), module.steps.numpy()
        match = [
            place
            for place, (other, scale) in enumerate(stored)
            if other.shape == codes.shape
            and (other == codes).all()
            and np.allclose(np.broadcast_to(scale, steps.shape), steps, rtol=STEP_ERROR, atol=0)
        ]
        if match:
            stored.pop(match[0])
        else:
            wrong.append(name)
    return {
        "input": {one.name: list(one.type.multiArrayType.shape) for one in description.input},
        "output": {one.name: list(one.type.multiArrayType.shape) for one in description.output},
        "weights": len(coded) - len(wrong),
        "expected": len(coded),
        "wrong": wrong,
        "notes": all(model.user_defined_metadata.get(key) == value for key, value in notes.items()),
    }


STEP_ERROR = 2.0**-10
"""Steps are stored as 16-bit floats."""


def package_bytes(path: Path) -> int:
    """Bytes of all files of a package."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _program(model: Any) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import load

    return load(
        model.get_spec(),
        specification_version=model.get_spec().specificationVersion,
        file_weights_dir=model.weights_dir,
    )


def _stored_weights(program: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Codes and steps of every weight that a program stores so."""
    found = []
    for operation in program.functions["main"].operations:
        if operation.op_type == "constexpr_affine_dequantize":
            found.append((operation.quantized_data.val, np.asarray(operation.scale.val, np.float32)))
    return found

"""Proof that an ExecuTorch file is the student: one delegate, every convolution alone, every constant.

The counterpart of ``proof.py``: each integer convolution is cut out of the delegate's graph, runs alone in ExecuTorch's
runtime on what the student itself feeds to that layer, and must give the student's own codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gs_search.export.executorch.delegate import Convolution, Delegate
from gs_search.export.executorch.plain_graph import plain_graph
from gs_search.export.grids import InputGrid
from gs_search.export.integer_network import LOW, IntegerConv2d
from gs_search.export.onnx.proof import LayerCheck, Reference, exact_output, fed_inputs
from gs_search.slimming.layers import slim_layers

__all__ = ["check_constants", "check_convolutions"]


@torch.no_grad()
def check_convolutions(
    delegate: Delegate, network: nn.Module, reference: Reference, pictures: Tensor
) -> list[LayerCheck]:
    """Run every integer convolution of a file alone, fed the student's own input of that layer.

    Args:
        network: of ``integer_network``, from which the file was lowered.
        pictures: N x 3 x H x W in [-1, 1] of the size that the file takes.

    Returns:
        one for each layer of ``reference.outputs``, in the order in which they run.
    """
    inputs = fed_inputs(reference, pictures)
    layers = slim_layers(reference.student)
    order = _order(network, pictures[:1])
    found = [one for one in delegate.convolutions if one.integer]
    checks = []
    for place, module in enumerate(order):
        name = module.name
        shift = reference.shifts[name].view(1, -1, 1, 1)
        grid = reference.outputs[name]
        expected = grid.codes(exact_output(reference.student, name, layers[name], inputs[name]) + shift)
        codes = None
        if len(found) == len(order):
            codes = _codes(delegate, found[place], module, inputs[name])
        if codes is None or codes.shape != expected.shape:
            checks.append(LayerCheck(name, expected.numel(), 1.0, 255, 1.0))
            continue
        difference = (codes - expected.short()).abs()
        share = float((difference > 0).double().mean())
        checks.append(LayerCheck(name, difference.numel(), share, int(difference.max()), 0.0))
    return checks


def check_constants(delegate: Delegate, network: nn.Module, image_px: int) -> list[str]:
    """Names of the float tensors of the network's graph that the file should hold as they are, and does not.

    Among them are the steps by which bytes are read back, and what norms have.
    """
    program = plain_graph(network, image_px)
    held = {content.rstrip(b"\0") for content in delegate.constants}  # some end in padding
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    signature = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    tensors = {name: program.state_dict[name] for node, name in signature.items() if node in used}
    codes = set(_whole_numbers(network))
    missing = []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numpy().tobytes() in codes:
            continue
        forms = [tensor, *([tensor.permute(0, 2, 3, 1)] if tensor.dim() == 4 else [])]
        if not any(form.contiguous().numpy().tobytes().rstrip(b"\0") in held for form in forms):
            missing.append(name)
    return missing


def _whole_numbers(network: nn.Module) -> list[bytes]:
    """Biases, which a file holds as whole numbers and ``check_convolutions`` proves."""
    return [module.bias.numpy().tobytes() for module in network.modules() if isinstance(module, IntegerConv2d)]


def _order(network: nn.Module, picture: Tensor) -> list[IntegerConv2d]:
    """The integer convolutions in the order in which they run."""
    order: list[IntegerConv2d] = []
    handles = [
        module.register_forward_pre_hook(lambda module, inputs: order.append(module))
        for module in network.modules()
        if isinstance(module, IntegerConv2d)
    ]
    try:
        network(picture)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _codes(delegate: Delegate, convolution: Convolution, module: IntegerConv2d, x: Tensor) -> Tensor | None:
    """The unsigned codes of a layer's output; None where the file's convolution reads something else."""
    grid: InputGrid = module.input
    x = x + 1.0 if grid.pixels else x.clamp((grid.low - grid.zero) * grid.scale, (grid.high - grid.zero) * grid.scale)
    height, width = convolution.input_shape[1:3]
    if tuple(x.shape[2:]) != (height, width):
        x = F.pad(x, module.pads)
    if tuple(x.shape[1:]) != (convolution.input_shape[3], height, width):
        return None
    codes = delegate.run(convolution, x) - LOW
    if module.factor > 1:
        codes = F.pixel_shuffle(codes, module.factor)
    rows, columns = module.excess
    return codes[:, :, : codes.shape[2] - rows, : codes.shape[3] - columns]

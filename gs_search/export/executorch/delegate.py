"""What an ExecuTorch file holds: the graph of its one delegate read back, and single convolutions of it run alone.

XNNPACK's part of a ``.pte`` is a flatbuffer of nodes and values beside named constants. It is read with classes that
flatc makes from ExecuTorch's own schema, changed, and put back into a file that ExecuTorch's runtime runs. The layout
is ExecuTorch's own business: the extra ``mobile`` holds its minor version.
"""

from __future__ import annotations

import copy
import functools
import importlib.resources
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import flatbuffers
import torch
from executorch.backends.xnnpack import serialization
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _pad_to
from executorch.exir._serialize._flatbuffer import _run_flatc
from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import DelegateCall, KernelCall
from torch import Tensor

from gs_search.export.executorch.program import Network

__all__ = ["Convolution", "Delegate"]

METHOD = "forward"

BACKEND = "XnnpackBackend"

ALIGNMENT = 16
"""Bytes to which the parts of XNNPACK's blob are aligned."""

NO_VALUE = 2**32 - 1

INPUT_FLAG, OUTPUT_FLAG = 1, 2

UNIONS = ("XNodeUnion", "XValueUnion", "XNNQuantParams")


@dataclass(frozen=True)
class Convolution:
    """A convolution of the delegate's graph.

    Attributes:
        call: which of the delegates holds it.
        integer: whether it reads and writes bytes.
        input_shape, output_shape: N x H x W x C.
        scale, zero: of its output, codes being signed.
    """

    node: Any
    call: int
    integer: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    scale: float
    zero: int


class Delegate:
    """A file, taken apart.

    Attributes:
        delegates: names of the backends that it calls, one for each call.
        outside: operators that run outside of them.
        convolutions: in the order in which they run.
    """

    def __init__(self, content: bytes) -> None:
        self._file: PTEFile = deserialize_pte_binary(content)
        self._plan = next(plan for plan in self._file.program.execution_plan if plan.name == METHOD)
        steps = [step.instr_args for chain in self._plan.chains for step in chain.instructions]
        calls = [step.delegate_index for step in steps if isinstance(step, DelegateCall)]
        self.delegates = tuple(self._plan.delegates[index].id for index in calls)
        kernels = [step.op_index for step in steps if isinstance(step, KernelCall)]
        self.outside = tuple(self._plan.operators[index].name for index in kernels)
        own = [call for call, index in enumerate(calls) if self._plan.delegates[index].id == BACKEND]
        self._graphs = {call: self._graph(calls[call]) for call in own}
        self.convolutions = [found for call, graph in self._graphs.items() for found in _convolutions(graph, call)]

    @property
    def constants(self) -> set[bytes]:
        """Contents of all stored tensors."""
        named = self._file.named_data
        return {bytes(buffer.storage) for buffer in self._file.program.constant_buffer} | (
            {bytes(buffer) for buffer in named.buffers} if named is not None else set()
        )

    def run(self, convolution: Convolution, x: Tensor) -> Tensor:
        """The signed codes that a convolution alone makes of 1 x C x H x W floats that it rounds.

        Returns:
            N x C x H x W, int16.
        """
        network = Network(self._cut(convolution))
        pictures = [one.permute(0, 2, 3, 1).contiguous() for one in x.split(1)]
        values = torch.cat([network.run(picture) for picture in pictures]).permute(0, 3, 1, 2)
        return (torch.round(values / convolution.scale) + convolution.zero).to(torch.int16)

    def _graph(self, index: int) -> Any:
        data = self._blob(index)
        start, size = (int.from_bytes(data[part], "little") for part in _HEADER_PARTS)
        return _classes().XNNGraphT.InitFromPackedBuf(data[start : start + size])

    def _blob(self, index: int) -> bytes:
        place = self._plan.delegates[index].processed.index
        return bytes(self._file.program.backend_delegate_data[place].data)

    def _cut(self, convolution: Convolution) -> bytes:
        """A file of a quantization, one convolution with its constants, and a dequantization."""
        graph = copy.copy(self._graphs[convolution.call])
        node = convolution.node.xnodeUnion
        values = {_tensor(value).idOut: value for value in graph.xvalues}
        start, end = max(values) + 1, max(values) + 2
        ends = [
            _float_value(convolution.input_shape, start, 0, INPUT_FLAG),
            _float_value(convolution.output_shape, end, 1, OUTPUT_FLAG),
        ]
        used = (node.input1Id, node.filterId, node.biasId, node.outputId)
        graph.xvalues = [*(values[one] for one in used if one != NO_VALUE), *ends]
        graph.xnodes = [_convert(start, node.input1Id), convolution.node, _convert(node.outputId, end)]
        graph.numExterns, graph.inputIds, graph.outputIds = 2, [start], [end]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(graph.Pack(builder), b"XN01")
        packed = bytes(builder.Output())
        header_bytes = -(-XNNHeader.EXPECTED_LENGTH // ALIGNMENT) * ALIGNMENT
        graph_bytes = -(-len(packed) // ALIGNMENT) * ALIGNMENT
        header = XNNHeader(header_bytes, len(packed), header_bytes + graph_bytes, 0).to_bytes()
        blob = _pad_to(header, header_bytes) + _pad_to(packed, graph_bytes)
        return self._around(blob, convolution)

    def _around(self, blob: bytes, convolution: Convolution) -> bytes:
        """The file with another blob in its delegate, one input and one output."""
        file = copy.deepcopy(self._file)
        plan = next(plan for plan in file.program.execution_plan if plan.name == METHOD)
        steps = [step for chain in plan.chains for step in chain.instructions]
        call = [step for step in steps if isinstance(step.instr_args, DelegateCall)][convolution.call]
        ends = [copy.deepcopy(plan.values[plan.inputs[0]]), copy.deepcopy(plan.values[plan.outputs[0]])]
        offset = 0
        for value, shape in zip(ends, (convolution.input_shape, convolution.output_shape), strict=True):
            value.val.sizes, value.val.dim_order = list(shape), list(range(len(shape)))
            value.val.allocation_info.memory_id = 1
            value.val.allocation_info.memory_offset_low, value.val.allocation_info.memory_offset_high = offset, 0
            offset += -(-4 * torch.Size(shape).numel() // 64) * 64
        call.instr_args.args = [0, 1]
        plan.values, plan.inputs, plan.outputs = ends, [0], [1]
        plan.chains = plan.chains[:1]
        plan.chains[0].instructions = [call]
        plan.non_const_buffer_sizes = [0, offset]
        place = plan.delegates[call.instr_args.delegate_index].processed.index
        file.program.backend_delegate_data[place].data = blob
        file.program.execution_plan = [plan]
        return bytes(serialize_pte_binary(file))


_HEADER_PARTS = (XNNHeader.FLATBUFFER_OFFSET_OFFSET, XNNHeader.FLATBUFFER_SIZE_OFFSET)


def _convolutions(graph: Any, call: int) -> list[Convolution]:
    schema = _classes()
    kinds = {schema.XNodeUnion.XNNConv2d, schema.XNodeUnion.XNNDepthwiseConv2d}
    values = {_tensor(value).idOut: value for value in graph.xvalues}
    found = []
    for node in graph.xnodes:
        if node.xnodeUnionType not in kinds:
            continue
        ends = [values[one] for one in (node.xnodeUnion.input1Id, node.xnodeUnion.outputId)]
        integer = all(value.xvalueUnionType == schema.XValueUnion.XNNQuantizedTensorValue for value in ends)
        shapes = [tuple(int(side) for side in _tensor(value).dims) for value in ends]
        steps = ends[1].xvalueUnion.quantParams if integer else None
        found.append(
            Convolution(
                node=node,
                call=call,
                integer=integer,
                input_shape=shapes[0],
                output_shape=shapes[1],
                scale=float(steps.scale) if steps is not None else 1.0,
                zero=int(steps.zeroPoint) if steps is not None else 0,
            )
        )
    return found


def _tensor(value: Any) -> Any:
    """The tensor of a value, quantized or not."""
    return getattr(value.xvalueUnion, "tensorValue", value.xvalueUnion)


def _float_value(shape: tuple[int, ...], number: int, external: int, flags: int) -> Any:
    schema = _classes()
    value, tensor = schema.XValueT(), schema.XNNTensorValueT()
    tensor.datatype, tensor.numDims, tensor.dims = schema.XNNDatatype.xnn_datatype_fp32, len(shape), list(shape)
    tensor.constantBufferIdx, tensor.externalId, tensor.flags, tensor.idOut = 0, external, flags, number
    value.xvalueUnionType, value.xvalueUnion = schema.XValueUnion.XNNTensorValue, tensor
    return value


def _convert(source: int, target: int) -> Any:
    schema = _classes()
    node = schema.XNodeT()
    made = schema._XNNNode1x1T()
    made.inputId, made.outputId, made.flags = source, target, 0
    node.xnodeUnionType, node.xnodeUnion = schema.XNodeUnion.XNNConvert, made
    return node


@functools.cache
def _classes() -> ModuleType:
    """Classes for XNNPACK's flatbuffer, which flatc writes from ExecuTorch's schema."""
    with tempfile.TemporaryDirectory() as place:
        with importlib.resources.as_file(importlib.resources.files(serialization) / "schema.fbs") as schema:
            _run_flatc(["--python", "--gen-object-api", "--gen-onefile", "-o", place, str(schema)])
        path = Path(place) / "schema_generated.py"
        spec = importlib.util.spec_from_file_location("gs_search.export._xnnpack_schema", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    # flatc calls them by one spelling and defines them in another.
    for union in UNIONS:
        own = next(name for name in vars(module) if name.lower() == f"{union}Creator".lower())
        setattr(module, f"{union}Creator", getattr(module, own))
    return module

"""The same sums on every x86: products of bytes, two by two in 16 bits as processors without VNNI add them up."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
from onnx import NodeProto, TensorProto, helper, numpy_helper  # noqa: E402

from gs_search.export.onnx import proof  # noqa: E402
from gs_search.export.onnx.float_graph import INPUT  # noqa: E402
from gs_search.export.onnx.proof import check_graph  # noqa: E402
from gs_search.export.onnx.runtime import optimized_graph, session  # noqa: E402
from tests.export.conftest import Exported  # noqa: E402
from tests.export.students import PX, pictures  # noqa: E402


def saturating_sums(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What ``vpmaddubsw``, ``vpmaddwd`` and ``vpaddd`` make of M x K unsigned and O x K signed bytes: M x O."""
    pad = -x.shape[1] % 4
    x, weight = (np.pad(a.astype(np.int64), ((0, 0), (0, pad))) for a in (x, weight))
    total = np.zeros((len(x), len(weight)), np.int64)
    for first in range(0, x.shape[1], 2):
        pair = x[:, first : first + 2] @ weight[:, first : first + 2].T
        total += pair.clip(-(1 << 15), (1 << 15) - 1)
    return total


@dataclass(frozen=True)
class Ran:
    """A convolution of the graph that runs, with the bytes that it read and wrote on one picture.

    Attributes:
        x: M x K, places by inputs, in MLAS' order: places of the kernel, and in each of them the channels.
        weight: O x K, signed codes.
        y: M x O.
    """

    name: str
    unsigned: bool
    channels: int
    x: np.ndarray
    weight: np.ndarray
    zero: int
    bias: np.ndarray
    scale: np.ndarray
    out_zero: int
    y: np.ndarray

    def codes(self, sums: np.ndarray) -> np.ndarray:
        sums = sums - self.zero * self.weight.astype(np.int64).sum(axis=1) + self.bias
        scaled = sums.astype(np.float32) * self.scale
        return (np.rint(scaled) + self.out_zero).clip(0, 255).astype(np.uint8)

    def orders(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As one matrix product takes its inputs, and as a kernel does that fills up each place to four channels."""
        yield self.x, self.weight
        fill = ((0, 0), (0, 0), (0, -self.channels % 4))
        filled = [np.pad(a.reshape(len(a), -1, self.channels), fill) for a in (self.x, self.weight)]
        yield filled[0].reshape(len(self.x), -1), filled[1].reshape(len(self.weight), -1)


def attributes(node: NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def ran(path: Path, x: torch.Tensor) -> list[Ran]:
    """All convolutions in whole numbers, on one picture."""
    graph = optimized_graph(path)
    convs = [node for node in graph.node if node.op_type == "QLinearConv"]
    values = list(dict.fromkeys(value for conv in convs for value in (conv.input[0], conv.output[0])))
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(value, TensorProto.UINT8, None) for value in values)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = session(model.SerializeToString(), simulate=True).run(values, {INPUT: x.numpy()})
    held = dict(zip(values, found, strict=True))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = []
    for conv in convs:
        told = attributes(conv)
        read, written = (torch.from_numpy(held[value]).float() for value in (conv.input[0], conv.output[0]))
        if told.get("channels_last"):
            read, written = read.permute(0, 3, 1, 2), written.permute(0, 3, 1, 2)
        weight, zero = tensors[conv.input[3]].astype(np.int16), int(tensors[conv.input[2]])
        unsigned = tensors[conv.input[3]].dtype == np.uint8
        signed = (weight - 128 if unsigned else weight).astype(np.int8)
        top, left, bottom, right = told.get("pads", (0, 0, 0, 0))  # type: ignore[misc]
        padded = F.pad(read, (left, right, top, bottom), value=zero)
        kernel = signed.shape[2:]
        columns = F.unfold(padded, kernel, stride=told.get("strides", 1))  # type: ignore[arg-type]
        by_place = columns[0].view(read.shape[1], -1, columns.shape[2]).transpose(0, 1).flatten(0, 1).T
        layers.append(
            Ran(
                name=conv.name.partition("_token_")[0],
                unsigned=unsigned,
                channels=signed.shape[1],
                x=by_place.numpy().astype(np.uint8),
                weight=signed.reshape(*signed.shape[:2], -1).transpose(0, 2, 1).reshape(len(signed), -1),
                zero=zero,
                bias=tensors[conv.input[8]].astype(np.int64),
                scale=tensors[conv.input[1]] * tensors[conv.input[4]] / tensors[conv.input[6]],
                out_zero=int(tensors[conv.input[7]]),
                y=written[0].flatten(1).T.numpy().astype(np.uint8),
            )
        )
    return layers


def test_sums_are_the_same_without_vnni(exported: Exported) -> None:
    """On a white picture and a drawn one; the layers that were stored unsigned are those that would have been wrong."""
    graph = check_graph(exported.path)
    assert graph.unsigned == ("stem.1", "head.1") and graph.saturating == ()
    wrong = set()
    for x in (torch.ones(1, 3, PX, PX), pictures(1)):
        for layer in ran(exported.path, x):
            exact = layer.x.astype(np.int64) @ layer.weight.astype(np.int64).T
            codes = layer.codes(exact)
            assert (np.abs(codes.astype(int) - layer.y) > 0).mean() < 5e-4, "the sums are those of the runtime"
            for inputs, weight in layer.orders():
                sums = saturating_sums(inputs, weight)
                if layer.unsigned:
                    off = layer.codes(sums) != codes
                    wrong |= {layer.name} if off.mean() > proof.SHARE else set()
                else:
                    assert np.array_equal(sums, exact), layer.name
    assert "stem.1" in wrong, "or the test would prove nothing"


def test_weights_that_could_saturate_are_found(exported: Exported, tmp_path: Path) -> None:
    """The same file with signed bytes throughout is refused on every machine, whatever that one computes."""
    model = copy.deepcopy(exported.built.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {value: node for node in model.graph.node for value in node.output}
    for conv in (node for node in model.graph.node if node.op_type == "Conv" and node.name in ("stem.1", "head.1")):
        read = made_by[conv.input[1]]
        value, pads = read.input[0], []
        while value not in tensors:
            pads += [made_by[value]] if made_by[value].op_type == "Pad" else []
            value = made_by[value].input[0]
        if tensors[value].data_type == TensorProto.UINT8:
            codes = (numpy_helper.to_array(tensors[value]).astype(np.int16) - 128).astype(np.int8)
            tensors[value].CopyFrom(numpy_helper.from_array(codes, value))
        for node in (read, *pads):
            del node.input[2:]
    path = tmp_path / "signed.onnx"
    onnx.save(model, path)
    graph = check_graph(path)
    assert (graph.unsigned, graph.saturating) == ((), ("stem.1", "head.1"))

"""How the convolutions of a float graph are wired: what each really reads, who reads what it hands on.

From this follows where rounding costs nothing: before a pad, which puts in mirrored values or zeros; before a ReLU, for
unsigned codes end at 0; and between two convolutions only once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper, numpy_helper

from gs_search.errors import UnsupportedNetwork
from gs_search.export.lowering import IntegerLayer

__all__ = ["Roles", "Wiring", "roles"]


@dataclass(frozen=True)
class Roles:
    """What the graph says about the layers' outputs.

    Attributes:
        direct: layer to the layers that alone read its output, all on one grid: theirs is its output's.
        centred: layers whose output is read by instance norms alone, which take off constants.
    """

    direct: Mapping[str, tuple[str, ...]]
    centred: frozenset[str]


class Wiring:
    """Who makes and who reads each value of a graph."""

    def __init__(self, model: ModelProto, layers: Collection[IntegerLayer]) -> None:
        self.model = model
        self.made_by = {name: node for node in model.graph.node for name in node.output}
        self.read_by: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.read_by.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        by_weight = {layer.weight_name: layer for layer in layers}
        self.layer_of = {
            node.output[0]: by_weight[node.input[1]]
            for node in model.graph.node
            if node.op_type == "Conv" and node.input[1] in by_weight
        }
        """Output value of a convolution to its layer."""

    def source(self, conv: NodeProto) -> tuple[str, list[NodeProto]]:
        """The value that a convolution reads, before pads and a ReLU that unsigned codes make needless; the pads."""
        grid, value = self.layer_of[conv.output[0]].input, conv.input[0]
        pads: list[NodeProto] = []
        while (node := self.made_by.get(value)) is not None and node.op_type == "Pad" and self._keeps_zero(node):
            pads.insert(0, node)
            value = node.input[0]
        if node is not None and node.op_type == "Relu" and grid.zero == 0 and not grid.pixels:
            value = node.input[0]
        return value, pads

    def result(self, conv: NodeProto) -> tuple[str, NodeProto | None]:
        """What a layer hands on: the output of its convolution, or of the depth-to-space behind it."""
        value = conv.output[0]
        if self.layer_of[value].factor == 1:
            return value, None
        (node,) = self.read_by[value]
        assert node.op_type == "DepthToSpace", node.op_type
        return node.output[0], node

    def readers(self, value: str) -> list[NodeProto] | None:
        """The integer convolutions that alone read a value, through pads and ReLUs; None where others do too."""
        found: list[NodeProto] = []
        if value in self.outputs:
            return None
        for node in self.read_by.get(value, []):
            if node.op_type == "Conv" and node.output[0] in self.layer_of:
                found.append(node)
            elif node.op_type == "Relu" or (node.op_type == "Pad" and self._keeps_zero(node)):
                further = self.readers(node.output[0])
                if further is None:
                    return None
                found += further
            else:
                return None
        return found

    def _keeps_zero(self, pad: NodeProto) -> bool:
        """Whether a pad puts in mirrored values or zeros."""
        mode = next((helper.get_attribute_value(a) for a in pad.attribute if a.name == "mode"), b"constant")
        if mode != b"constant" or len(pad.input) < 3 or not pad.input[2]:
            return True
        constant = self.constants.get(pad.input[2])
        return constant is not None and not numpy_helper.to_array(constant).any()


def roles(model: ModelProto, layers: list[IntegerLayer], own_outputs: Collection[str]) -> Roles:
    """Read from a float graph which outputs need a grid, and of which kind.

    Args:
        layers: the convolutions that are to become integer ones.
        own_outputs: layers with a trained quantizer of their output, which stays.

    Raises:
        UnsupportedNetwork: a layer runs more than once, and so would need several grids.
    """
    graph = Wiring(model, layers)
    runs = Counter(layer.name for layer in graph.layer_of.values())
    if again := [name for name, times in runs.items() if times > 1]:
        raise UnsupportedNetwork(
            f"layer {again[0]} runs {runs[again[0]]} times in the network, which integer files do not hold; take "
            "--format onnx-float, or give each use a module of its own"
        )
    direct: dict[str, tuple[str, ...]] = {}
    centred: set[str] = set()
    for node in model.graph.node:
        layer = graph.layer_of.get(node.output[0]) if node.op_type == "Conv" else None
        if layer is None:
            continue
        value, _ = graph.result(node)
        readers = graph.readers(value)
        if readers and layer.name not in own_outputs:
            following = [graph.layer_of[reader.output[0]] for reader in readers]
            same_value = all(graph.source(reader)[0] == value for reader in readers)
            if same_value and len({other.input for other in following}) == 1:
                direct[layer.name] = tuple(other.name for other in following)
        consumers = graph.read_by.get(value, [])
        if consumers and all(one.op_type == "InstanceNormalization" for one in consumers):
            centred.add(layer.name)
    return Roles(direct, frozenset(centred))

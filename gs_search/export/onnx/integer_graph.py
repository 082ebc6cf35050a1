"""From the float graph to the one that ONNX Runtime runs in whole numbers: codes and trained scales put in.

Each convolution becomes quantize - pad - dequantize - convolution - quantize - dequantize, which the runtime fuses to
one ``QLinearConv``. Its input is rounded before it is padded, so that bytes are padded, and a ReLU before that
vanishes, for unsigned codes end at 0. A convolution that feeds others only is rounded once, to their grid. Else each
channel of its output has a step of its own, which goes into the weight's scale, so that the runtime rounds to whole
numbers; the bytes are dealt out to sub-pixels, and read back with one scale for each channel, exactly.

Weights are signed bytes where no two products of a layer can exceed 16 bits, else unsigned ones: ONNX Runtime's kernels
for signed ones saturate on x86 processors without VNNI, and a file must not depend on the machine.

Weights of up to 4 bits are stored as 4-bit tensors, and kernels of sub-pixel form without their zeros; the runtime
widens and deals them out when it loads the file. Each convolution is named as its layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gs_search.errors import UnsupportedNetwork
from gs_search.export.grids import InputGrid
from gs_search.export.lowering import MIDDLE, IntegerLayer
from gs_search.export.onnx.wiring import Wiring
from gs_search.export.subpixel import Taps
from gs_search.slimming.output_quantizer import OutputGrid

__all__ = ["integer_graph"]

NARROW = 4
"""Widest bits that are stored two in a byte."""

SCALAR = {
    "Add", "AveragePool", "Concat", "Div", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax", "Sub",
}  # fmt: skip
"""What ONNX Runtime runs in whole numbers between two roundings, with one scale for all channels."""


def integer_graph(
    model: ModelProto, layers: list[IntegerLayer], outputs: Mapping[str, OutputGrid], vnni: bool = False
) -> ModelProto:
    """Return the graph in which ``layers`` are integer convolutions.

    Args:
        model: the float graph of the lowered network, in sub-pixel form; is left as it was.
        outputs: grid of every layer's output that is not ``Roles.direct``.
        vnni: store all weights signed, for processors on which sums do not saturate.
    """
    return _Writer(model, layers, outputs, vnni).write()


class _Writer:
    def __init__(
        self, model: ModelProto, layers: list[IntegerLayer], outputs: Mapping[str, OutputGrid], vnni: bool
    ) -> None:
        self.vnni = vnni
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.graph, self.outputs = Wiring(self.model, layers), outputs
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}
        self.bytes_of: dict[tuple[str, InputGrid], str] = {}
        """A float value on a grid, to the name of its codes."""

    def write(self) -> ModelProto:
        dealt = set()
        for node in self.model.graph.node:
            if node.op_type == "Conv" and node.output[0] in self.graph.layer_of:
                value, shuffle = self.graph.result(node)
                if shuffle is not None:
                    dealt.add(shuffle.output[0])
                self._convolution(node, value, shuffle)
            elif not (node.op_type == "DepthToSpace" and node.output[0] in dealt):
                self.nodes.append(node)
        self.nodes = self._guarded()
        del self.model.graph.node[:]
        self.model.graph.node.extend(_alive(self.nodes, self.graph.outputs))
        used = {name for node in self.model.graph.node for name in node.input}
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend([*kept, *(t for t in self.tensors.values() if t.name in used)])
        self._shorten({tensor.name for tensor in kept})
        onnx.checker.check_model(self.model, full_check=True)
        return self.model

    def _guarded(self) -> list[NodeProto]:
        """All nodes, with an operator that changes nothing where ONNX Runtime would else run one in whole numbers that
        can have one scale alone (``SCALAR``), but reads what has one for each channel: it refuses such a file.
        """
        made_by = {name: node for node in self.nodes for name in node.output}
        rounded = {node.input[0] for node in self.nodes if node.op_type == "QuantizeLinear"}
        by_channel = {
            node.output[0]
            for node in self.nodes
            if node.op_type == "DequantizeLinear" and len(self.tensors[node.input[1]].dims) == 1
        }
        found = []
        for node in self.nodes:
            if node.op_type in SCALAR and rounded & set(node.output):
                read = [name for name in node.input if name in made_by]
                channels = [name for name in read if name in by_channel]
                if channels and all(made_by[name].op_type == "DequantizeLinear" for name in read):
                    lowest = self._scalar("lowest", np.finfo(np.float32).min)
                    found.append(helper.make_node("Max", [channels[0], lowest], [f"{node.output[0]}/guarded"]))
                    node.input[list(node.input).index(channels[0])] = f"{node.output[0]}/guarded"
            found.append(node)
        return found

    def _shorten(self, kept: set[str]) -> None:
        """Give inner values and tensors names of a few letters: speaking ones are a sixth of a small network's file."""
        graph = self.model.graph
        kept = kept | {"", *self.graph.outputs, *(value.name for value in graph.input)}
        short: dict[str, str] = {}

        def name(old: str) -> str:
            return old if old in kept else short.setdefault(old, format(len(short), "x"))

        for tensor in graph.initializer:
            tensor.name = name(tensor.name)
        for node in graph.node:
            node.input[:] = [name(old) for old in node.input]
            node.output[:] = [name(old) for old in node.output]
            if node.op_type != "Conv":
                node.name = ""

    def _convolution(self, node: NodeProto, value: str, shuffle: NodeProto | None) -> None:
        layer = self.graph.layer_of[node.output[0]]
        name, grid = layer.name, layer.input
        conv = NodeProto()
        conv.CopyFrom(node)
        conv.name = name
        source, pads = self.graph.source(node)
        scale, zero = self._scalar(f"{name}.in", np.float32(grid.scale)), self._zero(grid.zero)
        codes = self._entry(source, grid, name, scale, zero)
        for index, pad in enumerate(pads):
            codes = self._pad(pad, codes, f"{name}/padded{index or ''}", zero)
        self._add("DequantizeLinear", [codes, scale, zero], f"{name}/input")

        rounding = self.outputs.get(name)
        if rounding is None:
            target = self.graph.layer_of[self.graph.readers(value)[0].output[0]].input  # type: ignore[index]
            out_scale, out_zero = self._scalar(f"{name}.out", np.float32(target.scale)), self._zero(target.zero)
        else:
            out_scale, out_zero = self._scalar("one", np.float32(1)), self._zero(MIDDLE)
        sums = layer.sums(rounding)
        weight = self._weight(layer, sums.steps)
        bias = self._add(
            "DequantizeLinear",
            [self._tensor(f"{name}.sums", sums.bias), self._tensor(f"{name}.unit", sums.unit)],
            f"{name}/bias",
            axis=0,
        )
        conv.input[:] = [f"{name}/input", weight, bias]
        conv.output[:] = [f"{name}/sum"]
        self.nodes.append(conv)

        last = f"{name}/codes"
        self._add("QuantizeLinear", [f"{name}/sum", out_scale, out_zero], f"{name}/packed" if shuffle else last)
        if shuffle is not None:
            dealt = NodeProto()
            dealt.CopyFrom(shuffle)
            dealt.input[:], dealt.output[:] = [f"{name}/packed"], [last]
            self.nodes.append(dealt)
        if rounding is None:
            self.bytes_of[value, target] = self._clip(target, last, name)
        else:
            self._read_back(rounding, last, value, name)

    def _entry(self, source: str, grid: InputGrid, name: str, scale: str, zero: str) -> str:
        """The codes of what a layer reads, made where nobody has made them yet."""
        if (source, grid) not in self.bytes_of:
            if grid.pixels:
                self._check_picture(source, name)
                self._add("Add", [source, self._scalar("one", np.float32(1))], f"{name}/raised")
            start = f"{name}/raised" if grid.pixels else source
            codes = self._add("QuantizeLinear", [start, scale, zero], f"{name}/entry")
            self.bytes_of[source, grid] = self._clip(grid, codes, f"{name}/entry")
        return self.bytes_of[source, grid]

    def _clip(self, grid: InputGrid, codes: str, name: str) -> str:
        """Codes of fewer than 8 bits end before bytes do."""
        if (grid.low, grid.high) == (0, 255):
            return codes
        low = "" if grid.low == 0 else self._zero(grid.low)
        return self._add("Clip", [codes, low, self._zero(grid.high)], f"{name}/clipped")

    def _pad(self, pad: NodeProto, codes: str, output: str, zero: str) -> str:
        new = NodeProto()
        new.CopyFrom(pad)
        mirrored = any(a.name == "mode" and helper.get_attribute_value(a) != b"constant" for a in pad.attribute)
        rest = list(pad.input[3:])
        new.input[:] = (
            [codes, pad.input[1], *(["", *rest] if rest else [])] if mirrored else [codes, pad.input[1], zero, *rest]
        )
        new.output[:] = [output]
        new.name = ""
        self.nodes.append(new)
        return output

    def _read_back(self, grid: OutputGrid, codes: str, value: str, name: str) -> None:
        """Bytes to the float value that everything else in the graph reads."""
        zeros = grid.zero.numpy()
        inside = bool(((zeros >= 0) & (zeros <= 255)).all())
        # Where a norm takes off constants, any code of zero does.
        zeros = zeros if inside else np.full_like(zeros, MIDDLE)
        step = self._tensor(f"{name}.step", grid.step.numpy().astype(np.float32))
        zero = self._tensor(f"{name}.zero" if inside else f"bytes{MIDDLE}x{len(zeros)}", zeros.astype(np.uint8))
        node = helper.make_node("DequantizeLinear", [codes, step, zero], [value], axis=1)
        self.nodes.append(node)

    def _weight(self, layer: IntegerLayer, steps: np.ndarray) -> str:
        """The codes as they are stored, widened and dealt out to sub-pixels when the runtime loads them.

        Signed ones that could saturate are stored unsigned, with 128 as the code of zero: kernels for those widen to 16
        bits before they multiply, on every processor.
        """
        name = layer.name
        codes, unsigned = f"{name}.codes", layer.may_saturate and not self.vnni
        if layer.bits <= NARROW:
            self.tensors[codes] = helper.make_tensor(codes, TensorProto.INT4, layer.kernel.shape, layer.kernel.ravel())
            codes = self._add("Cast", [codes], f"{name}/wide", to=TensorProto.INT8)
        elif unsigned:
            self._tensor(codes, (layer.kernel.astype(np.int16) + MIDDLE).astype(np.uint8))
        else:
            self._tensor(codes, layer.kernel)
        if layer.taps is not None:
            codes = self._deal(layer.taps, codes, layer.kernel.shape, name, [self._zero(MIDDLE)] if unsigned else [])
        scale = self._tensor(f"{name}.scale", steps)
        zeros = [self._tensor(f"bytes{MIDDLE}x{len(steps)}", np.full(len(steps), MIDDLE, np.uint8))] if unsigned else []
        return self._add("DequantizeLinear", [codes, scale, *zeros], f"{name}/weight", axis=0)

    def _deal(self, taps: Taps, codes: str, shape: tuple[int, ...], name: str, zero: list[str]) -> str:
        """``Taps.deal`` in operators: the taps of each phase, gathered from a kernel that ends in a row of zeros.

        Args:
            zero: name of the code of zero, none if that is 0.
        """
        outputs, inputs, *kernel = shape
        edge = self._integers([0, 0, 0, 0, 0, 0, 1, 1])
        padded = self._add("Pad", [codes, edge, *zero], f"{name}/edged")
        phases = []
        for y, row in enumerate(taps.rows):
            rows = self._add("Gather", [padded, self._places(row, kernel[0])], f"{name}/rows{y}", axis=2)
            for x, column in enumerate(taps.columns):
                place = f"{name}/phase{y}-{x}"
                phases.append(self._add("Gather", [rows, self._places(column, kernel[1])], place, axis=3))
        joined = self._add("Concat", phases, f"{name}/phases", axis=1)
        dealt = [outputs * taps.factor**2, inputs, len(taps.rows[0]), len(taps.columns[0])]
        return self._add("Reshape", [joined, self._integers(dealt)], f"{name}/dealt")

    def _places(self, taps: tuple[int, ...], zeros: int) -> str:
        return self._integers([zeros if tap < 0 else tap for tap in taps])

    def _integers(self, values: list[int]) -> str:
        return self._tensor("whole" + "_".join(map(str, values)), np.array(values, np.int64))

    def _check_picture(self, source: str, name: str) -> None:
        """Bytes stand for pixels only where nothing has been computed yet."""
        value = source
        while (node := self.graph.made_by.get(value)) is not None and node.op_type in ("Slice", "Gather", "Identity"):
            value = node.input[0]
        if value != self.model.graph.input[0].name:
            raise UnsupportedNetwork(f"layer {name}: has no range for its input, which is not the picture itself")

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        node = helper.make_node(kind, inputs, [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return output

    def _tensor(self, name: str, values: np.ndarray) -> str:
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _scalar(self, name: str, value: np.generic) -> str:
        # Not through _tensor: ascontiguousarray would make it a vector of one.
        self.tensors[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _zero(self, code: int) -> str:
        return self._scalar(f"byte{code}", np.uint8(code))


def _alive(nodes: list[NodeProto], outputs: Collection[str]) -> list[NodeProto]:
    """The nodes that lead to the graph's outputs, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]

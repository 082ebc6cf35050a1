"""The student in whole numbers as a torch network, and its graph in plain operators: both are the student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="the extra 'export' is not installed")
from gs_search.errors import UnsupportedNetwork  # noqa: E402
from gs_search.export.executorch.plain_graph import plain_graph  # noqa: E402
from gs_search.export.integer_network import IntegerConv2d, integer_network, round_to  # noqa: E402
from gs_search.export.lowering import integer_layers  # noqa: E402
from gs_search.measure.psnr import psnr  # noqa: E402
from tests.export.conftest import Exported  # noqa: E402
from tests.export.students import PX, pictures  # noqa: E402


def kinds(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def test_it_computes_what_the_student_on_its_grids_computes(exported: Exported) -> None:
    """Torch's own rounding operators, with 4-bit weights and 6-bit inputs, against the student's quantizers."""
    built = exported.built
    layers = integer_layers(built.reference.student, built.lowered)
    network = integer_network(built.lowered, layers, built.reference.outputs)
    assert len([m for m in network.modules() if isinstance(m, IntegerConv2d)]) == len(layers) == 12
    x = pictures(2)
    with torch.no_grad(), built.reference.on_grids() as student:
        assert psnr(network(x), student(x)) > 60
    program = plain_graph(network, PX)
    found = kinds(program)
    assert not [kind for kind in found if any(word in kind for word in ("norm", "reflection", "flip", "shuffle"))]
    with torch.no_grad():
        assert psnr(program.module()(x[:1]), network(x[:1])) > 60


def test_rounding_moves_bytes_and_not_floats() -> None:
    """Mirrored margins around a ReLU: it is rounded first, and once for both readers."""

    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padded = nn.functional.pad(torch.relu(x), (1, 2, 0, 1), mode="reflect")
            return round_to(padded, 0.01, -128) + round_to(round_to(padded, 0.01, -128), 0.01, -128)

    program = plain_graph(Two(), 8)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(program.module()(x), Two()(x))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.relu.default" not in names, "unsigned codes end at 0"
    assert names[0] == "quantized_decomposed.quantize_per_tensor.default"


@pytest.mark.parametrize("affine", [True, False])
def test_norms_are_written_out(affine: bool) -> None:
    norm = nn.Sequential(nn.InstanceNorm2d(3, affine=affine, eps=0.1))
    if affine:
        nn.init.uniform_(norm[0].weight), nn.init.normal_(norm[0].bias)
    program = plain_graph(norm.eval(), 8)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), norm(x))
    assert not [kind for kind in kinds(program) if "norm" in kind]


def test_steps_before_a_norm_go_into_its_epsilon() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(3, affine=True, eps=0.1)
            self.register_buffer("step", torch.tensor([0.1, 1.0, 30.0]).view(1, 3, 1, 1))
            self.register_buffer("shift", torch.tensor([-1.0, 0.0, 5.0]).view(1, 3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x.sigmoid() * self.step + self.shift)

    network = Scaled().eval()
    program = plain_graph(network, 8)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-5)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names[:2] == ["aten.sigmoid.default", "aten.mean.dim"]


def test_other_paddings_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="circular|replicat"):
        plain_graph(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")).eval(), 8)

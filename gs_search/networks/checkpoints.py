"""Reading generators from files: our safetensors and the releases of the original authors.

Which layouts are known stands in ``layouts``. Foreign files are opened with ``weights_only=True`` and nothing
else: there is no fallback that could run code.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import Architecture, build
from gs_search.networks.layouts import Tensors, describe_shape, translate

__all__ = ["load_generator", "read_tensors"]

WRAPPERS = ("state_dict", "model_state_dict", "generator", "netG", "G", "model", "params_ema", "params")
"""Keys under which training scripts bury the state dict."""


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Read all tensors of a file, and its text metadata (empty for other files than safetensors).

    Raises:
        CheckpointError: missing, truncated, not a file of tensors, or one that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pth, .pt or .safetensors file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a complete safetensors file ({_brief(error)})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd pickles; what they lead to is reported below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "weights_only" in str(error):
            raise CheckpointError(
                f"{path}: refused, because opening it would run code stored in it; "
                "save the generator's state_dict alone, best as .safetensors"
            ) from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint ({_brief(error)})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: damaged or truncated checkpoint ({_brief(error)})") from None
    return _unwrap(content, path), {}


def load_generator(path: Path, architecture: str = "auto") -> tuple[nn.Module, Architecture]:
    """Load a generator of a known architecture, taking RGB pictures in [-1, 1].

    Args:
        path: ``.safetensors`` or ``.pth``.
        architecture: a name of ``ARCHITECTURES`` that the file must hold, or ``auto``.

    Raises:
        CheckpointError: the file cannot be read, holds another architecture, or has weights that are not finite.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if "architecture" in metadata:
        found, converted = Architecture.from_json(json.loads(metadata["architecture"])), tensors
    else:
        found, converted = translate(tensors, path)
    if architecture not in ("auto", found.name):
        article = "an" if found.name[0] in "aeiou" else "a"
        raise CheckpointError(f"{path}: holds {article} {found.name} generator, but the study says {architecture}")
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity; the checkpoint is useless")
    generator = build(found)
    _fit(generator, converted, path)
    return generator.eval(), found


def _fit(generator: nn.Module, tensors: Tensors, path: Path) -> None:
    # How many batches a norm has seen is not in old files, and matters to none of these networks.
    wanted = {n: tensor for n, tensor in generator.state_dict().items() if not n.endswith("num_batches_tracked")}
    for name in wanted:
        if name not in tensors:
            raise CheckpointError(f"{path}: incomplete checkpoint, tensor {name} is missing")
        if wanted[name].shape != tensors[name].shape:
            found, needed = describe_shape(tensors[name]), describe_shape(wanted[name])
            raise CheckpointError(f"{path}: tensor {name} is {found}, this architecture needs {needed}")
    for name in tensors:
        if name not in wanted and not name.endswith("num_batches_tracked"):
            raise CheckpointError(f"{path}: tensor {name} does not belong to this architecture")
    generator.load_state_dict({name: tensors[name].to(torch.float32) for name in wanted}, strict=False)


def _unwrap(content: object, path: Path) -> Tensors:
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    raise CheckpointError(f"{path}: no state_dict in it; save the generator's state_dict alone")


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

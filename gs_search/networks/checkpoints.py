"""Reading generators from files: our safetensors and the releases of the original authors.

Layouts known: CycleGAN (``model.1.weight``, ``model.10.conv_block.1.weight``; affine norms or plain ones, with
or without dropout), GAN Slimming's own (the same names), CartoonGAN (``conv01_1.weight``, ``in01_1.scale``).
Foreign files are opened with ``weights_only=True`` and nothing else: there is no fallback that could run code.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.networks.architectures import ARCHITECTURES, Architecture, build

__all__ = ["load_generator", "read_tensors"]

Tensors = dict[str, Tensor]

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
    elif "conv01_1.weight" in tensors:
        found, converted = _from_cartoongan(tensors, path)
    elif "model.1.weight" in tensors:
        found, converted = _from_cyclegan(tensors, path)
    else:
        some = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{path}: not a generator known here (its tensors are {some}, ...); known: {', '.join(ARCHITECTURES)}"
        )
    if architecture not in ("auto", found.name):
        raise CheckpointError(f"{path}: holds a {found.name} generator, but the study says {architecture}")
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity; the checkpoint is useless")
    generator = build(found)
    _fit(generator, converted, path)
    return generator.eval(), found


def _fit(generator: nn.Module, tensors: Tensors, path: Path) -> None:
    wanted = generator.state_dict()
    for name in wanted:
        if name not in tensors:
            raise CheckpointError(f"{path}: incomplete checkpoint, tensor {name} is missing")
        if wanted[name].shape != tensors[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name} is {_shape(tensors[name])}, this architecture needs {_shape(wanted[name])}"
            )
    generator.load_state_dict({name: tensors[name].to(torch.float32) for name in wanted})


def _from_cyclegan(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate ``model.N`` names; N is the index in CycleGAN's one long Sequential."""
    numbers = [int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.(?:conv_)?block\.", name))]
    if not numbers:
        raise CheckpointError(f"{path}: CycleGAN names, but no residual blocks (model.10.conv_block.…)")
    blocks = max(numbers) - 9
    after = 10 + blocks
    places = {1: "stem.1", 2: "stem.2", 4: "down.0", 5: "down.1", 7: "down.3", 8: "down.4"}
    places |= {after: "up.0", after + 1: "up.1", after + 3: "up.3", after + 4: "up.4", after + 7: "head.1"}
    # With dropout, CycleGAN's blocks have one more module before the second convolution.
    dropout = any(re.search(r"block\.7\.|block\.6\.weight", n) and tensors[n].dim() == 4 for n in tensors)
    inner = {1: 1, 2: 2, 6: 5, 7: 6} if dropout else {1: 1, 2: 2, 5: 5, 6: 6}
    converted = {}
    for name, tensor in tensors.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue  # InstanceNorm never used them
        block = re.fullmatch(r"model\.(\d+)\.(?:conv_)?block\.(\d+)\.(weight|bias)", name)
        plain = re.fullmatch(r"model\.(\d+)\.(weight|bias)", name)
        if block and int(block[2]) in inner:
            converted[f"body.{int(block[1]) - 10}.branch.{inner[int(block[2])]}.{block[3]}"] = tensor
        elif plain and int(plain[1]) in places:
            converted[f"{places[int(plain[1])]}.{plain[2]}"] = tensor
        else:
            raise CheckpointError(f"{path}: tensor {name} does not belong to a CycleGAN ResNet generator")
    return _completed(Architecture("cyclegan_resnet", _width(tensors["model.1.weight"], path), blocks), converted)


def _completed(architecture: Architecture, tensors: Tensors) -> tuple[Architecture, Tensors]:
    """Settle ``affine``; where only some norms have scales (GAN Slimming's), give the others 1 and 0."""
    if not any(tensor.dim() == 1 and name.endswith(".weight") for name, tensor in tensors.items()):
        return dataclasses.replace(architecture, affine=False), tensors
    for name, module in build(architecture).named_modules():
        if isinstance(module, nn.InstanceNorm2d) and f"{name}.weight" not in tensors:
            tensors[f"{name}.weight"] = torch.ones(module.num_features)
            tensors[f"{name}.bias"] = torch.zeros(module.num_features)
    return architecture, tensors


def _from_cartoongan(tensors: Tensors, path: Path) -> tuple[Architecture, Tensors]:
    """Translate the authors' names (``conv04_2``, ``in04_2``, ``deconv01_1``)."""
    last = max(int(match[1]) for name in tensors if (match := re.match(r"conv(\d+)_", name)))
    blocks = last - 3
    if blocks < 1:
        raise CheckpointError(f"{path}: CartoonGAN names, but no residual blocks (conv04_1, …)")
    modules = {
        **{"conv01_1": "stem.1", "in01_1": "stem.2", "deconv03_1": "head.1"},
        **{"conv02_1": "down.0", "conv02_2": "down.1", "in02_1": "down.2"},
        **{"conv03_1": "down.4", "conv03_2": "down.5", "in03_1": "down.6"},
        **{"deconv01_1": "up.0", "deconv01_2": "up.1", f"in{last + 1:02d}_1": "up.2"},
        **{"deconv02_1": "up.4", "deconv02_2": "up.5", f"in{last + 2:02d}_1": "up.6"},
    }
    for block in range(blocks):
        number = f"{block + 4:02d}"
        for old, new in (
            (f"conv{number}_1", 1),
            (f"in{number}_1", 2),
            (f"conv{number}_2", 5),
            (f"in{number}_2", 6),
        ):
            modules[old] = f"body.{block}.branch.{new}"
    parameters = {"scale": "weight", "shift": "bias", "weight": "weight", "bias": "bias"}
    converted = {}
    for name, tensor in tensors.items():
        module, _, parameter = name.rpartition(".")
        if module not in modules or parameter not in parameters:
            raise CheckpointError(f"{path}: tensor {name} does not belong to a CartoonGAN generator")
        converted[f"{modules[module]}.{parameters[parameter]}"] = tensor
    return Architecture("cartoongan", _width(tensors["conv01_1.weight"], path), blocks), converted


def _width(stem: Tensor, path: Path) -> int:
    if stem.dim() != 4 or stem.shape[1:] != (3, 7, 7):
        raise CheckpointError(f"{path}: the first convolution is {_shape(stem)}, expected width x 3 x 7 x 7")
    return int(stem.shape[0])


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


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

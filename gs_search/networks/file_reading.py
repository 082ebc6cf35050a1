"""The dictionaries of tensors in a file, and nothing else of it: no code that it holds is run."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gs_search.errors import CheckpointError
from gs_search.networks.file_kinds import LOOKED_AT, SAVE, is_safetensors, no_checkpoint
from gs_search.networks.recognised import Tensors

__all__ = ["Groups", "read_file"]

RESIDUE = ("total_ops", "total_params")
"""Counters that a profiler (thop) leaves in every module."""

DEPTH = 5
"""Dictionaries in dictionaries that are looked into."""

Groups = dict[tuple[str, ...], Tensors]
"""State dicts of a file by the keys that lead to them."""


def read_file(path: Path) -> tuple[Groups, dict[str, str]]:
    """All state dicts of a file, without the residue of profilers, and its text metadata."""
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "no such checkpoint"
        raise CheckpointError(f"{path}: {what}; give the path of a .pth, .pt or .safetensors file")
    try:
        with path.open("rb") as stream:
            head = stream.read(LOOKED_AT)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if (wrong := no_checkpoint(path, head)) is not None:
        raise CheckpointError(f"{path}: {wrong}")
    if is_safetensors(head):
        try:
            with safe_open(path, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return {(): _cleaned(tensors)}, opened.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path}: not a complete safetensors file ({_brief(error)}); damaged or truncated, fetch it again"
            ) from None
    groups: Groups = {}
    _gather(_unpickled(path), (), groups)
    if not groups:
        raise CheckpointError(f"{path}: no state_dict in it; {SAVE}")
    return groups, {}


def _unpickled(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd pickles; what they lead to is reported below
            # As a stream: of a path, torch would heed the suffix.
            with _plain_classes(), path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|[Uu]nsupported class)\s+([\w.]+)", str(error))
        if named:
            raise CheckpointError(
                f"{path}: refused, because opening it would run code stored in it, or needs classes of its own "
                f"({named[1]}); where it comes from, {SAVE}"
            ) from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint of tensors alone, or damaged; {SAVE}") from None
    except RuntimeError as error:
        if "magic number" in str(error):
            raise CheckpointError(f"{path}: a pickle that torch.save has not written; {SAVE}") from None
        raise CheckpointError(f"{path}: damaged or truncated checkpoint ({_brief(error)}); fetch it again") from None
    except (
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as e:
        raise CheckpointError(f"{path}: damaged or truncated checkpoint ({_brief(e)}); fetch it again") from None


def _plain_classes() -> contextlib.AbstractContextManager[None]:
    """Let a file hold numbers of NumPy's, options of argparse and paths beside tensors; they run nothing."""
    if not hasattr(torch.serialization, "safe_globals"):  # before PyTorch 2.5
        return contextlib.nullcontext()
    multiarray = getattr(np, "_core", None) or np.core
    plain: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]
    plain += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
    for package in ("numpy.core", "numpy._core"):
        for name in ("scalar", "_reconstruct"):
            plain.append((getattr(multiarray.multiarray, name), f"{package}.multiarray.{name}"))
    for module in ("pathlib", "pathlib._local"):
        plain += [(PurePosixPath, f"{module}.{name}") for name in ("PosixPath", "PurePosixPath")]
        plain += [(PureWindowsPath, f"{module}.{name}") for name in ("WindowsPath", "PureWindowsPath")]
    return cast("contextlib.AbstractContextManager[None]", torch.serialization.safe_globals(plain))


def _gather(content: object, keys: tuple[str, ...], groups: Groups) -> None:
    """Collect the dictionaries that hold tensors, outer ones first."""
    if len(keys) > DEPTH:
        return
    if isinstance(content, Mapping):
        tensors = {
            name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
        }
        if tensors:
            groups[keys] = _cleaned(tensors)
        inner = content.items()
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        inner = dict(enumerate(content)).items()
    else:
        return
    for key, value in inner:
        if not isinstance(value, Tensor):
            _gather(value, (*keys, str(key)), groups)


def _cleaned(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in RESIDUE}


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

"""A run's state on disk: written whole or not at all, read back without running code, refused for another run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.slimming.layers import output_module, slim_layers
from gs_search.slimming.output_quantizer import OutputQuantizer
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer
from gs_search.slimming.teacher import Teacher
from gs_search.study.settings import SlimmingSettings
from gs_search.system.files import draft_of

__all__ = ["fingerprint", "load_state", "network_state", "restore_network_", "save_state"]

FORMAT = "gs-search run 1"

DIGEST = hashlib.sha256().digest_size


def fingerprint(teacher: Teacher, settings: SlimmingSettings, seed: int, lessons: int, ends: Sequence[int]) -> str:
    """What must be the same for a run to be continued: settings, seed, rungs, the teacher, number of lessons."""
    digest = hashlib.sha256(json.dumps([asdict(settings), seed, lessons, list(ends)], default=dict).encode())
    digest.update(str(teacher.image_px).encode())
    for name, tensor in teacher.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, state: dict[str, Any], run: str) -> None:
    """Write atomically, behind a digest of the whole; ``run`` is the ``fingerprint``."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "run": run, **state}, buffer)
    with draft_of(path) as draft:
        draft.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())


def load_state(path: Path, run: str, device: torch.device | str) -> dict[str, Any]:
    """Read what ``save_state`` has written.

    Raises:
        CheckpointError: damaged, of another version, or of another run.
    """
    content = path.read_bytes()
    if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
        raise CheckpointError(f"{path}: not a complete checkpoint of a run; delete it to start anew")
    try:
        state = torch.load(io.BytesIO(content[DIGEST:]), map_location=device, weights_only=True)
    except pickle.UnpicklingError:  # somebody made it with care
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version; delete it to start anew")
    if state.get("run") != run:
        raise CheckpointError(
            f"{path}: belongs to a run with other settings, another seed, teacher or data; delete it to start anew"
        )
    return state


def network_state(network: nn.Module) -> dict[str, Any]:
    """Weights, and which quantizers there are."""
    quantizers = {
        name: {
            "weight": None if layer.weight_quantizer is None else layer.weight_quantizer.bits,
            "input": _described(layer.input_quantizer),
            "output": None if (outputs := output_module(network, name).output_quantizer) is None else outputs.centred,
        }
        for name, layer in slim_layers(network).items()
    }
    return {"quantizers": quantizers, "tensors": network.state_dict()}


def restore_network_(network: nn.Module, state: dict[str, Any]) -> None:
    """Give a network of the same shape the quantizers and weights of ``network_state``, in place."""
    for name, layer in slim_layers(network).items():
        found = state["quantizers"][name]
        # In the order of the repair: optimizers know parameters by their place alone.
        for kind in ("input", "weight", "output"):
            place: nn.Module = layer if kind != "output" else output_module(network, name)
            setattr(place, f"{kind}_quantizer", None)
            if found[kind] is None:
                continue
            quantizer: nn.Module
            if kind == "weight":
                groups = layer.num_groups if layer.out_axis == 1 else 1
                quantizer = WeightQuantizer(found[kind], torch.ones(layer.num_outputs), layer.out_axis, groups)
            elif kind == "output":
                quantizer = OutputQuantizer.blank(layer.num_outputs, centred=found[kind])
            else:
                bits, signed = found[kind]
                quantizer = ActivationQuantizer(bits, torch.ones(()), signed=signed)
            setattr(place, f"{kind}_quantizer", quantizer.to(layer.weight.device))
    network.load_state_dict(state["tensors"])


def _described(quantizer: ActivationQuantizer | None) -> list[Any] | None:
    return None if quantizer is None else [quantizer.bits, quantizer.signed]


def as_masks(alive: dict[str, Any]) -> dict[str, Tensor]:
    """Masks of channels as tensors, which a checkpoint may hold."""
    return {name: torch.as_tensor(mask) for name, mask in alive.items()}

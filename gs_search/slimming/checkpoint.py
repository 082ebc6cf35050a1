"""A run's state on disk: written whole or not at all, read back without running code, refused for another run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gs_search.errors import CheckpointError
from gs_search.settings import SlimmingSettings
from gs_search.slimming.channels import ChannelGraph
from gs_search.slimming.layers import slim_layers
from gs_search.slimming.quantize import ActivationQuantizer, WeightQuantizer

__all__ = ["fingerprint", "load_state", "network_state", "restore_network_", "save_state"]

FORMAT = "gs-search run 1"


def fingerprint(graph: ChannelGraph, settings: SlimmingSettings, seed: int, lessons: int) -> str:
    """What must be the same for a run to be continued: settings, seed, the teacher's layers, number of lessons."""
    layers = {name: [layer.inputs, layer.outputs, layer.macs_per_pair] for name, layer in graph.layers.items()}
    text = json.dumps([asdict(settings), seed, layers, lessons], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def save_state(path: Path, state: dict[str, Any], run: str) -> None:
    """Write atomically; ``run`` is the ``fingerprint``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save({"format": FORMAT, "run": run, **state}, temporary)
    temporary.replace(path)


def load_state(path: Path, run: str, device: torch.device | str) -> dict[str, Any]:
    """Read what ``save_state`` has written.

    Raises:
        CheckpointError: damaged, of another version, or of another run.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        brief = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a complete checkpoint ({brief}); delete it to start anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version; delete it to start anew")
    if state["run"] != run:
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
            "output": _described(layer.output_quantizer),
        }
        for name, layer in slim_layers(network).items()
    }
    return {"quantizers": quantizers, "tensors": network.state_dict()}


def restore_network_(network: nn.Module, state: dict[str, Any]) -> None:
    """Give a network of the same shape the quantizers and weights of ``network_state``, in place."""
    for name, layer in slim_layers(network).items():
        found = state["quantizers"][name]
        device = layer.weight.device
        layer.weight_quantizer = None
        if found["weight"] is not None:
            groups = layer.num_groups if layer.out_axis == 1 else 1
            ranges = torch.ones(layer.num_outputs)
            layer.weight_quantizer = WeightQuantizer(found["weight"], ranges, layer.out_axis, groups).to(device)
        for kind in ("input", "output"):
            quantizer = None
            if found[kind] is not None:
                bits, signed = found[kind]
                quantizer = ActivationQuantizer(bits, torch.ones(()), signed=signed).to(device)
            setattr(layer, f"{kind}_quantizer", quantizer)
    network.load_state_dict(state["tensors"])


def _described(quantizer: ActivationQuantizer | None) -> list[Any] | None:
    return None if quantizer is None else [quantizer.bits, quantizer.signed]


def as_masks(alive: dict[str, Any]) -> dict[str, Tensor]:
    """Masks of channels as tensors, which a checkpoint may hold."""
    return {name: torch.as_tensor(mask) for name, mask in alive.items()}

"""Which arithmetic the convolutions of a training run in: bfloat16 only where the machine multiplies in it.

On a processor without bfloat16 instructions torch emulates them, and a convolution takes some twenty times as long as
in float32. So ``precision: auto`` asks the machine first, and then a probe of a fraction of a second has to confirm
that bfloat16 is not slower: what a processor lists, a library may not use.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from gs_search.errors import BadInput
from gs_search.study.settings import SlimmingSettings
from gs_search.system.machine import native_bf16

__all__ = ["Decision", "decide", "settled", "slowdown", "warning"]

BF16_CAPABILITY = (8, 0)
"""CUDA compute capability (Ampere) from which GPUs multiply in bfloat16."""

PROBE = (32, 2, 32)
"""Channels, pictures and side of the probe's convolution: the slower arithmetic takes it 0.05 s at most."""

PROBE_TURNS = 5

SLOWER = 1.1
"""How many times as long as float32 the probe may take in bfloat16: one that short repeats within a tenth."""

SLOW = 1.5
"""How many times as long it has to take before a study that asks for bfloat16 is warned."""


@dataclass(frozen=True)
class Decision:
    """What a study's trainings compute in, and why.

    Attributes:
        precision: never ``auto``.
        asked: what the study says.
        native: whether the processor, or the GPU, lists instructions for bfloat16.
        bf16_factor: time of a small convolution in bfloat16 over that in float32; None where it was not tried.
        device: ``cpu`` or ``cuda``.
    """

    precision: Literal["bf16", "float32"]
    asked: Literal["auto", "bf16", "float32"]
    native: bool
    bf16_factor: float | None
    device: str

    def __str__(self) -> str:
        """One line for a person."""
        where = "GPU" if self.device == "cuda" else "processor"
        factor = f"{self.bf16_factor:.2g} times as long as in float32" if self.bf16_factor is not None else ""
        if self.asked == "bf16" and (slow := _warning(self.bf16_factor, where)):
            return slow
        if self.asked != "auto":
            return f"precision: {self.precision}, as the study says"
        if not self.native:
            return f"precision: float32, for this {where} has no bfloat16 instructions"
        return f"precision: {self.precision}; on this {where} a convolution in bfloat16 takes {factor}"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def decide(asked: Literal["auto", "bf16", "float32"], device: torch.device) -> Decision:
    """Choose the arithmetic for a device; what is asked for by name is taken.

    Raises:
        BadInput: bfloat16 is asked for on a GPU that does not multiply in it.
    """
    native = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY if device.type == "cuda" else native_bf16()
    if asked == "float32":
        return Decision("float32", asked, native, None, device.type)
    if asked == "bf16":
        if device.type == "cuda" and not native:
            name = torch.cuda.get_device_name(device)
            raise BadInput(
                f"precision: bf16: {name} does not multiply in bfloat16 (GPUs of compute capability 8.0 and newer do); "
                "set precision: auto or float32"
            )
        return Decision("bf16", asked, native, slowdown(device), device.type)
    if not native:
        return Decision("float32", asked, native, None, device.type)
    factor = slowdown(device)
    return Decision("bf16" if factor <= SLOWER else "float32", asked, native, factor, device.type)


def warning(device: torch.device) -> str | None:
    """What to say before a training in bfloat16 begins on this device; None where it is quick there."""
    return _warning(slowdown(device), "GPU" if device.type == "cuda" else "processor")


def _warning(factor: float | None, where: str) -> str | None:
    if factor is None or factor <= SLOW:
        return None
    return (
        f"warning: in bf16 a convolution takes this {where} {factor:.2g} times as long as in float32; "
        "precision: auto or float32 in a new study's settings is quicker"
    )


@functools.cache
def slowdown(device: torch.device) -> float:
    """Time of a small convolution, forward and backward, in bfloat16 over that in float32; measured once a process.

    With one thread, whatever the caller computes with: so small a convolution says nothing of several.
    """
    width, count, side = PROBE
    with torch.random.fork_rng(devices=[]):  # nobody's random numbers depend on the probe
        network = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
    network.to(device)
    pictures = torch.ones(count, width, side, side, device=device)

    def seconds(bf16: bool) -> float:
        started = time.process_time() if device.type == "cpu" else time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            painted = network(pictures)
        painted.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter() - started
        return time.process_time() - started

    best = {True: math.inf, False: math.inf}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for bf16 in (True, False) * PROBE_TURNS:  # in turn: whatever else the machine does, it does to both
            best[bf16] = min(best[bf16], seconds(bf16))
    finally:
        torch.set_num_threads(threads)
    return best[True] / best[False]


def settled(settings: SlimmingSettings, device: torch.device) -> SlimmingSettings:
    """The settings with ``precision: auto`` replaced by what this process's device is best at."""
    if settings.precision != "auto":
        return settings
    return dataclasses.replace(settings, precision=decide("auto", device).precision)

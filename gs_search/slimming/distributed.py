"""Several processes that train one network together: who takes which pictures, and what is averaged.

All hold the same networks, optimizers, random numbers and memory of old fakes. Of each step's pictures a process takes
its equal part; gradients are averaged by DistributedDataParallel, and what depends on all pictures of a step at once
(old fakes, the denominators of losses, whether a loss is still a number) is put together here. So a team sees the loss
curve of one process with all the pictures, to the rounding of sums. Who starts the processes is not known here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ALONE", "Team"]

Rows = TypeVar("Rows", Tensor, np.ndarray)


@dataclass(frozen=True)
class Team:
    """One process among ``size``, of an initialised ``torch.distributed`` group where these are several."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_group(cls) -> Team:
        """This process in the default process group."""
        return cls(distributed.get_rank(), distributed.get_world_size())

    def part(self, whole: Rows) -> Rows:
        """This process's part of the rows of a step, whose number the team must divide."""
        if self.size == 1:
            return whole
        each, rest = divmod(len(whole), self.size)
        assert not rest, f"{len(whole)} pictures for {self.size} processes"
        return whole[self.rank * each : (self.rank + 1) * each]

    def gather(self, part: Tensor) -> Tensor:
        """The parts of all, in the order in which ``part`` deals them out; without gradients."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(parts, part.detach().contiguous())
        return torch.cat(parts)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the team; without gradients."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.size

    def all(self, fact: Tensor) -> bool:
        """Whether a fact holds for all; waits for the device."""
        if self.size > 1:
            fact = fact.to(torch.uint8)
            distributed.all_reduce(fact, distributed.ReduceOp.MIN)
        return bool(fact)

    def agree(self, value: float, device: torch.device | str) -> float:
        """The first process's value: what each of several GPUs computes may differ in the last bit."""
        if self.size == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.broadcast(held, 0)
        return float(held)

    def agree_on_masks(self, masks: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, np.ndarray]:
        """The first process's masks of channels."""
        if self.size == 1:
            return dict(masks)
        agreed = {}
        for name, mask in masks.items():
            held = torch.as_tensor(mask, device=device).to(torch.uint8)
            distributed.broadcast(held, 0)
            agreed[name] = held.bool().cpu().numpy()
        return agreed

    def replica(self, module: nn.Module) -> Any:
        """The module as it is to be called in training, so that its gradients are the team's mean.

        Its parameters and buffers become the first process's. The graph of a phase does not change, and may leave out
        parameters (those of a generator's layers that do nothing).
        """
        if self.size == 1:
            return module
        cuda = next(module.parameters()).is_cuda
        devices = [torch.cuda.current_device()] if cuda else None
        # Buffers stay as they are within a phase; the switch has another name since PyTorch 2.15.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        still: dict[str, Any] = {name: False for name in ("forward_sync_buffers", "broadcast_buffers") if name in known}
        if len(still) == 2:
            del still["broadcast_buffers"]
        return DistributedDataParallel(module, device_ids=devices, static_graph=True, **still)


ALONE = Team()

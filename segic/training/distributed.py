"""Several processes, one model: each takes its share of every batch, gradients are summed over all.

The decoder has 5 M parameters, so one reduction of one flat buffer a step is cheap (21 MB), and nothing is gained by
overlapping it with the backward pass; that also leaves each process free to run as many passes as its samples need.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segic.errors import UsageError
from segic.torchrun import ranks

PATIENCE = timedelta(hours=6)  # the others wait while the first process validates


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The indices of the global batch that are this process's. UsageError for more processes than samples."""
        if batch < self.count:
            raise UsageError(
                f"{self.count} processes for batches of {batch} samples; start fewer, or give --set batch={self.count}"
            )
        return range(self.rank, batch, self.count)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums in place over all processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        return bool(self.sum_(torch.tensor(float(here), device=device))) if self.count > 1 else here

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def share_weights(self, module: nn.Module) -> None:
        """The first process's weights for all."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums gradients over all processes; parameters that one process did not use count as zero there.

        Those that none used have no gradient afterwards, as in one process: the optimizer leaves them alone.
        """
        if self.count == 1:
            return
        used = torch.stack([torch.as_tensor(float(p.grad is not None), device=p.device) for p in parameters])
        flat = torch.cat([used, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        dist.all_reduce(flat)
        users, *gradients = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for p, gradient, count in zip(parameters, gradients, users.tolist(), strict=True):
            p.grad = gradient.view_as(p) if count else None

    def gather(self, value: Any) -> list[Any]:
        """Every process's value (anything that can be pickled), in the order of their numbers."""
        if self.count == 1:
            return [value]
        out: list[Any] = [None] * self.count
        dist.all_gather_object(out, value)
        return out


def join(device: torch.device) -> tuple[Processes, torch.device]:
    """What torchrun's environment says, joined, and this process's device. One process where there is no torchrun.

    NCCL between GPUs, gloo between CPUs. UsageError for an environment that says a part of it.
    """
    rank, count = ranks(("RANK", "WORLD_SIZE")) or (0, 1)
    if count == 1:
        return Processes(), device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"this host has {torch.cuda.device_count()} GPUs and torchrun started process {local} on it; give "
                "--nproc-per-node the number of GPUs, or train with --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Processes(rank, count), device


def leave() -> None:
    """The counterpart of `join`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()

"""One run in many processes, as `torchrun` starts them; a single process is the case of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from evacap_cli.errors import EvacapError

TIMEOUT = timedelta(hours=2)
"""How long processes wait for one another: one may prepare clips or caption for validation meanwhile."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world` processes, and sums over all of them."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """The one process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in each of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks, in each of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


def world_size() -> int:
    """How many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def started_first() -> bool:
    """Whether `Ranks.first` will be true of this process: known before the processes have met."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Joins the processes of `torchrun`, if it started this one; yields the place and this process's device."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE, device
        return
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise EvacapError(
                f"process {rank} has no GPU: there are {torch.cuda.device_count()} on this machine",
                "start as many processes as there are GPUs (--nproc-per-node), or use --device cpu",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(rank, world), device
    finally:
        dist.destroy_process_group()

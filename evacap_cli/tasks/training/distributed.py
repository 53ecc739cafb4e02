"""Distributes a run over the processes of `torchrun`, or runs it in a single process."""

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
"""How long processes wait for each other, for example while the first one prepares clips."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among `world` processes, and reductions over all of them."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


SINGLE = Ranks()


def world_size() -> int:
    """Returns the number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def started_first() -> bool:
    """Whether this process will be `Ranks.first`, known before the process group exists."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Joins the process group of `torchrun`, if it started this process. Yields its ranks and device.

    Converts errors of the connection, in the body, to EvacapError.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield SINGLE, device
        return
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise EvacapError(
                f"process {rank} has no GPU: this machine has {torch.cuda.device_count()}",
                "start as many processes as there are GPUs (--nproc-per-node), or use --device cpu",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(rank, world), device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise EvacapError(
            f"the connection to another process was lost ({str(error).splitlines()[0]})",
            "torchrun --max-restarts starts all processes again; or run the same command again to resume",
        ) from error
    finally:
        dist.destroy_process_group()

"""Assigns clips to steps, and reads them ahead of the model."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker

import numpy as np
from torch.utils.data import DataLoader

from evacap_cli.errors import EvacapError
from evacap_cli.tasks.batches import Augmentation, Batch, Batches
from evacap_cli.tasks.training.settings import TrainSettings

Portion = tuple[int, list[int]]
"""An epoch and the clips of one process's portion of a step."""


@dataclass(frozen=True)
class Plan:
    """The order of clips in a run, a pure function of its settings, so that processes agree without communicating."""

    clips: int
    settings: TrainSettings
    world: int = 1

    def __post_init__(self) -> None:
        portions, size = self.world * self.settings.accumulate, self.settings.batch_size
        if size % portions:
            raise EvacapError(
                f"training.batch_size {size} cannot be shared evenly by {self.world} processes with "
                f"{self.settings.accumulate} portions each",
                f"make it a multiple of {portions}",
            )
        if self.clips < portions:
            raise EvacapError(
                f"{self.clips} training clips: too few for {portions} portions per step" if self.clips
                else "there are no training clips",
                "the store's index lists the clips that failed, and why",
            )  # fmt: skip

    @property
    def batch(self) -> int:
        """Clips per step: `batch_size`, or fewer if there are not enough."""
        portions = self.world * self.settings.accumulate
        return min(self.settings.batch_size, self.clips // portions * portions)

    @property
    def per_epoch(self) -> int:
        """Steps per epoch."""
        return self.clips // self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.settings.epochs * self.per_epoch))

    def portions(self, rank: int, first: int = 0) -> Iterator[Portion]:
        """Yields the portions of process `rank` from step `first` on, `accumulate` per step."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(first, self.steps):
            current, i = divmod(step, self.per_epoch)
            if current != epoch:
                epoch = current
                order = np.random.default_rng((self.settings.seed, epoch)).permutation(self.clips)
            rows = order[i * self.batch : (i + 1) * self.batch]
            for portion in rows.reshape(self.settings.accumulate, self.world, -1)[:, rank]:
                yield epoch, np.sort(portion).tolist()


class _BatchDataset:
    """Reads the batch of a portion, in a worker or in this process."""

    def __init__(self, data: Batches, settings: TrainSettings | None) -> None:
        self.data, self.settings = data, settings

    def __getitem__(self, portion: Portion) -> Batch | EvacapError:
        epoch, rows = portion
        s = self.settings
        augmentation = None if s is None else Augmentation((s.seed, epoch), s.freq_mask, s.time_mask, s.noise)
        try:
            return self.data.batch(rows, augmentation)
        except EvacapError as error:  # returned, because the DataLoader would wrap it in a traceback
            return error


def load_batches(
    data: Batches,
    portions: Iterator[Portion],
    settings: TrainSettings | None,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yields the batches of `portions`, read ahead by `workers` processes; without `settings`, not augmented."""
    loader: DataLoader[Batch] = DataLoader(
        _BatchDataset(data, settings),  # type: ignore[arg-type]
        batch_size=None,
        sampler=PortionSampler(portions),
        num_workers=workers,
        pin_memory=pin,
        # not fork: threads of this process may hold locks
        multiprocessing_context="spawn" if workers else None,
    )
    with _signals_blocked():
        reading = iter(loader)
    processes = list(getattr(reading, "_workers", ()))
    try:
        for batch in reading:
            if isinstance(batch, EvacapError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        full = "Bus error" in str(error)  # the error if shared memory has no space for a batch
        raise EvacapError(
            f"a process that reads clips was lost ({str(error).splitlines()[0]})",
            "shared memory (/dev/shm) is full: increase it (docker run --shm-size=8g), or use --workers 0, then run "
            "the same command again to resume"
            if full
            else "memory probably ran out: use fewer --workers, then run the same command again to resume",
        ) from error
    finally:
        del reading  # ends the workers; those that hang must be killed, because they block SIGTERM
        for process in processes:
            process.kill()


def can_share_memory() -> bool:
    """Whether processes can share locks and tensors, which needs /dev/shm. Some containers lack it."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError:
        return False
    return True


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Makes processes started in the body ignore Ctrl-C and SIGTERM. A terminal or batch system sends both to all
    processes, but the training process needs its workers to finish the step."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class PortionSampler:
    """Wraps an iterator of portions as a sampler."""

    def __init__(self, portions: Iterator[Portion]) -> None:
        self.portions = portions

    def __iter__(self) -> Iterator[Portion]:
        return self.portions

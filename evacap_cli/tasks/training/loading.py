"""Which clips make up which step, and their reading ahead of the model."""

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
    """The order of a run, a pure function of its settings: any process finds any step's clips without a word."""

    clips: int
    settings: TrainSettings
    world: int = 1

    def __post_init__(self) -> None:
        portions, size = self.world * self.settings.accumulate, self.settings.batch_size
        if size % portions:
            raise EvacapError(
                f"training.batch_size {size} cannot be shared evenly by {self.world} processes in "
                f"{self.settings.accumulate} portions each",
                f"make it a multiple of {portions}",
            )
        if self.clips < portions:
            raise EvacapError(
                f"{self.clips} clips to train on: too few for {portions} portions of a step" if self.clips
                else "there is no clip to train on",
                "see which clips failed, and why, in the store's index",
            )  # fmt: skip

    @property
    def batch(self) -> int:
        """Clips a step: `batch_size`, or what there is."""
        portions = self.world * self.settings.accumulate
        return min(self.settings.batch_size, self.clips // portions * portions)

    @property
    def per_epoch(self) -> int:
        """Steps an epoch."""
        return self.clips // self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.settings.epochs * self.per_epoch))

    def portions(self, rank: int, first: int = 0) -> Iterator[Portion]:
        """What process `rank` reads from step `first` on: `accumulate` portions a step."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(first, self.steps):
            now, place = divmod(step, self.per_epoch)
            if now != epoch:
                epoch, order = now, np.random.default_rng((self.settings.seed, now)).permutation(self.clips)
            rows = order[place * self.batch : (place + 1) * self.batch]
            for portion in rows.reshape(self.settings.accumulate, self.world, -1)[:, rank]:
                yield epoch, np.sort(portion).tolist()


class _BatchDataset:
    """Turns a portion into a batch, in a reading process or in this one."""

    def __init__(self, data: Batches, settings: TrainSettings | None) -> None:
        self.data, self.settings = data, settings

    def __getitem__(self, portion: Portion) -> Batch | EvacapError:
        epoch, rows = portion
        s = self.settings
        augmentation = None if s is None else Augmentation((s.seed, epoch), s.freq_mask, s.time_mask, s.noise)
        try:
            return self.data.batch(rows, augmentation)
        except EvacapError as error:  # raised there, it would come back wrapped in a traceback
            return error


def load_batches(
    data: Batches,
    portions: Iterator[Portion],
    settings: TrainSettings | None,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Batches of `portions`, read ahead by `workers` processes; without `settings` nothing is left to chance."""
    loader: DataLoader[Batch] = DataLoader(
        _BatchDataset(data, settings),  # type: ignore[arg-type]
        batch_size=None,
        sampler=PortionSampler(portions),
        num_workers=workers,
        pin_memory=pin,
        # not forked: threads of this process may hold locks
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
        full = "Bus error" in str(error)  # what the system answers where there is no room for a batch
        raise EvacapError(
            f"a process that reads clips was lost ({str(error).splitlines()[0]})",
            "shared memory (/dev/shm) is full: give it more (docker run --shm-size=8g), or use --workers 0, and go on "
            "with the same command"
            if full
            else "most often memory ran out: use fewer --workers, and go on with the same command",
        ) from error
    finally:
        del reading  # ends the processes, but for those that hang, and they hear no SIGTERM
        for process in processes:
            process.kill()


def can_share_memory() -> bool:
    """Whether processes can share locks and tensors here: not without /dev/shm, which some containers lack."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError:
        return False
    return True


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started meanwhile hears neither Ctrl-C nor SIGTERM: both go to all of a terminal's or a job's processes,
    and the one that trains needs the others to finish its step."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # its start would let them in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class PortionSampler:
    """A stream as a sampler."""

    def __init__(self, portions: Iterator[Portion]) -> None:
        self.portions = portions

    def __iter__(self) -> Iterator[Portion]:
        return self.portions

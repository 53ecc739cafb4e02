"""Connects to a Ray cluster, and sends blocks of work through pools of actors with Ray Data."""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evacap_cli.errors import EvacapError, UsageError

LOCAL, AUTO = "local", "auto"
CURE = "pip install 'evacap[ray]'"
MAX_PARTITIONS = 4096  # of a data set: the driver tracks each
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """Where and how a run is distributed. address: `local`, `auto` or an address. gpus, cpus: of one model actor.
    workers: the least and the most model actors. decoders: decoding actors, one core each; None: as many as there are
    cores. memory: bytes of the object store of a local cluster. Raises UsageError."""

    address: str = LOCAL
    gpus: float = 0.0
    cpus: float = 1.0
    workers: tuple[int, int] = (1, 1)
    decoders: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        wrong = []
        if self.gpus < 0:
            wrong.append(f"--gpus-per-worker {self.gpus:g} must be 0 or more")
        if self.cpus <= 0:
            wrong.append(f"--cpus-per-worker {self.cpus:g} must be more than 0")
        least, most = self.workers
        if not 1 <= least <= most:
            wrong.append(f"--ray-workers {least}-{most} must be a number or a range such as 2-64")
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def least_cpus(self) -> float:
        """Cores that the fewest actors need."""
        return (self.decoders or 1) + self.workers[0] * self.cpus

    @property
    def device(self) -> str:
        """The device of a model actor."""
        return "cuda" if self.gpus else "cpu"


def parse_workers(text: str) -> tuple[int, int]:
    """Returns the least and the most of a number or a range such as `2-64`. Raises UsageError."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if found is None:
        raise UsageError(f"--ray-workers {text!r} must be a number or a range such as 2-64")
    return int(found[1]), int(found[2] or found[1])


def check_ray() -> None:
    """Raises UsageError if Ray is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--ray: Ray cannot be imported: {error}", CURE) from error


@contextmanager
def connected(options: ClusterOptions) -> Iterator[None]:
    """Connects to a cluster, or starts one of this machine, for the body. Raises EvacapError."""
    check_ray()
    import ray

    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if options.address == LOCAL:
                cores = max(os.cpu_count() or 1, math.ceil(options.least_cpus))
                ray.init(
                    address=LOCAL, num_cpus=cores, include_dashboard=False, object_store_memory=options.memory,
                    logging_level=logging.ERROR, log_to_driver=False,
                )  # fmt: skip
            else:
                _check_port(options.address)
                ray.init(address=options.address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:  # of any kind
            raise EvacapError(
                f"--ray {options.address}: no connection: {' '.join(str(error).split())[:200]}",
                "check the address; `ray status` shows a running cluster",
            ) from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _check_port(address: str) -> None:
    """Raises OSError if nothing listens at `HOST:PORT`; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in address:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


class Worker:
    """The base class of actors. `work` turns a block into results, each a block of the next stage."""

    def work(self, block: Any) -> Iterable[Any]:
        raise NotImplementedError

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        for result in self.work(pickle.loads(batch["block"][0])):
            yield {"block": [pickle.dumps(result)]}


@dataclass(frozen=True)
class Stage:
    """A pool of actors of one class. arguments: of its constructor. actors: the least and the most. cpus, gpus: of one
    actor."""

    actor: type[Worker]
    arguments: tuple[Any, ...]
    actors: tuple[int, int]
    cpus: float = 1.0
    gpus: float = 0.0

    @classmethod
    def decoding(cls, actor: type[Worker], arguments: tuple[Any, ...], options: ClusterOptions) -> Stage:
        """Returns a stage that decodes, with one core per actor."""
        import ray

        most = options.decoders or max(1, int(ray.cluster_resources().get("CPU", 1)))
        return cls(actor, arguments, (options.decoders or 1, most))

    @classmethod
    def model(cls, actor: type[Worker], arguments: tuple[Any, ...], options: ClusterOptions) -> Stage:
        """Returns a stage that runs a model."""
        return cls(actor, arguments, options.workers, options.cpus, options.gpus)


def run_stages(blocks: Sequence[Any], stages: Sequence[Stage], options: ClusterOptions) -> Iterator[Any]:
    """Sends blocks through stages, and yields the results of the last one in order of completion.

    Needs a connection, see `connected`. Ray repeats the work of actors and machines that die. Raises EvacapError if
    the cluster cannot continue.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    if not blocks:
        return
    _check_gpus(stages, options)
    DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
    packed = [{"block": pickle.dumps(block)} for block in blocks]
    data: Any = ray.data.from_items(packed, override_num_blocks=min(len(packed), MAX_PARTITIONS))
    for stage in stages:
        least, most = stage.actors
        data = data.map_batches(
            stage.actor,
            batch_size=1,
            fn_constructor_args=stage.arguments,
            compute=ActorPoolStrategy(min_size=least, max_size=most),
            num_cpus=stage.cpus,
            num_gpus=stage.gpus,
        )
    try:
        for result in data.iter_rows():
            yield pickle.loads(result["block"])
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, EvacapError):
            raise EvacapError(cause.message, cause.cure) from error
        raise EvacapError(
            f"--ray {options.address}: the cluster cannot continue: {' '.join(str(cause).split())[-300:]}",
            "finished work is kept; run the same command again to resume",
        ) from error


def _check_gpus(stages: Sequence[Stage], options: ClusterOptions) -> None:
    """Raises UsageError if this machine has too few GPUs. A cluster may still add machines."""
    import ray

    found, wanted = ray.cluster_resources().get("GPU", 0), max(stage.gpus for stage in stages)
    if options.address == LOCAL and wanted > found:
        raise UsageError(
            f"--gpus-per-worker {wanted:g}: this machine has {found:g} GPUs", "give 0, or --ray ADDRESS"
        )

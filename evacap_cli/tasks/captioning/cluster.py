"""Captions inputs on a Ray cluster, with Ray Data. Ray is imported only when a cluster is used.

Decoding actors read blocks of inputs in worker processes with limits of their own. Model actors caption the clips. The
rows return to this process, whose journal, order and output are those of a run on one machine.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import socket
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evacap_cli.errors import EvacapError, UsageError

if TYPE_CHECKING:  # the actors of decoding need no model
    from evacap_cli.tasks.captioning.engine import Captioner
    from evacap_cli.tasks.captioning.inputs.sources import Source
    from evacap_cli.tasks.captioning.options import CaptionOptions
    from evacap_cli.tasks.captioning.outputs.rows import Row
    from evacap_cli.tasks.clips import Clip, ClipSettings

LOCAL, AUTO = "local", "auto"
CURE = "pip install 'evacap[ray]'"
CHUNK = 32  # clips in one object of the cluster's memory
MAX_BLOCKS = 4096  # partitions of a data set: the driver tracks each
CONNECT_SECONDS = 10.0
GIB = 2**30
Outcome = tuple[int, int, "Clip | None", str | None]
"""Number of the input, position of the row among its rows, and the clip or the error."""


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
                    logging_level=logging.WARNING, log_to_driver=False,
                )  # fmt: skip
            else:
                _check_port(options.address)
                ray.init(address=options.address, logging_level=logging.WARNING, log_to_driver=False)
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


def caption_on_cluster(
    captioner: Captioner,
    sources: Sequence[tuple[int, Source]],
    options: CaptionOptions,
    cluster: ClusterOptions,
) -> Generator[tuple[int, list[Row]], None, None]:
    """Yields (number, rows) of each numbered source when it is done, as `caption_sources` does.

    Needs a connection, see `connected`. Ray repeats the work of actors and machines that die. Raises EvacapError if
    the cluster cannot continue.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    settings = captioner.check(options)
    size = options.batch_size or (32 if cluster.gpus else 8)
    blocks = [
        {"sources": pickle.dumps(list(sources[i : i + 2 * size]))} for i in range(0, len(sources), 2 * size)
    ]
    DataContext.get_current().enable_progress_bars = False
    decoders = cluster.decoders or max(1, int(ray.cluster_resources().get("CPU", 1)))
    model = ray.put(_pack(captioner))
    made_with = _precision(captioner)
    data = (
        ray.data.from_items(blocks, override_num_blocks=min(len(blocks), MAX_BLOCKS))
        .map_batches(
            _Decoder,
            batch_size=1,
            fn_constructor_args=(settings, options),
            compute=ActorPoolStrategy(min_size=cluster.decoders or 1, max_size=decoders),
            num_cpus=1,
        )
        .map_batches(
            _Model,
            batch_size=1,
            fn_constructor_args=(model, made_with, options, size, cluster.gpus > 0),
            compute=ActorPoolStrategy(min_size=cluster.workers[0], max_size=cluster.workers[1]),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
        )
    )
    waiting: dict[int, _Rows] = {}
    try:
        for result in data.iter_rows():
            for number, position, row, last in pickle.loads(result["rows"]):
                rows = waiting.setdefault(number, _Rows())
                if row is not None:
                    rows.found[position] = row
                if last is not None:
                    rows.count = last
                if rows.count == len(rows.found):
                    yield number, [row for _, row in sorted(waiting.pop(number).found.items())]
    except ray.exceptions.RayError as error:
        cause = " ".join(str(error).split())[-300:]
        raise EvacapError(
            f"--ray {cluster.address}: the cluster cannot continue: {cause}",
            "finished inputs are kept; run the same command again to resume",
        ) from error


@dataclass
class _Rows:
    """The rows of an input that have arrived, by position. count: how many there will be, None if unknown."""

    found: dict[int, Row] = field(default_factory=dict)
    count: int | None = None


class _Decoder:
    """An actor that reads blocks of inputs, in one worker process."""

    def __init__(self, settings: ClipSettings, options: CaptionOptions) -> None:
        from functools import partial

        from evacap_cli.media import DecodePool
        from evacap_cli.tasks.captioning.inputs.clip_reader import read_source, read_source_carefully

        self.pool: DecodePool[Source, Any] = DecodePool(
            1,
            partial(read_source, settings=settings),
            timeout=options.timeout,
            rescue=partial(read_source_carefully, settings=settings),
            memory=int(options.memory * GIB) or None,
        )

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """Yields the outcomes of a block, `CHUNK` at a time."""
        numbered = pickle.loads(batch["sources"][0])
        names = {id(source): (number, source) for number, source in numbered}
        counts = dict.fromkeys((number for number, _ in numbered), 0)
        chunk: list[tuple[Source, Outcome | None, int, int | None]] = []
        for outcome in self.pool.imap([source for _, source in numbered], ordered=True):
            number, source = names[id(outcome.item)]
            found: Outcome | None = None
            if outcome.value is not None or outcome.error is not None:
                found = (number, counts[number], outcome.value, outcome.error)
                counts[number] += 1
            chunk.append((source, found, number, counts[number] if outcome.last else None))
            if len(chunk) >= CHUNK:
                yield {"clips": [pickle.dumps(chunk)]}
                chunk = []
        if chunk:
            yield {"clips": [pickle.dumps(chunk)]}


class _Model:
    """An actor that captions chunks of clips."""

    def __init__(self, model: Any, precision: str, options: CaptionOptions, size: int, gpu: bool) -> None:
        import ray

        from evacap_cli.tasks.captioning.batch_captioner import BatchCaptioner

        packed = ray.get(model) if isinstance(model, ray.ObjectRef) else model
        captioner = _unpack(packed, "cuda" if gpu else "cpu", precision)
        self.batch_captioner = BatchCaptioner(
            captioner.checkpoint, captioner.device, captioner.autocast, options.beam, options.max_words, size,
            same_frames=options.same_frames,
        )  # fmt: skip

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        from evacap_cli.tasks.captioning.engine import NO_CLIPS, clip_row, failed_row

        chunk = pickle.loads(batch["clips"][0])
        rows: list[tuple[int, int, Row | None, int | None]] = []
        seen: dict[bool, list[tuple[int, Source, Clip]]] = {True: [], False: []}
        for source, found, number, last in chunk:
            if found is None:  # nothing was read from it, or only its end was left
                nothing = last == 0
                row = failed_row(source, NO_CLIPS) if nothing else None
                rows.append((number, 0, row, 1 if nothing else last))
                continue
            _, position, clip, error = found
            rows.append((number, position, failed_row(source, error or "") if clip is None else None, last))
            if clip is not None:
                seen[clip.frames is not None].append((len(rows) - 1, source, clip))
        for waiting in seen.values():
            results = self.batch_captioner.caption([clip for *_, clip in waiting]) if waiting else []
            for (i, source, clip), result in zip(waiting, results, strict=True):
                number, position, _, last = rows[i]
                rows[i] = (
                    number,
                    position,
                    clip_row(self.batch_captioner.checkpoint, source, clip, result),
                    last,
                )
        return {"rows": [pickle.dumps(rows)]}


def _pack(captioner: Captioner) -> str | dict[str, bytes]:
    """Returns what an actor loads the model from: its packaged name, or its files."""
    from evacap_cli.model.checkpoint import packaged_models

    checkpoint = captioner.checkpoint
    if checkpoint.name in packaged_models():
        return checkpoint.name
    if checkpoint.path.is_file():
        return {checkpoint.path.name: checkpoint.path.read_bytes()}
    return {path.name: path.read_bytes() for path in checkpoint.path.iterdir() if path.is_file()}


def _unpack(packed: str | dict[str, bytes], device: str, precision: str) -> Captioner:
    from evacap_cli.tasks.captioning.engine import Captioner

    if isinstance(packed, str):
        return Captioner.load(packed, device, precision)
    with tempfile.TemporaryDirectory(prefix="evacap-") as folder:
        for name, content in packed.items():
            Path(folder, name).write_bytes(content)
        files = list(packed)
        return Captioner.load(Path(folder, files[0]) if len(files) == 1 else folder, device, precision)


def _precision(captioner: Captioner) -> str:
    from evacap_cli.tasks.devices import PRECISIONS

    return next(name for name, dtype in PRECISIONS.items() if dtype == captioner.autocast)

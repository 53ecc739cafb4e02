"""Captions inputs on a cluster.

Decoding actors read blocks of inputs in worker processes with limits of their own. Model actors caption the clips. The
rows return to this process, whose journal, order and output are those of a run on one machine.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from evacap_cli.tasks.cluster.pipeline import ClusterOptions, Stage, Worker, run_stages

if TYPE_CHECKING:  # the actors of decoding need no model
    from evacap_cli.tasks.captioning.engine import Captioner
    from evacap_cli.tasks.captioning.inputs.sources import Source
    from evacap_cli.tasks.captioning.options import CaptionOptions
    from evacap_cli.tasks.captioning.outputs.rows import Row
    from evacap_cli.tasks.clips import Clip, ClipSettings

CHUNK = 32  # clips in one object of the cluster's memory
GIB = 2**30


@dataclass
class _Decoded:
    """One result of decoding. position: of its row among the rows of the input `number`. clip and error are both None
    for an input without results. rows: how many the input has, None if more may follow."""

    number: int
    source: Source
    position: int
    clip: Clip | None
    error: str | None
    rows: int | None


@dataclass
class _Captioned:
    """One row of an input. The other fields: see `_Decoded`."""

    number: int
    position: int
    row: Row | None
    rows: int | None


def caption_on_cluster(
    captioner: Captioner,
    sources: Sequence[tuple[int, Source]],
    options: CaptionOptions,
    cluster: ClusterOptions,
) -> Generator[tuple[int, list[Row]], None, None]:
    """Yields (number, rows) of each numbered source when it is done, as `caption_sources` does.

    Needs a connection, see `connected`. Raises EvacapError if the cluster cannot continue.
    """
    from evacap_cli.tasks.cluster.models import send_model

    settings = captioner.check(options)
    size = options.batch_size or (32 if cluster.gpus else 8)
    work = [(number, _absolute(source)) for number, source in sources]
    blocks = [work[i : i + 2 * size] for i in range(0, len(work), 2 * size)]
    model = send_model(captioner.checkpoint), cluster.device, captioner.autocast, options, size
    stages = Stage.decoding(_Decoder, (settings, options), cluster), Stage.model(_Model, model, cluster)
    waiting: dict[int, _Rows] = {}
    for results in run_stages(blocks, stages, cluster):
        for each in results:
            rows = waiting.setdefault(each.number, _Rows())
            if each.row is not None:
                rows.found[each.position] = each.row
            if each.rows is not None:
                rows.count = each.rows
            if rows.count == len(rows.found):
                yield each.number, [row for _, row in sorted(waiting.pop(each.number).found.items())]


def _absolute(source: Source) -> Source:
    """Returns a source whose path does not depend on the working directory, which actors do not share."""
    from evacap_cli.tasks.captioning.inputs.urls import is_url

    return source if is_url(source.path) else replace(source, path=os.path.abspath(source.path))


@dataclass
class _Rows:
    """The rows of an input that have arrived, by position. count: how many there will be, None if unknown."""

    found: dict[int, Row] = field(default_factory=dict)
    count: int | None = None


class _Decoder(Worker):
    """Reads blocks of inputs, in one worker process."""

    def __init__(self, settings: ClipSettings, options: CaptionOptions) -> None:
        from evacap_cli.media import DecodePool
        from evacap_cli.tasks.captioning.inputs.clip_reader import read_source, read_source_carefully

        self.pool: DecodePool[Source, Any] = DecodePool(
            1,
            partial(read_source, settings=settings),
            timeout=options.timeout,
            rescue=partial(read_source_carefully, settings=settings),
            memory=int(options.memory * GIB) or None,
        )

    def work(self, block: list[tuple[int, Source]]) -> Iterator[list[_Decoded]]:
        """Yields the results of a block, `CHUNK` at a time."""
        numbers = {id(source): number for number, source in block}
        counts = dict.fromkeys(numbers.values(), 0)
        chunk: list[_Decoded] = []
        for outcome in self.pool.imap([source for _, source in block], ordered=True):
            number = numbers[id(outcome.item)]
            position = counts[number]
            if outcome.value is not None or outcome.error is not None:
                counts[number] += 1
            rows = counts[number] if outcome.last else None
            chunk.append(_Decoded(number, outcome.item, position, outcome.value, outcome.error, rows))
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


class _Model(Worker):
    """Captions chunks of clips."""

    def __init__(self, model: Any, device: str, autocast: Any, options: CaptionOptions, size: int) -> None:
        from evacap_cli.model.packing import pack
        from evacap_cli.tasks.captioning.batch_captioner import BatchCaptioner
        from evacap_cli.tasks.cluster.models import receive_model
        from evacap_cli.tasks.devices import pick_device

        chosen = pick_device(device)
        self.checkpoint = receive_model(model, chosen)
        pack(self.checkpoint.model, autocast)
        self.captioner = BatchCaptioner(
            self.checkpoint, chosen, autocast, options.beam, options.max_words, size,
            same_frames=options.same_frames,
        )  # fmt: skip

    def work(self, block: list[_Decoded]) -> Iterator[list[_Captioned]]:
        from evacap_cli.tasks.captioning.engine import NO_CLIPS, clip_row, failed_row

        done = [_Captioned(each.number, each.position, None, each.rows) for each in block]
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for i, each in enumerate(block):
            if each.clip is not None:
                waiting[each.clip.frames is not None].append(i)
            elif each.error is not None:
                done[i].row = failed_row(each.source, each.error)
            elif each.rows == 0:  # nothing was read from it
                done[i].row, done[i].rows = failed_row(each.source, NO_CLIPS), 1
        for chosen in waiting.values():
            clips = [clip for i in chosen if (clip := block[i].clip) is not None]
            results = self.captioner.caption(clips) if clips else []
            for i, clip, result in zip(chosen, clips, results, strict=True):
                done[i].row = clip_row(self.checkpoint, block[i].source, clip, result)
        yield done

"""Captions inputs: decodes in worker processes ahead of the model, and shares batches across inputs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch

from evacap_cli.errors import UsageError, check_all
from evacap_cli.features import FeatureSettings
from evacap_cli.media import DecodePool, Outcome
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.model.packing import pack
from evacap_cli.tasks.captioning.batch_captioner import BatchCaptioner
from evacap_cli.tasks.captioning.inputs.clip_reader import check_segments, read_source, read_source_carefully
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.results import CaptionResult
from evacap_cli.tasks.captioning.outputs.rows import TAGS, Row, readable_path
from evacap_cli.tasks.clips import Clip, ClipSettings
from evacap_cli.tasks.devices import pick_device, pick_precision, wake

NO_CLIPS = "no clip was read from it"
MAX_WAIT_BATCHES = 4  # an incomplete batch runs after this many batches' worth of decoded clips
GIB = 2**30
ClipCallback = Callable[[Source, Clip, Row, CaptionResult], None]
"""Called for every clip that the model captioned."""


@dataclass
class Captioner:
    """A model, ready to caption files.

    >>> captioner = Captioner.load("demo")
    >>> captioner.caption("clip.mp4").caption
    >>> captioner.caption(["clip.mp4", "folder"], beam=1)
    """

    checkpoint: Checkpoint
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None

    @classmethod
    def load(cls, model: str | Path = "demo", device: str = "auto", precision: str = "auto") -> Captioner:
        """Loads a model. model: a packaged name or a checkpoint folder. device: auto, cpu, cuda, mps. precision: auto,
        fp32, bf16, fp16. Raises UsageError if the model or the device does not exist.
        """
        chosen = pick_device(device)
        wake(chosen)
        autocast = pick_precision(precision, chosen)
        checkpoint = load_checkpoint(model, chosen)
        pack(checkpoint.model, autocast)
        return cls(checkpoint, chosen, autocast)

    @overload
    def caption(self, inputs: str | Path, **options: Any) -> Row: ...
    @overload
    def caption(self, inputs: Iterable[str | Path], **options: Any) -> list[Row]: ...
    def caption(self, inputs: str | Path | Iterable[str | Path], **options: Any) -> Row | list[Row]:
        """Returns the row of one file or, for a list of files, folders and wildcards, the rows of all files.

        `options` are the fields of `CaptionOptions`; `workers` defaults to 0. A file that cannot be captioned gives a
        row with status `failed`; a file that does not exist raises UsageError. With `segment`, pass a list.
        """
        chosen = CaptionOptions(**{"workers": 0, **options})
        if not isinstance(inputs, str | Path):
            return [row for _, rows in self.rows(find_sources(inputs), chosen) for row in rows]
        if chosen.segment is not None:
            raise UsageError(f"{inputs}: has a row for each segment", "pass a list to get a list of rows")
        if Path(inputs).is_dir():
            raise UsageError(f"{inputs}: is a folder", "pass a list to get a list of rows")
        sources = find_sources([inputs])
        if len(sources) > 1:
            raise UsageError(f"{inputs}: matches {len(sources)} files", "pass a list to get a list of rows")
        return next(self.rows(sources, chosen))[1][0]

    def rows(
        self,
        sources: Sequence[Source],
        options: CaptionOptions,
        log: Callable[[str], None] | None = None,
        on_clip: ClipCallback | None = None,
    ) -> Generator[tuple[Source, list[Row]], None, None]:
        """Yields every source with its rows, in order, as soon as it and all earlier ones are done.

        A source that is `same_as` an earlier one gets a copy of that one's rows. `log` gets messages for the user.
        """
        left = Counter(original_index(sources, i) for i in range(len(sources)))
        done: dict[int, list[Row]] = {}
        work = (
            (i, source) for i, source in enumerate(sources) if not source.error and source.same_as is None
        )
        place = 0

        def ready() -> Iterator[tuple[Source, list[Row]]]:
            nonlocal place
            while place < len(sources):
                source, first = sources[place], original_index(sources, place)
                if sources[first].error:
                    yield source, [failed_row(source, sources[first].error)]
                elif first in done:
                    yield source, rename_rows(done[first], source)
                else:
                    return
                place += 1
                left[first] -= 1
                if not left[first]:
                    done.pop(first, None)

        with closing(caption_sources(self, work, options, True, log, on_clip)) as results:
            yield from ready()
            for number, rows in results:
                done[number] = rows
                yield from ready()

    def check(self, options: CaptionOptions) -> ClipSettings:
        """Returns the settings for reading clips. Raises UsageError if the options do not fit the model."""
        features = FeatureSettings.from_dict(self.checkpoint.features)
        model, frames, name = self.checkpoint.model, options.frames, self.checkpoint.name
        most = model.config.decoder.positions - 1
        if options.audio_only or not model.has_picture:
            frames = 0
        settings = ClipSettings(
            features,
            frames,
            options.window,
            options.segment,
            options.hop,
            options.min_rms,
            options.audio_track,
            silence=False,
        )

        def check_words() -> None:
            if options.max_words > most:
                raise UsageError(
                    f"--max-words {options.max_words}: {name} generates at most {most}",
                    f"give at most {most}",
                )

        def check_frames() -> None:
            in_pairs = model.config.encoder.picture_tokens == "tubelet"
            if frames not in (None, 0, features.frames) and in_pairs:
                raise UsageError(
                    f"--frames {frames}: {name} takes {features.frames} frames, in pairs",
                    "omit --frames, or use a model that takes single frames",
                )

        check_all(check_words, check_frames, partial(check_segments, settings))
        return settings


def original_index(sources: Sequence[Source], number: int) -> int:
    """Returns the number of the first source with the same content as source `number`, which may be itself."""
    while (earlier := sources[number].same_as) is not None:
        number = earlier
    return number


def rename_rows(rows: list[Row], source: Source) -> list[Row]:
    """Returns the rows with the name of `source`."""
    video = readable_path(source.name)
    return [row if row.video == video else replace(row, video=video) for row in rows]


def failed_row(source: Source, error: str) -> Row:
    return Row(readable_path(source.name), source.start, source.end, error=" ".join(error.split()))


def clip_row(checkpoint: Checkpoint, source: Source, clip: Clip, result: CaptionResult | str) -> Row:
    """Returns the row of a clip. result: as `BatchCaptioner.caption` gives it."""
    row = Row(readable_path(source.name), clip.start, clip.end, note=clip.note)
    if isinstance(result, str):
        return replace(row, error=result)
    unseen = clip.frames is None and checkpoint.model.has_picture
    status, error = ("audio-only", clip.picture_error) if unseen else ("ok", "")
    numbers = {name: getattr(result, name) for name in ("score", "gate", "entropy", "mismatch", *TAGS)}
    return replace(row, caption=result.caption, **numbers, status=status, error=" ".join(error.split()))


def caption_sources(
    captioner: Captioner,
    sources: Iterable[tuple[int, Source]],
    options: CaptionOptions,
    ordered: bool = False,
    log: Callable[[str], None] | None = None,
    on_clip: ClipCallback | None = None,
) -> Generator[tuple[int, list[Row]], None, None]:
    """Yields (number, rows) of each numbered source when it is done. Sources are read lazily.

    Unless `ordered`, a slow source does not hold up the others. Clips of all sources share the batches.
    """
    settings = captioner.check(options)
    workers = options.processes
    size = options.batch_size or (32 if captioner.device.type == "cuda" else 8)
    checkpoint, device, autocast = captioner.checkpoint, captioner.device, captioner.autocast
    batch_captioner = BatchCaptioner(
        checkpoint, device, autocast, options.beam, options.max_words, size, log, options.same_frames
    )
    batcher = _ClipBatcher(batch_captioner, on_clip)
    pending: dict[int, _PendingSource] = {}

    def items() -> Iterator[Source]:
        for number, source in sources:
            item = copy.copy(source)  # a separate object, whose id identifies its outcomes
            pending[id(item)] = _PendingSource(number, item)
            yield item

    pool: DecodePool[Source, Clip | None] = DecodePool(
        workers,
        partial(read_source, settings=settings),
        timeout=options.timeout,
        ahead=2 * size + workers,
        rescue=partial(read_source_carefully, settings=settings),
        memory=int(options.memory * GIB) or None,
    )
    with pool:
        for outcome in pool.imap(items(), ordered=ordered):
            source = pending[id(outcome.item)]
            if outcome.last:
                del pending[id(outcome.item)]
            yield from batcher.add(source, outcome)
        yield from batcher.flush()


@dataclass
class _PendingSource:
    """A source that is still being decoded (not `ended`) or has `left` clips without a caption."""

    number: int
    source: Source
    rows: list[Row | None] = field(default_factory=list)
    left: int = 0
    ended: bool = False


class _PendingClip(NamedTuple):
    source: _PendingSource
    position: int  # of its row in `source.rows`
    clip: Clip


class _ClipBatcher:
    """Collects clips into batches, with and without a picture separately, so that no clip is padded."""

    def __init__(self, captioner: BatchCaptioner, on_clip: ClipCallback | None) -> None:
        self.captioner, self.on_clip = captioner, on_clip
        self.waiting: dict[bool, list[_PendingClip]] = {True: [], False: []}
        self.received = 0
        self.since = {True: 0, False: 0}  # `received` when the first of the waiting clips arrived

    def add(
        self, source: _PendingSource, outcome: Outcome[Source, Clip | None]
    ) -> Iterator[tuple[int, list[Row]]]:
        """Adds an outcome of a source. Yields the sources that this completes."""
        self.received += 1
        source.ended = outcome.last
        if (clip := outcome.value) is not None:
            kind = clip.frames is not None
            if not self.waiting[kind]:
                self.since[kind] = self.received
            self.waiting[kind].append(_PendingClip(source, len(source.rows), clip))
            source.rows.append(None)
            source.left += 1
        elif outcome.error is not None:
            source.rows.append(failed_row(source.source, outcome.error))
        if source.ended and not source.rows:
            source.rows.append(failed_row(source.source, NO_CLIPS))
        if source.ended and not source.left:
            yield source.number, [row for row in source.rows if row is not None]
        for kind, waiting in self.waiting.items():
            late = self.received - self.since[kind] >= MAX_WAIT_BATCHES * self.captioner.size
            if len(waiting) >= self.captioner.size or (waiting and late):
                yield from self._caption(kind)

    def flush(self) -> Iterator[tuple[int, list[Row]]]:
        for kind in self.waiting:
            yield from self._caption(kind)

    def _caption(self, kind: bool) -> Iterator[tuple[int, list[Row]]]:
        waiting, self.waiting[kind] = self.waiting[kind], []
        if not waiting:
            return
        results = self.captioner.caption([each.clip for each in waiting])
        for (source, position, clip), result in zip(waiting, results, strict=True):
            row = clip_row(self.captioner.checkpoint, source.source, clip, result)
            source.rows[position] = row
            source.left -= 1
            if self.on_clip is not None and isinstance(result, CaptionResult):
                self.on_clip(source.source, clip, row, result)
            if source.ended and not source.left:
                yield source.number, [row for row in source.rows if row is not None]

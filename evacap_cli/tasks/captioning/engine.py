"""Inputs to captions: decoding in worker processes ahead of the model, batches shared across inputs."""

from __future__ import annotations

import copy
import os
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
from evacap_cli.tasks.captioning.batch_captioner import Describer
from evacap_cli.tasks.captioning.inputs.clip_reader import check_segments, read_source, read_source_carefully
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.results import Words
from evacap_cli.tasks.captioning.outputs.rows import TAGS, Row, readable_path
from evacap_cli.tasks.clips import Clip, ClipSettings
from evacap_cli.tasks.devices import pick_device, pick_precision

NOTHING = "nothing came of it"
PATIENCE = 4  # batches' worth of decoded clips that come by before a batch that is not full goes, too
GIB = 2**30
Described = Callable[[Source, Clip, Row, Words], None]
"""Is told of every clip that the model described."""


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
        """model: a packaged name or a checkpoint folder. device: auto, cpu, cuda, mps. precision: auto, fp32, bf16,
        fp16. Raises UsageError on what is not there.
        """
        chosen = pick_device(device)
        autocast = pick_precision(precision, chosen)
        checkpoint = load_checkpoint(model, chosen)
        pack(checkpoint.model, autocast)
        return cls(checkpoint, chosen, autocast)

    @overload
    def caption(self, inputs: str | Path, **options: Any) -> Row: ...
    @overload
    def caption(self, inputs: Iterable[str | Path], **options: Any) -> list[Row]: ...
    def caption(self, inputs: str | Path | Iterable[str | Path], **options: Any) -> Row | list[Row]:
        """The row of one file; of a list of files, folders and wildcards, the rows of all files.

        `options` are those of `CaptionOptions`, with `workers` 0 unless given. A file that cannot be captioned is a
        row with status `failed`; one that does not exist is a UsageError. With `segment`, give a list.
        """
        chosen = CaptionOptions(**{"workers": 0, **options})
        if not isinstance(inputs, str | Path):
            return [row for _, rows in self.rows(find_sources(inputs), chosen) for row in rows]
        if chosen.segment is not None:
            raise UsageError(f"{inputs}: gets a row for each segment", "give a list for a list of rows")
        if Path(inputs).is_dir():
            raise UsageError(f"{inputs}: is a folder", "give a list, of folders or files, for a list of rows")
        sources = find_sources([inputs])
        if len(sources) > 1:
            raise UsageError(f"{inputs}: stands for {len(sources)} files", "give a list for a list of rows")
        return next(self.rows(sources, chosen))[1][0]

    def rows(
        self,
        sources: Sequence[Source],
        options: CaptionOptions,
        tell: Callable[[str], None] | None = None,
        described: Described | None = None,
    ) -> Generator[tuple[Source, list[Row]], None, None]:
        """Every source with its rows, in order, each as soon as those before it are done.

        A source that is `same_as` an earlier one gets that one's rows. `tell` gets words for people.
        """
        left = Counter(original(sources, i) for i in range(len(sources)))
        done: dict[int, list[Row]] = {}
        work = (
            (i, source) for i, source in enumerate(sources) if not source.error and source.same_as is None
        )
        place = 0

        def ready() -> Iterator[tuple[Source, list[Row]]]:
            nonlocal place
            while place < len(sources):
                source, first = sources[place], original(sources, place)
                if sources[first].error:
                    yield source, [failed_row(source, sources[first].error)]
                elif first in done:
                    yield source, named(done[first], source)
                else:
                    return
                place += 1
                left[first] -= 1
                if not left[first]:
                    done.pop(first, None)

        with closing(describe_sources(self, work, options, True, tell, described)) as results:
            yield from ready()
            for number, rows in results:
                done[number] = rows
                yield from ready()

    def check(self, options: CaptionOptions) -> ClipSettings:
        """How clips are read for this model and these options. Raises UsageError where the two do not fit."""
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

        def words() -> None:
            if options.max_words > most:
                raise UsageError(
                    f"--max-words {options.max_words}: {name} has places for {most}", f"give at most {most}"
                )

        def pictures() -> None:
            in_pairs = model.config.encoder.picture_tokens == "tubelet"
            if frames not in (None, 0, features.frames) and in_pairs:
                raise UsageError(
                    f"--frames {frames}: {name} looks at {features.frames} frames, in pairs",
                    "leave --frames out, or use a model that looks at frames one by one",
                )

        check_all(words, pictures, partial(check_segments, settings))
        return settings


def original(sources: Sequence[Source], number: int) -> int:
    """The number of the source whose rows source `number` gets: its own, or that of the first with the same content."""
    while (earlier := sources[number].same_as) is not None:
        number = earlier
    return number


def named(rows: list[Row], source: Source) -> list[Row]:
    """The rows as those of `source`."""
    video = readable_path(source.name)
    return [row if row.video == video else replace(row, video=video) for row in rows]


def failed_row(source: Source, error: str) -> Row:
    return Row(readable_path(source.name), source.start, source.end, error=" ".join(error.split()))


def describe_sources(
    captioner: Captioner,
    sources: Iterable[tuple[int, Source]],
    options: CaptionOptions,
    ordered: bool = False,
    tell: Callable[[str], None] | None = None,
    described: Described | None = None,
) -> Generator[tuple[int, list[Row]], None, None]:
    """(number, rows) of each of the numbered sources as it is done; sources are taken as they are needed.

    Not `ordered`, nobody waits for what takes long to decode. Clips of all sources share the batches.
    """
    settings = captioner.check(options)
    workers = max(1, (os.cpu_count() or 2) - 1) if options.workers is None else options.workers
    size = options.batch_size or (32 if captioner.device.type == "cuda" else 8)
    checkpoint, device, autocast = captioner.checkpoint, captioner.device, captioner.autocast
    describer = Describer(
        checkpoint, device, autocast, options.beam, options.max_words, size, tell, options.same_frames
    )
    batches = _Batches(describer, described)
    under_way: dict[int, _UnderWay] = {}

    def items() -> Iterator[Source]:
        for number, source in sources:
            item = copy.copy(source)  # an object of its own, by which its outcomes are known
            under_way[id(item)] = _UnderWay(number, item)
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
            source = under_way[id(outcome.item)]
            if outcome.last:
                del under_way[id(outcome.item)]
            yield from batches.take(source, outcome)
        yield from batches.rest()


@dataclass
class _UnderWay:
    """A source of which clips may still come (not `ended`) or wait for words (`left` of them)."""

    number: int
    source: Source
    rows: list[Row | None] = field(default_factory=list)
    left: int = 0
    ended: bool = False


class _Waiting(NamedTuple):
    source: _UnderWay
    place: int  # of its row
    clip: Clip


class _Batches:
    """Gathers clips: those with a picture and those without go apart, so that none pays for the others."""

    def __init__(self, describer: Describer, described: Described | None) -> None:
        self.describer, self.described = describer, described
        self.waiting: dict[bool, list[_Waiting]] = {True: [], False: []}
        self.came = 0
        self.since = {True: 0, False: 0}  # how many had come when the first of those that wait came

    def take(
        self, source: _UnderWay, outcome: Outcome[Source, Clip | None]
    ) -> Iterator[tuple[int, list[Row]]]:
        """One more outcome of a source. Yields the sources that are done by it."""
        self.came += 1
        source.ended = outcome.last
        if (clip := outcome.value) is not None:
            kind = clip.frames is not None
            if not self.waiting[kind]:
                self.since[kind] = self.came
            self.waiting[kind].append(_Waiting(source, len(source.rows), clip))
            source.rows.append(None)
            source.left += 1
        elif outcome.error is not None:
            source.rows.append(failed_row(source.source, outcome.error))
        if source.ended and not source.rows:
            source.rows.append(failed_row(source.source, NOTHING))
        if source.ended and not source.left:
            yield source.number, [row for row in source.rows if row is not None]
        for kind, waiting in self.waiting.items():
            late = self.came - self.since[kind] >= PATIENCE * self.describer.size
            if len(waiting) >= self.describer.size or (waiting and late):
                yield from self._describe(kind)

    def rest(self) -> Iterator[tuple[int, list[Row]]]:
        for kind in self.waiting:
            yield from self._describe(kind)

    def _describe(self, kind: bool) -> Iterator[tuple[int, list[Row]]]:
        waiting, self.waiting[kind] = self.waiting[kind], []
        if not waiting:
            return
        answers = self.describer.describe([each.clip for each in waiting])
        for (source, place, clip), said in zip(waiting, answers, strict=True):
            row = self._row(source.source, clip, said)
            source.rows[place] = row
            source.left -= 1
            if self.described is not None and isinstance(said, Words):
                self.described(source.source, clip, row, said)
            if source.ended and not source.left:
                yield source.number, [row for row in source.rows if row is not None]

    def _row(self, source: Source, clip: Clip, said: Words | str) -> Row:
        row = Row(readable_path(source.name), clip.start, clip.end, note=clip.note)
        if isinstance(said, str):
            return replace(row, error=said)
        deaf = clip.frames is None and self.describer.checkpoint.model.has_picture
        status, error = ("audio-only", clip.picture_error) if deaf else ("ok", "")
        numbers = {name: getattr(said, name) for name in ("score", "gate", "entropy", "mismatch", *TAGS)}
        return replace(row, caption=said.caption, **numbers, status=status, error=" ".join(error.split()))

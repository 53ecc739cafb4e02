"""Files to captions: decoding in worker processes ahead of the model, the model in batches, rows in order."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.media import WINDOW_MODES, DecodePool, Outcome
from evacap_cli.model import Checkpoint, Generation, load_checkpoint
from evacap_cli.tasks.captioning.outputs import Row, readable_path
from evacap_cli.tasks.captioning.sources import expand_inputs
from evacap_cli.tasks.clips import Clip, ClipSettings, load_clip, load_clip_carefully
from evacap_cli.tasks.devices import pick_device, pick_precision


@dataclass(frozen=True)
class CaptionOptions:
    """How to caption; None is what suits the model (`frames`) or the machine (`batch_size`, `workers`)."""

    frames: int | None = None
    beam: int = 4
    max_words: int = 20
    batch_size: int | None = None
    workers: int | None = None
    """Decoding processes; 0 decodes in this one, without a time limit."""
    window: str = "loudest"
    audio_only: bool = False
    timeout: float = 300.0
    """Seconds that decoding one file may take."""

    def __post_init__(self) -> None:
        wrong = [
            f"--{name.replace('_', '-')} {value} must be {least} or more"
            for name, least in (
                ("frames", 1),
                ("beam", 1),
                ("max_words", 1),
                ("batch_size", 1),
                ("workers", 0),
            )
            if (value := getattr(self, name)) is not None and value < least
        ]
        if not self.timeout > 0:
            wrong.append(f"--timeout {self.timeout:g} must be more than 0")
        if self.window not in WINDOW_MODES:
            wrong.append(f"--window {self.window} must be one of {', '.join(WINDOW_MODES)}")
        if wrong:
            raise UsageError("; ".join(wrong))


class Words(NamedTuple):
    """What the model says of one clip, as `Row` has it."""

    caption: str
    score: float
    gate: float | None
    entropy: float | None


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
        return cls(load_checkpoint(model, chosen), chosen, autocast)

    @overload
    def caption(self, inputs: str | Path, **options: Any) -> Row: ...
    @overload
    def caption(self, inputs: Iterable[str | Path], **options: Any) -> list[Row]: ...
    def caption(self, inputs: str | Path | Iterable[str | Path], **options: Any) -> Row | list[Row]:
        """The row of one file; of a list of files, folders and wildcards, the rows of all files.

        `options` are those of `CaptionOptions`, with `workers` 0 unless given. A file that cannot be captioned is a
        row with status `failed`; one that does not exist is a UsageError.
        """
        chosen = CaptionOptions(**{"workers": 0, **options})
        if not isinstance(inputs, str | Path):
            return list(self.rows(expand_inputs(inputs), chosen))
        if Path(inputs).is_dir():
            raise UsageError(f"{inputs}: is a folder", "give a list, of folders or files, for a list of rows")
        paths = expand_inputs([inputs])
        if len(paths) > 1:
            raise UsageError(f"{inputs}: stands for {len(paths)} files", "give a list for a list of rows")
        return next(self.rows(paths, chosen))

    def rows(self, paths: Iterable[Path], options: CaptionOptions) -> Generator[Row, None, None]:
        """A row for every path, in order, each as soon as its batch is done."""
        settings = self.check(options)
        workers = max(1, (os.cpu_count() or 2) - 1) if options.workers is None else options.workers
        size = options.batch_size or (32 if self.device.type == "cuda" else 8)
        pool: DecodePool[Path, Clip] = DecodePool(
            workers,
            partial(load_clip, settings=settings),
            timeout=options.timeout,
            ahead=2 * size + workers,
            rescue=partial(load_clip_carefully, settings=settings),
        )
        with pool:
            waiting: list[Outcome[Path, Clip]] = []
            for outcome in pool.imap(paths):
                waiting.append(outcome)
                # what failed takes no place in a batch, but many failures are not held back either
                if sum(o.value is not None for o in waiting) == size or len(waiting) == 4 * size:
                    yield from self._rows(waiting, options)
                    waiting = []
            yield from self._rows(waiting, options)

    def check(self, options: CaptionOptions) -> ClipSettings:
        """How clips are read for this model and these options. Raises UsageError where the two do not fit."""
        features = FeatureSettings.from_dict(self.checkpoint.features)
        model, frames = self.checkpoint.model, options.frames
        if options.max_words >= (most := model.config.decoder.positions):
            raise UsageError(
                f"--max-words {options.max_words}: {self.checkpoint.name} has places for {most - 1}",
                f"give at most {most - 1}",
            )
        if options.audio_only or not model.has_picture:
            frames = 0
        elif frames not in (None, features.frames) and model.config.encoder.picture_tokens == "tubelet":
            raise UsageError(
                f"--frames {frames}: {self.checkpoint.name} looks at {features.frames} frames, in pairs",
                "leave --frames out, or use a model that looks at frames one by one",
            )
        return ClipSettings(features, frames, options.window)

    def _rows(self, outcomes: list[Outcome[Path, Clip]], options: CaptionOptions) -> Iterator[Row]:
        """Captions of what could be decoded and failed rows between them, in order."""
        clips = [outcome.value for outcome in outcomes if outcome.value is not None]
        said = iter(self._describe(clips, options)) if clips else iter(())
        for outcome in outcomes:
            video, clip = readable_path(outcome.item), outcome.value
            if clip is None:
                yield Row(video, error=" ".join((outcome.error or "").split()))
                continue
            deaf_to_picture = clip.frames is None and self.checkpoint.model.has_picture
            status, error = ("audio-only", clip.picture_error) if deaf_to_picture else ("ok", "")
            yield Row(video, clip.start, clip.end, *next(said), status, " ".join(error.split()))

    def _describe(self, clips: Sequence[Clip], options: CaptionOptions) -> list[Words]:
        """Captions of one batch."""
        fbank = torch.from_numpy(np.stack([clip.fbank for clip in clips])).to(self.device)
        pixels, mask = self._pixels(clips)
        try:
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                out = self.checkpoint.model.generate(fbank, pixels, mask, options.beam, options.max_words)
        except torch.OutOfMemoryError as error:
            raise EvacapError(
                f"{self.device}: out of memory with {len(clips)} clips at once",
                f"--batch-size {len(clips) // 2}" if len(clips) > 1 else "--device cpu, or fewer --frames",
            ) from error
        return _words(out, self.checkpoint)

    def _pixels(self, clips: Sequence[Clip]) -> tuple[Tensor | None, Tensor | None]:
        """Normalised pixels (B, N, 3, S, S) and frame mask bool (B, N); None where no clip has a picture."""
        shape = next((clip.frames.shape for clip in clips if clip.frames is not None), None)
        if shape is None:
            return None, None
        blank = np.zeros(shape, np.uint8)
        frames = np.stack([blank if clip.frames is None else clip.frames for clip in clips])
        seen = torch.tensor([clip.frames is not None for clip in clips], device=self.device)
        features = FeatureSettings.from_dict(self.checkpoint.features)
        pixels = normalize_frames(torch.from_numpy(frames).to(self.device), features)
        return pixels, seen[:, None].expand(pixels.shape[:2])


def _words(out: Generation, checkpoint: Checkpoint) -> list[Words]:
    captions = map(checkpoint.tokenizer.decode, out.tokens.tolist())
    numbers = [_numbers(values, len(out.tokens)) for values in (out.gate, out.entropy)]
    return [Words(*said) for said in zip(captions, out.score.tolist(), *numbers, strict=True)]


def _numbers(values: Tensor | None, count: int) -> list[float | None]:
    """None where a model has no such number, or has none for a clip (NaN)."""
    if values is None:
        return [None] * count
    return [None if math.isnan(value) else value for value in values.tolist()]

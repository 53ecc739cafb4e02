"""Files to captions: decoding in worker processes ahead of the model, the model in batches, rows in order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.media import DecodePool, Outcome
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.tasks.clips import Clip, ClipSettings, load_clip, load_clip_carefully
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.inputs import expand_inputs
from evacap_cli.tasks.outputs import Row, readable_path


@dataclass(frozen=True)
class CaptionOptions:
    """How to caption. `frames` and `batch_size` None: the model's own, and one that suits the device."""

    frames: int | None = None
    beam: int = 4
    max_words: int = 20
    batch_size: int | None = None
    workers: int | None = None
    window: str = "loudest"
    audio_only: bool = False
    timeout: float = 300.0
    """Seconds that decoding one clip may take."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} {value} must be at least {least}"
            for name, value, least in (
                ("--frames", self.frames, 1),
                ("--beam", self.beam, 1),
                ("--max-words", self.max_words, 1),
                ("--batch-size", self.batch_size, 1),
                ("--workers", self.workers, 0),
                ("--timeout", self.timeout, 0.001),
            )
            if value is not None and value < least
        ]
        if wrong:
            raise UsageError("; ".join(wrong))


@dataclass
class Captioner:
    """A model ready to caption files.

    >>> captioner = Captioner.load("demo")
    >>> captioner.caption("clip.mp4").caption
    """

    checkpoint: Checkpoint
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None

    @classmethod
    def load(cls, model: str | Path = "demo", device: str = "auto", precision: str = "auto") -> Captioner:
        """model: a packaged name or a checkpoint folder. device: auto, cpu, cuda or mps. precision: auto, fp32, bf16, fp16."""
        chosen = pick_device(device)
        return cls(load_checkpoint(model, chosen), chosen, pick_precision(precision, chosen))

    def caption(self, inputs: str | Path | Sequence[str | Path], **options: object) -> Row | list[Row]:
        """One row for one file, a list for a list or a folder; options as in `CaptionOptions`."""
        single = isinstance(inputs, str | Path)
        paths = expand_inputs([inputs] if isinstance(inputs, str | Path) else inputs)
        given: dict[str, object] = {"workers": 0, **options}
        rows = list(self.rows(paths, CaptionOptions(**given)))  # type: ignore[arg-type]
        return rows[0] if single and len(rows) == 1 and not Path(str(inputs)).is_dir() else rows

    def rows(self, paths: Iterable[Path], options: CaptionOptions) -> Iterator[Row]:
        """A row for every path, in order; a file that cannot be captioned is a `failed` row."""
        settings = self.clip_settings(options)
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
                if sum(o.value is not None for o in waiting) == size or len(waiting) == 8 * size:
                    yield from self._finish(waiting, options)
                    waiting = []
            yield from self._finish(waiting, options)

    def clip_settings(self, options: CaptionOptions) -> ClipSettings:
        """What decoding needs to know for this model and these options."""
        features = FeatureSettings.from_dict(self.checkpoint.features)
        model = self.checkpoint.model
        frames = options.frames
        if options.audio_only or not model.has_picture:
            frames = 0
        elif frames is not None and model.config.encoder.picture_tokens == "tubelet" and frames != features.frames:
            raise UsageError(
                f"--frames {frames}: {self.checkpoint.name} looks at {features.frames} frames, in pairs",
                "leave --frames out, or use a model with frame tokens",
            )
        return ClipSettings(features, frames, options.window)

    def _finish(self, outcomes: list[Outcome[Path, Clip]], options: CaptionOptions) -> list[Row]:
        """Captions of what could be decoded, and failed rows between them, in order."""
        clips = [o.value for o in outcomes if o.value is not None]
        done = iter(self._describe(clips, options)) if clips else iter(())
        rows = []
        for outcome in outcomes:
            video = readable_path(outcome.item)
            if outcome.value is None:
                rows.append(Row(video, error=_one_line(outcome.error or "unknown")))
                continue
            clip = outcome.value
            caption, score, gate, entropy = next(done)
            heard_only = clip.frames is None and self.checkpoint.model.has_picture
            status, error = ("audio-only", _one_line(clip.picture_error)) if heard_only else ("ok", "")
            rows.append(Row(video, clip.start, clip.end, caption, score, gate, entropy, status, error))
        return rows

    def _describe(
        self, clips: Sequence[Clip], options: CaptionOptions
    ) -> list[tuple[str, float, float | None, float | None]]:
        """Caption, score, gate and entropy of each clip of a batch."""
        features = FeatureSettings.from_dict(self.checkpoint.features)
        fbank = torch.from_numpy(np.stack([clip.fbank for clip in clips])).to(self.device)
        pixels = mask = None
        shapes = [clip.frames.shape for clip in clips if clip.frames is not None]
        if shapes:
            frames = np.zeros((len(clips), *shapes[0]), np.uint8)
            for place, clip in enumerate(clips):
                if clip.frames is not None:
                    frames[place] = clip.frames
            pixels = normalize_frames(torch.from_numpy(frames).to(self.device), features)
            seen = torch.tensor([clip.frames is not None for clip in clips], device=self.device)
            mask = seen[:, None].expand(pixels.shape[:2])
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.checkpoint.model.generate(fbank, pixels, mask, options.beam, options.max_words)
        words = [self.checkpoint.tokenizer.decode(tokens) for tokens in out.tokens.tolist()]
        nothing = [None] * len(clips)
        gates = nothing if out.gate is None else _numbers(out.gate)
        entropies = nothing if out.entropy is None else _numbers(out.entropy)
        return list(zip(words, out.score.tolist(), gates, entropies, strict=True))


def _numbers(values: torch.Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _one_line(text: str) -> str:
    return " ".join(text.split())



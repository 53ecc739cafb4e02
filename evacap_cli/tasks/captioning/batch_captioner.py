"""Captions clips in batches that fit into memory. If the model fails on a clip, only that clip is marked `failed`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings, normalize_frames, same_frames
from evacap_cli.model import Checkpoint, Generation
from evacap_cli.model.lexicon import audioset_classes, imagenet_classes
from evacap_cli.tasks.captioning.outputs.results import (
    CaptionResult,
    column_seconds,
    mean_over_frequency,
    word_means,
)
from evacap_cli.tasks.captioning.outputs.tags import Tag, heard_tags, seen_tags
from evacap_cli.tasks.clips import Clip

OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "alloc_failed")
"""What errors of a full memory say that have no type of their own: CUDA's libraries, MPS and torch's CPU allocator."""


class BatchCaptioner:
    """A model at work. `size`: clips at once, less as soon as memory says so. `log` is given words for people.

    same_frames: levels of 255 by which following frames may differ, in the mean, and be looked at once.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        autocast: torch.dtype | None,
        beam: int,
        max_words: int,
        size: int,
        log: Callable[[str], None] | None = None,
        same_frames: float = 0.0,
    ) -> None:
        self.checkpoint, self.device, self.autocast = checkpoint, device, autocast
        self.features = FeatureSettings.from_dict(checkpoint.features)
        self.beam, self.max_words, self.size, self.same_frames = beam, max_words, size, same_frames
        self.log = log or (lambda _: None)

    def caption(self, clips: Sequence[Clip]) -> list[CaptionResult | str]:
        """The words for each clip or, in one line, why there are none. Clips all have a picture, or none has.

        Raises EvacapError when the device is of no use any more.
        """
        if len(clips) > self.size:
            halves = clips[: self.size], clips[self.size :]
            return [words for part in halves for words in self.caption(part)]
        try:
            return list(self._results(self._generate(clips), clips))
        except Exception as error:
            tight, cause = _out_of_memory(error), f"{type(error).__name__}: {' '.join(str(error).split())}"
        # only now is what the attempt held free again
        if tight:
            return self._retry_smaller(clips, cause)
        self._check_device(cause)
        if len(clips) == 1:
            return [f"the model failed on it: {cause}"]
        return [words for clip in clips for words in self.caption([clip])]

    def _retry_smaller(self, clips: Sequence[Clip], cause: str) -> list[CaptionResult | str]:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(clips) == 1:
            return [f"the model ran out of memory on it alone: {cause}"]
        self.size = len(clips) // 2
        self.log(f"{self.device}: out of memory with {len(clips)} clips at once; from here on {self.size}")
        return self.caption(clips)

    def _check_device(self, cause: str) -> None:
        """After some errors a GPU does nothing more for this process: then it is not the clip's doing."""
        if self.device.type != "cuda":
            return
        try:
            torch.zeros(1, device=self.device).add_(1).item()
        except Exception as error:
            raise EvacapError(
                f"{self.device}: does no more work: {cause}", "the same command goes on where this one was"
            ) from error

    def _generate(self, clips: Sequence[Clip]) -> Generation:
        fbank = torch.from_numpy(np.stack([clip.fbank for clip in clips])).to(self.device)
        frames = [clip.frames for clip in clips if clip.frames is not None]
        pixels = same = None
        if frames:
            shown = torch.from_numpy(np.stack(frames)).to(self.device)
            pixels, same = normalize_frames(shown, self.features), same_frames(shown, self.same_frames)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return self.checkpoint.model.generate(
                fbank, pixels, beam=self.beam, max_words=self.max_words, same=same
            )

    def _results(self, out: Generation, clips: Sequence[Clip]) -> list[CaptionResult]:
        captions = map(self.checkpoint.tokenizer.decode, out.tokens.tolist())
        doubt = None if out.evidence is None else 1 - out.evidence
        numbers = [_numbers(values, len(clips)) for values in (out.gate, out.entropy, doubt)]
        curves = [self._curves(values, clips) for values in (out.gates, out.entropies)]
        tags = self._heard(out, clips), self._seen(out, clips), self._confidences(out, clips)
        return [
            CaptionResult(*values)
            for values in zip(captions, out.score.tolist(), *numbers, *curves, *tags, strict=True)
        ]

    def _confidences(self, out: Generation, clips: Sequence[Clip]) -> list[tuple[tuple[str, float], ...]]:
        if out.confidences is None or clips[0].frames is None:
            return [()] * len(clips)
        return [
            word_means(self.checkpoint.tokenizer.pieces(tokens), values)
            for tokens, values in zip(out.tokens.tolist(), out.confidences.tolist(), strict=True)
        ]

    def _heard(self, out: Generation, clips: Sequence[Clip]) -> list[tuple[Tag, ...]]:
        if out.heard is None:
            return [()] * len(clips)
        window = column_seconds(self.checkpoint.model.config.encoder.curve_grid, self.features.audio_frames)
        return [
            heard_tags(numbers, audioset_classes(), clip.start, clip.end, window)
            for numbers, clip in zip(out.heard.float().cpu().numpy(), clips, strict=True)
        ]

    def _seen(self, out: Generation, clips: Sequence[Clip]) -> list[tuple[Tag, ...]]:
        """No tags of a picture that shows nothing: a model that compares leaves it out, and its evidence is NaN."""
        if out.seen is None:
            return [()] * len(clips)
        looked = [True] * len(clips) if out.evidence is None else (~out.evidence.isnan()).tolist()
        return [
            seen_tags(numbers, imagenet_classes()) if there else ()
            for numbers, there in zip(out.seen.float().cpu().numpy(), looked, strict=True)
        ]

    def _curves(self, values: Tensor | None, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """values: (B, T_a), frequency rows first. Over the seconds of each clip, see `mean_over_frequency`."""
        if values is None or clips[0].frames is None:
            return [None] * len(clips)
        grid, frames = self.checkpoint.model.config.encoder.curve_grid, self.features.audio_frames
        return [
            mean_over_frequency(tokens, grid, frames, clip.end - clip.start)
            for tokens, clip in zip(values.float().cpu().numpy(), clips, strict=True)
        ]


def _out_of_memory(error: Exception) -> bool:
    """Whether less at once may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in OUT_OF_MEMORY_MESSAGES
    )


def _numbers(values: Tensor | None, count: int) -> list[float | None]:
    """None where a model has no such number, or has none for a clip (NaN)."""
    if values is None:
        return [None] * count
    return [None if math.isnan(value) else value for value in values.tolist()]

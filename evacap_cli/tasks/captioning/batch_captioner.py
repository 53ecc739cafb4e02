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
from evacap_cli.tasks.devices import stack_on

OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "alloc_failed")
"""Texts of out-of-memory errors that are plain RuntimeErrors: CUDA libraries, MPS and PyTorch's CPU allocator."""


class BatchCaptioner:
    """Captions clips with a model. `size`: clips per batch, halved when memory runs out. `log` gets messages for the
    user.

    same_frames: if consecutive frames differ by at most this much on average (0-255), the second is not encoded again.
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
        """Returns the result of each clip or, as one line of text, why there is none. Either all clips have a picture
        or none has.

        Raises EvacapError if the device stops working.
        """
        if len(clips) > self.size:
            halves = clips[: self.size], clips[self.size :]
            return [result for part in halves for result in self.caption(part)]
        try:
            return list(self._results(self._generate(clips), clips))
        except Exception as error:
            no_memory, cause = (
                _out_of_memory(error),
                f"{type(error).__name__}: {' '.join(str(error).split())}",
            )
        # outside the except block, where the traceback no longer holds the tensors of the attempt
        if no_memory:
            return self._retry_smaller(clips, cause)
        self._check_device(cause)
        if len(clips) == 1:
            return [f"the model failed on it: {cause}"]
        return [result for clip in clips for result in self.caption([clip])]

    def _retry_smaller(self, clips: Sequence[Clip], cause: str) -> list[CaptionResult | str]:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(clips) == 1:
            return [f"the model ran out of memory on this clip: {cause}"]
        self.size = len(clips) // 2
        self.log(f"{self.device}: out of memory with batch size {len(clips)}; continuing with {self.size}")
        return self.caption(clips)

    def _check_device(self, cause: str) -> None:
        """Raises EvacapError if the GPU no longer works for this process; then the clip is not the cause."""
        if self.device.type != "cuda":
            return
        try:
            torch.zeros(1, device=self.device).add_(1).item()
        except Exception as error:
            raise EvacapError(
                f"{self.device}: stopped working: {cause}", "run the same command again to resume"
            ) from error

    def _generate(self, clips: Sequence[Clip]) -> Generation:
        fbank = stack_on(self.device, [clip.fbank for clip in clips])
        frames = [clip.frames for clip in clips if clip.frames is not None]
        pixels = same = None
        if frames:
            shown = stack_on(self.device, frames)
            pixels, same = normalize_frames(shown, self.features), same_frames(shown, self.same_frames)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return self.checkpoint.model.generate(
                fbank, pixels, beam=self.beam, max_words=self.max_words, same=same
            )

    def _results(self, out: Generation, clips: Sequence[Clip]) -> list[CaptionResult]:
        captions = map(self.checkpoint.tokenizer.decode, out.tokens.tolist())
        mismatch = None if out.evidence is None else 1 - out.evidence
        numbers = [_numbers(values, len(clips)) for values in (out.gate, out.entropy, mismatch)]
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
        """Returns no tags for a blank picture: a model with evidence ignores it, and its evidence is NaN."""
        if out.seen is None:
            return [()] * len(clips)
        visible = [True] * len(clips) if out.evidence is None else (~out.evidence.isnan()).tolist()
        return [
            seen_tags(numbers, imagenet_classes()) if shown else ()
            for numbers, shown in zip(out.seen.float().cpu().numpy(), visible, strict=True)
        ]

    def _curves(self, values: Tensor | None, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """Returns the curve of each clip over time, see `mean_over_frequency`. values: (B, T_a), frequency first."""
        if values is None or clips[0].frames is None:
            return [None] * len(clips)
        grid, frames = self.checkpoint.model.config.encoder.curve_grid, self.features.audio_frames
        return [
            mean_over_frequency(tokens, grid, frames, clip.end - clip.start)
            for tokens, clip in zip(values.float().cpu().numpy(), clips, strict=True)
        ]


def _out_of_memory(error: Exception) -> bool:
    """Whether an error may not occur with a smaller batch."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in OUT_OF_MEMORY_MESSAGES
    )


def _numbers(values: Tensor | None, count: int) -> list[float | None]:
    """Returns one number per clip; None if the model has no such number, or the number is NaN."""
    if values is None:
        return [None] * count
    return [None if math.isnan(value) else value for value in values.tolist()]

"""A model's captions of a store's clips, as they are and with sound or picture changed, each half encoded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings, normalize_frames, same_frames
from evacap_cli.model import Checkpoint, Generation
from evacap_cli.model.packing import pack
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.pairing import Pairing, donor_cycle
from evacap_cli.tasks.perturbations import Perturbation

Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class InferenceOptions:
    """How captions are made."""

    beam: int = 4
    max_words: int = 20
    batch_size: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None


@dataclass
class Captions:
    """What a model said of N clips. score, gate, entropy, evidence: float (N,); the latter three None for models that
    have none, entropy and evidence NaN for clips without a picture. cues: what evidence is made of, by name."""

    captions: list[str]
    score: np.ndarray
    gate: np.ndarray | None
    entropy: np.ndarray | None
    evidence: np.ndarray | None = None
    cues: dict[str, np.ndarray] = field(default_factory=dict)

    def reordered(self, rows: np.ndarray) -> Captions:
        """What was said of clip `rows[i]`, as clip i's."""
        gate, entropy, evidence = (
            None if values is None else values[rows] for values in (self.gate, self.entropy, self.evidence)
        )
        cues = {name: values[rows] for name, values in self.cues.items()}
        return Captions([self.captions[row] for row in rows], self.score[rows], gate, entropy, evidence, cues)


@dataclass
class _EncodedModality:
    """One modality of some clips, encoded: tokens (B, T, d); for pictures bool (B, N), which frames exist."""

    tokens: Tensor
    mask: Tensor | None = None

    def __getitem__(self, rows: slice) -> _EncodedModality:
        return _EncodedModality(self.tokens[rows], None if self.mask is None else self.mask[rows])

    def appended_to(self, first: _EncodedModality) -> _EncodedModality:
        """`first` and then these."""
        masked = self.mask is not None and first.mask is not None
        mask = torch.cat([first.mask, self.mask]) if masked else None  # type: ignore[list-item]
        return _EncodedModality(torch.cat([first.tokens, self.tokens]), mask)


class StoreCaptioner:
    """A model at work on a store.

    `caption` tells what it says of the clips as they are; `caption_paired` what it also says of each sound with its
    donors' pictures; `caption_perturbed` of clips that something was done to. All encode a clip's sound and picture
    once, and hold a batch of them at a time.
    """

    def __init__(self, checkpoint: Checkpoint, store: Store, how: InferenceOptions) -> None:
        self.checkpoint, self.store, self.how = checkpoint, store, how
        self.model = pack(checkpoint.model.to(how.device).eval(), how.autocast)
        self.features = FeatureSettings.from_dict(checkpoint.features)
        store.check(self.features, picture=self.model.has_picture)
        if not len(store):
            raise EvacapError(
                f"{store.folder}: not one of its clips could be read", "its index.parquet says why"
            )
        self.data = FeatureBatches(store, self.features, self.model.has_picture)

    def caption(self, progress: Progress | None = None) -> Captions:
        words = _CaptionCollector(len(self.store), self.checkpoint)
        for rows in self._batches(np.arange(len(self.store)), progress):
            sound, picture = self._encoded(rows)
            words.put(rows, self._describe(sound, picture))
        return words.captions()

    def caption_paired(
        self, pairings: Sequence[Pairing], progress: Progress | None = None
    ) -> tuple[Captions, list[Captions]]:
        """(clips as they are, each sound with the picture of its donor in every pairing). Models that do not look say
        the same of both. Besides a batch, the last sounds and the first pictures are held, as many as the largest
        seed plus one."""
        if not self.model.has_picture:
            captions = self.caption(progress)
            return captions, [captions] * len(pairings)
        clips, most = len(self.store), max(pairing.stride for pairing in pairings)
        walk = donor_cycle(clips)
        own, *mixed = (_CaptionCollector(clips, self.checkpoint) for _ in range(len(pairings) + 1))
        sounds: _EncodedModality | None = None  # of the last clips of the walk, from place `low` on
        first: _EncodedModality | None = None  # pictures of its first clips
        low = start = 0
        for rows in self._batches(walk, progress):
            sound, picture = self._encoded(rows)
            assert picture is not None
            own.put(rows, self._describe(sound, picture))
            sounds = sound if sounds is None else sound.appended_to(sounds)
            if start < most:
                first = picture if first is None else picture.appended_to(first)
            for pairing, words in zip(pairings, mixed, strict=True):  # whose donors have come
                begin, end = max(0, start - pairing.stride), start + len(rows) - pairing.stride
                if end > begin:
                    seen = picture[begin + pairing.stride - start :]
                    words.put(walk[begin:end], self._describe(sounds[begin - low : end - low], seen))
            start += len(rows)
            sounds, low = sounds[max(0, start - most - low) :], max(low, start - most)
        assert sounds is not None
        assert first is not None
        for pairing, words in zip(pairings, mixed, strict=True):  # the last ones' donors are the first
            for begin in range(0, pairing.stride, self.how.batch_size):
                end = min(begin + self.how.batch_size, pairing.stride)
                place = clips - pairing.stride + begin
                heard = sounds[place - low : place - low + end - begin]
                words.put(walk[place : place + end - begin], self._describe(heard, first[begin:end]))
        return own.captions(), [words.captions() for words in mixed]

    def caption_perturbed(
        self, perturbations: Sequence[Perturbation], progress: Progress | None = None
    ) -> list[Captions]:
        """The clips as they are, then once for every change. What a change leaves alone is not encoded again."""
        words = [_CaptionCollector(len(self.store), self.checkpoint) for _ in range(len(perturbations) + 1)]
        for rows in self._batches(np.arange(len(self.store)), progress):
            batch = self.data.batch(rows.tolist())
            sound, picture = self._hear(batch.audio), self._see(batch.picture, batch.mask)
            words[0].put(rows, self._describe(sound, picture))
            for change, words_of in zip(perturbations, words[1:], strict=True):
                heard, seen = sound, picture
                if change.sound is not None:
                    heard = self._hear(change.sound(batch.audio, self.features, rows))
                if change.picture is not None and batch.picture is not None:
                    seen = self._see(*change.picture(batch.picture, batch.mask, rows))
                words_of.put(rows, self._describe(heard, seen))
        return [each.captions() for each in words]

    def _batches(self, order: np.ndarray, progress: Progress | None) -> Iterator[np.ndarray]:
        size = self.how.batch_size
        for start in range(0, len(order), size):
            if progress:
                progress(start, len(order))
            yield order[start : start + size]
        if progress:
            progress(len(order), len(order))

    def _encoded(self, rows: np.ndarray) -> tuple[_EncodedModality, _EncodedModality | None]:
        batch = self.data.batch(rows.tolist())
        return self._hear(batch.audio), self._see(batch.picture, batch.mask)

    @torch.inference_mode()
    def _hear(self, fbank: Tensor) -> _EncodedModality:
        with self._autocast():
            return _EncodedModality(self.model.encode_audio(fbank.to(self.how.device)))

    @torch.inference_mode()
    def _see(self, frames: Tensor | None, mask: Tensor | None) -> _EncodedModality | None:
        if frames is None:
            return None
        pixels = normalize_frames(frames.to(self.how.device), self.features)
        every = torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask
        shown = self.model.visible(pixels, every.to(self.how.device))
        with self._autocast():
            tokens = self.model.encode_picture(pixels, same_frames(frames.to(self.how.device)))
            return _EncodedModality(tokens, shown)

    @torch.inference_mode()
    def _describe(self, sound: _EncodedModality, picture: _EncodedModality | None) -> Generation:
        tokens, mask = (None, None) if picture is None else (picture.tokens, picture.mask)
        with self._autocast():
            memory = self.model.fuse(sound.tokens, tokens, mask)
            return self.model.decode(memory, self.how.beam, self.how.max_words)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.how.device.type, self.how.autocast, enabled=self.how.autocast is not None)


class _CaptionCollector:
    """Captions and numbers of clips, as they come."""

    def __init__(self, clips: int, checkpoint: Checkpoint) -> None:
        self.decode = checkpoint.tokenizer.decode
        self.texts = [""] * clips
        self.cues = checkpoint.model.cues
        self.numbers = {"score": np.full(clips, math.nan)}

    def put(self, rows: np.ndarray, out: Generation) -> None:
        for row, tokens in zip(rows.tolist(), out.tokens.tolist(), strict=True):
            self.texts[row] = self.decode(tokens)
        values: dict[str, Tensor | None] = {
            "score": out.score, "gate": out.gate, "entropy": out.entropy, "evidence": out.evidence,
        }  # fmt: skip
        if out.cues is not None:
            values |= dict(zip(self.cues, out.cues.unbind(1), strict=True))
        for name, numbers in values.items():
            if numbers is not None:
                place = self.numbers.setdefault(name, np.full(len(self.texts), math.nan))
                place[rows] = numbers.float().cpu().numpy()

    def captions(self) -> Captions:
        gate, entropy, evidence = (self.numbers.get(name) for name in ("gate", "entropy", "evidence"))
        cues = {name: self.numbers[name] for name in self.cues if name in self.numbers}
        return Captions(self.texts, self.numbers["score"], gate, entropy, evidence, cues)

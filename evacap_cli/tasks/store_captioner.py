"""Captions the clips of a store, unchanged or with another sound or picture, and encodes each modality once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from evacap_cli.tasks.store_tags import StoreTags, compute_tags

Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class InferenceOptions:
    """How captions are generated. tags: the folder that keeps the tags of the clips, see `compute_tags`; None to run
    the towers."""

    beam: int = 4
    max_words: int = 20
    batch_size: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
    tags: Path | None = None


@dataclass
class Captions:
    """The captions of N clips and their scores. score, gate, entropy, evidence: float (N,). The last three are None if
    the model has none; entropy and evidence are NaN for clips without a picture. cues: the inputs of evidence."""

    captions: list[str]
    score: np.ndarray
    gate: np.ndarray | None
    entropy: np.ndarray | None
    evidence: np.ndarray | None = None
    cues: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[Captions]) -> Captions:
        """Returns the captions of all parts, in order. A number that only some parts have is NaN in the others."""

        def column(values: Sequence[np.ndarray | None]) -> Any:
            if all(each is None for each in values):
                return None
            missing = (np.full(len(part.captions), math.nan) for part in parts)
            return np.concatenate([m if v is None else v for m, v in zip(missing, values, strict=True)])

        names = ("score", "gate", "entropy", "evidence")
        numbers = {name: column([getattr(part, name) for part in parts]) for name in names}
        cues = {name: column([part.cues.get(name) for part in parts]) for part in parts for name in part.cues}
        return cls([text for part in parts for text in part.captions], **numbers, cues=cues)

    def reordered(self, rows: np.ndarray) -> Captions:
        """Returns captions in which clip i has the values of clip `rows[i]`."""
        gate, entropy, evidence = (
            None if values is None else values[rows] for values in (self.gate, self.entropy, self.evidence)
        )
        cues = {name: values[rows] for name, values in self.cues.items()}
        return Captions([self.captions[row] for row in rows], self.score[rows], gate, entropy, evidence, cues)


@dataclass
class _EncodedModality:
    """The encoded tokens (B, T, d) of one modality. mask: bool (B, N), the existing frames of pictures."""

    tokens: Tensor
    mask: Tensor | None = None

    def __getitem__(self, rows: slice) -> _EncodedModality:
        return _EncodedModality(self.tokens[rows], None if self.mask is None else self.mask[rows])

    def appended_to(self, first: _EncodedModality) -> _EncodedModality:
        """Returns the clips of `first` followed by these."""
        masked = self.mask is not None and first.mask is not None
        mask = torch.cat([first.mask, self.mask]) if masked else None  # type: ignore[list-item]
        return _EncodedModality(torch.cat([first.tokens, self.tokens]), mask)


class StoreCaptioner:
    """Captions the clips of a store with one model.

    `caption` captions the unchanged clips; `caption_paired` also each sound with the pictures of its donors;
    `caption_perturbed` also perturbed clips. All encode the sound and picture of a clip once, one batch at a time.
    """

    def __init__(self, checkpoint: Checkpoint, store: Store, options: InferenceOptions) -> None:
        self.checkpoint, self.store, self.options = checkpoint, store, options
        self.model = pack(checkpoint.model.to(options.device).eval(), options.autocast)
        self.features = FeatureSettings.from_dict(checkpoint.features)
        store.check(self.features, picture=self.model.has_picture)
        if not len(store):
            raise EvacapError(
                f"{store.folder}: none of its clips could be read", "its index.parquet has the reasons"
            )
        self.data = FeatureBatches(store, self.features, self.model.has_picture)
        self.tags: StoreTags | None = None
        if options.tags is not None and self.model.has_tag_towers:
            self.tags = compute_tags(self.model, store, self.features, options.tags)

    def caption(self, progress: Progress | None = None, clips: range | None = None) -> Captions:
        """Captions all clips, or a range of them."""
        clips = range(len(self.store)) if clips is None else clips
        collector = _CaptionCollector(len(clips), self.checkpoint)
        for rows in self._batches(np.arange(clips.start, clips.stop), progress):
            sound, picture = self._encode(rows)
            collector.put(rows - clips.start, self._generate(sound, picture))
        return collector.captions()

    def caption_paired(
        self, pairings: Sequence[Pairing], progress: Progress | None = None
    ) -> tuple[Captions, list[Captions]]:
        """Returns the captions of the unchanged clips, and for every pairing those of each sound with its donor's
        picture. They are the same for models without a picture. In addition to a batch, holds the last sounds and the
        first pictures of the cycle in memory, as many as the largest seed plus one."""
        if not self.model.has_picture:
            captions = self.caption(progress)
            return captions, [captions] * len(pairings)
        clips, most = len(self.store), max(pairing.stride for pairing in pairings)
        cycle = donor_cycle(clips)
        own, *mixed = (_CaptionCollector(clips, self.checkpoint) for _ in range(len(pairings) + 1))
        sounds: _EncodedModality | None = None  # of the last clips, from position `low` of the cycle on
        first: _EncodedModality | None = None  # pictures of the first clips of the cycle
        low = start = 0
        for rows in self._batches(cycle, progress):
            sound, picture = self._encode(rows)
            assert picture is not None
            own.put(rows, self._generate(sound, picture))
            sounds = sound if sounds is None else sound.appended_to(sounds)
            if start < most:
                first = picture if first is None else picture.appended_to(first)
            for pairing, collector in zip(
                pairings, mixed, strict=True
            ):  # sounds whose donors are in this batch
                begin, end = max(0, start - pairing.stride), start + len(rows) - pairing.stride
                if end > begin:
                    donors = picture[begin + pairing.stride - start :]
                    out = self._generate(sounds[begin - low : end - low], donors)
                    collector.put(cycle[begin:end], out)
            start += len(rows)
            sounds, low = sounds[max(0, start - most - low) :], max(low, start - most)
        assert sounds is not None
        assert first is not None
        for pairing, collector in zip(
            pairings, mixed, strict=True
        ):  # the donors of the last clips are the first
            for begin in range(0, pairing.stride, self.options.batch_size):
                end = min(begin + self.options.batch_size, pairing.stride)
                at = clips - pairing.stride + begin
                last = sounds[at - low : at - low + end - begin]
                collector.put(cycle[at : at + end - begin], self._generate(last, first[begin:end]))
        return own.captions(), [collector.captions() for collector in mixed]

    def caption_perturbed(
        self, perturbations: Sequence[Perturbation], progress: Progress | None = None
    ) -> list[Captions]:
        """Returns the captions of the unchanged clips, then those of every perturbation. A modality that a perturbation
        does not change is not encoded again."""
        own, *perturbed = (
            _CaptionCollector(len(self.store), self.checkpoint) for _ in range(len(perturbations) + 1)
        )
        for rows in self._batches(np.arange(len(self.store)), progress):
            batch = self.data.batch(rows.tolist())
            sound, picture = self._encode_audio(batch.audio), self._encode_picture(batch.picture, batch.mask)
            own.put(rows, self._generate(sound, picture))
            for perturbation, collector in zip(perturbations, perturbed, strict=True):
                new_sound, new_picture = sound, picture
                if perturbation.sound is not None:
                    new_sound = self._encode_audio(perturbation.sound(batch.audio, self.features, rows))
                if perturbation.picture is not None and batch.picture is not None:
                    changed = perturbation.picture(batch.picture, batch.mask, rows)
                    new_picture = self._encode_picture(*changed)
                collector.put(rows, self._generate(new_sound, new_picture))
        return [collector.captions() for collector in (own, *perturbed)]

    def _batches(self, order: np.ndarray, progress: Progress | None) -> Iterator[np.ndarray]:
        size = self.options.batch_size
        for start in range(0, len(order), size):
            if progress:
                progress(start, len(order))
            yield order[start : start + size]
        if progress:
            progress(len(order), len(order))

    def _encode(self, rows: np.ndarray) -> tuple[_EncodedModality, _EncodedModality | None]:
        if self.tags is not None:
            audio, picture, frames = (
                None if x is None else x.to(self.options.device) for x in self.tags.rows(rows.tolist())
            )
            assert audio is not None
            return _EncodedModality(audio), None if picture is None else _EncodedModality(picture, frames)
        batch = self.data.batch(rows.tolist())
        return self._encode_audio(batch.audio), self._encode_picture(batch.picture, batch.mask)

    @torch.inference_mode()
    def _encode_audio(self, fbank: Tensor) -> _EncodedModality:
        with self._autocast():
            return _EncodedModality(self.model.encode_audio(fbank.to(self.options.device)))

    @torch.inference_mode()
    def _encode_picture(self, frames: Tensor | None, mask: Tensor | None) -> _EncodedModality | None:
        if frames is None:
            return None
        pixels = normalize_frames(frames.to(self.options.device), self.features)
        every = torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask
        shown = self.model.visible(pixels, every.to(self.options.device))
        with self._autocast():
            tokens = self.model.encode_picture(pixels, same_frames(frames.to(self.options.device)))
            return _EncodedModality(tokens, shown)

    @torch.inference_mode()
    def _generate(self, sound: _EncodedModality, picture: _EncodedModality | None) -> Generation:
        tokens, mask = (None, None) if picture is None else (picture.tokens, picture.mask)
        with self._autocast():
            memory = self.model.fuse(sound.tokens, tokens, mask)
            return self.model.decode(memory, self.options.beam, self.options.max_words)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.options.device.type, self.options.autocast, enabled=self.options.autocast is not None
        )


class _CaptionCollector:
    """Collects the captions and scores of clips, batch by batch."""

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
                column = self.numbers.setdefault(name, np.full(len(self.texts), math.nan))
                column[rows] = numbers.float().cpu().numpy()

    def captions(self) -> Captions:
        gate, entropy, evidence = (self.numbers.get(name) for name in ("gate", "entropy", "evidence"))
        cues = {name: self.numbers[name] for name in self.cues if name in self.numbers}
        return Captions(self.texts, self.numbers["score"], gate, entropy, evidence, cues)

"""The fusion `evidence`: cross-attention behind a switch that opens if the picture matches the sound."""

from __future__ import annotations

import torch
from torch import Tensor

from evacap_cli.model.config import ModelConfig, TagEncoderConfig
from evacap_cli.model.evidence import Evidence, pooled_tags
from evacap_cli.model.fused import Fused, Tags
from evacap_cli.model.fusion import CrossAttention
from evacap_cli.model.tag_evidence import TagEvidence


class EvidenceSwitch(CrossAttention):
    """The memory is A + F where audio and picture match, and A, unchanged, where they do not.

    A window of the clip matches if its evidence is at least `config.evidence.threshold`. In training the switch is
    always open, and `match_loss` trains the evidence.
    """

    has_gate = True
    trained_by_match = ("fusion.evidence",)

    def __init__(self, config: ModelConfig) -> None:
        encoder = config.encoder
        super().__init__(encoder.width, encoder.heads)
        self.config, self.grid, self.frame_tokens = config.evidence, encoder.audio_grid, encoder.frame_tokens
        self.evidence: Evidence | TagEvidence = (
            TagEvidence(encoder)
            if isinstance(encoder, TagEncoderConfig)
            else Evidence(encoder, config.evidence)
        )

    def match_loss(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None) -> Tensor:
        """The loss () of the evidence: own pairs of the batch against all others. Arguments as in `forward`."""
        if isinstance(self.evidence, TagEvidence):
            assert tags is not None
            assert tags[1] is not None
            return self.evidence.loss(audio, picture, mask, (tags[0], tags[1]))
        return self.evidence.loss(audio, picture, mask, self._pooled(tags, mask))

    def confirm(self, tags: Tags) -> Tensor | None:
        """Tags of the audio with higher logits for the classes that a matching picture shows, (B, T_a, 2 + windows).

        See `TagEvidence.confirm`. None if the model does not do this, and in training, where every picture matches.
        """
        evidence = self.evidence
        if self.training or not isinstance(evidence, TagEvidence) or not self.config.confirmation:
            return None
        return None if tags[1] is None else evidence.confirm((tags[0], tags[1]), self.config)

    def forward(
        self, audio: Tensor, picture: Tensor | None, mask: Tensor | None, tags: Tags | None = None
    ) -> Fused:
        """Arguments as in `CrossAttention`; tags: of encoders that have them."""
        if self.training:
            fused = super().forward(audio, picture, mask)
            present = audio.new_full((len(audio),), picture is not None).bool()
            fused.uses_picture = present if mask is None else mask.any(dim=1)
            return fused
        if picture is None:
            return self._without_picture(audio)
        windows = self._windows(audio, picture, mask, tags)
        window_cues = [self._cues(*window) for window in windows]
        evidence = torch.stack([self.evidence.probability(cues) for cues in window_cues], dim=1)  # (B, W)
        cues = window_cues[0] if len(window_cues) == 1 else self._cues(audio, picture, mask, tags)
        matches = evidence >= self.config.threshold  # False for NaN
        gate, shown = self._tokens_of(matches, audio.shape[1], picture.shape[1])
        tokens, rows = audio, matches.any(dim=1)
        if bool(rows.any()):
            visible = shown if mask is None else shown & mask
            visual_mask = None if bool(visible[rows].all()) else visible[rows]
            combined = super().combine(audio[rows], picture[rows], visual_mask).tokens
            tokens = audio.clone()
            tokens[rows] = torch.where(gate[rows][..., None], combined.to(audio.dtype), audio[rows])
        return Fused(tokens, gate=gate.float(), evidence=evidence, cues=cues, uses_picture=rows)

    def _without_picture(self, audio: Tensor) -> Fused:
        fused = super()._without_picture(audio)
        if not self.training:
            B = len(audio)
            fused.uses_picture = audio.new_zeros(B).bool()
            fused.evidence = audio.new_full((B, self.config.windows), torch.nan, dtype=torch.float32)
            fused.cues = audio.new_full((B, len(self.evidence.cues)), torch.nan, dtype=torch.float32)
        return fused

    def _cues(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None) -> Tensor:
        """The cues (B, K) of a window; NaN for clips without a picture."""
        present = None if mask is None else mask.any(dim=1)
        if present is not None and mask is not None:
            mask = mask | ~present[:, None]
        pooled = tags if isinstance(self.evidence, TagEvidence) else self._pooled(tags, mask)
        cues = self.evidence(audio, picture, mask, pooled)
        return cues if present is None else torch.where(present[:, None], cues, torch.nan)

    @staticmethod
    def _pooled(tags: Tags | None, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Tag logits of clips, (B, C) for each modality, from those of tokens."""
        if tags is None or tags[1] is None:
            return None
        return pooled_tags(tags[0]), pooled_tags(tags[1], mask)

    def _windows(
        self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None
    ) -> list[tuple[Tensor, Tensor, Tensor | None, Tags | None]]:
        """Splits a clip into windows of equal length: the audio tokens, visual tokens, mask and tags of each."""
        count = min(self.config.windows, self.grid[1], picture.shape[1] // self.frame_tokens)
        if count == 1:
            return [(audio, picture, mask, tags)]

        def split_audio(x: Tensor) -> list[Tensor]:
            return [part.flatten(1, 2) for part in x.unflatten(1, self.grid).tensor_split(count, dim=2)]

        def split_picture(x: Tensor) -> list[Tensor]:
            frames = x.unflatten(1, (-1, self.frame_tokens))
            return [part.flatten(1, 2) for part in frames.tensor_split(count, dim=1)]

        masks = [None] * count if mask is None else split_picture(mask)
        window_tags: list[Tags | None] = [None] * count
        if tags is not None and tags[1] is not None:
            window_tags = list(zip(split_audio(tags[0]), split_picture(tags[1]), strict=True))
        return list(zip(split_audio(audio), split_picture(picture), masks, window_tags, strict=True))

    def _tokens_of(self, matches: Tensor, audio_tokens: int, picture_tokens: int) -> tuple[Tensor, Tensor]:
        """For windows that match, bool (B, W): the audio tokens (B, T_a) and visual tokens (B, T_v) in them."""
        if matches.shape[1] == 1:
            return matches.expand(-1, audio_tokens), matches.expand(-1, picture_tokens)
        rows, columns = self.grid
        gate = torch.cat([
            match[:, None, None].expand(-1, rows, length)
            for match, length in zip(matches.unbind(1), _lengths(columns, matches.shape[1]), strict=True)
        ], dim=2).flatten(1)  # fmt: skip
        frames = picture_tokens // self.frame_tokens
        shown = torch.cat([
            match[:, None].expand(-1, length * self.frame_tokens)
            for match, length in zip(matches.unbind(1), _lengths(frames, matches.shape[1]), strict=True)
        ], dim=1)  # fmt: skip
        return gate, shown


def _lengths(length: int, windows: int) -> list[int]:
    """The lengths of the parts into which `tensor_split` splits `length`."""
    return [length // windows + (i < length % windows) for i in range(windows)]
